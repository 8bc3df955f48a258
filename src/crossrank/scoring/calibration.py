"""Calibration: raw scores -> probabilities of relevance, bound to the model whose scores they were fitted on.

Applied with NumPy alone; fitted by :mod:`crossrank.evaluation.calibration.curves`. Both curves rise with the raw
score, so they change no ranking: rank on the logits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.atomic_write import write_atomically
from crossrank.errors import InputError
from crossrank.scoring.activation import Activation, sigmoid

Floats = NDArray[np.float64]
FORMAT, VERSION = "crossrank-calibration", 2

_T = TypeVar("_T")


@dataclass(frozen=True)
class Platt:
    """``1 / (1 + exp(-(slope z + intercept)))``: Platt 1999, "Probabilistic Outputs for Support Vector Machines".

    :param slope: Above 0.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise InputError(
                f"slope={self.slope} and intercept={self.intercept} can't be used: both must be finite, slope above 0."
            )

    def apply(self, logits: Floats) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape."""
        return sigmoid(self.slope * logits + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """A rising curve through points: Zadrozny and Elkan 2002, "Transforming Classifier Scores into ... Estimates".

    Between two points it is a straight line; beyond the first and the last it stays where it is.

    :param logits: Rising.
    :param probabilities: Never falling, from 0 to 1.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.array(self.logits, np.float64), np.array(self.probabilities, np.float64)
        if not len(x) or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError(
                "logits and probabilities must be finite, and as many of one as of the other, at least one."
            )
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any() or y[0] < 0 or y[-1] > 1:
            raise InputError("logits must increase, and probabilities must lie between 0 and 1 and never decrease.")

    def apply(self, logits: Floats) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape."""
        return np.asarray(np.interp(logits, self.logits, self.probabilities), np.float64)


CURVES: Mapping[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}


@dataclass(frozen=True)
class Binding:
    """The model that a calibration holds for.

    :param model: Its name; for people, copies of a model may have another.
    :param revision: The commit on the hub, if it came from there; for people too.
    :param architecture: ``model_type``.
    :param identity: Digest of every file that the scores depend on, see :mod:`crossrank.checkpoint.identity`.
    :param precision: What it calculates in.
    :param max_length: The most tokens of a pair.
    :param label: Of several labels, the one that means relevant.
    """

    model: str
    revision: str | None
    architecture: str
    identity: str
    precision: str
    max_length: int
    label: str | None

    def __str__(self) -> str:
        revision = f" at revision {self.revision}" if self.revision else ""
        label = f", label {self.label}" if self.label is not None else ""
        return (
            f"{self.model}{revision} ({self.architecture}, identity {self.identity}) in {self.precision}, "
            f"{self.max_length} tokens a pair{label}"
        )


@dataclass(frozen=True)
class Quality:
    """How good probabilities are on judged pairs.

    :param ece: Expected calibration error over ten bins of equal width (Naeini et al. 2015).
    :param brier: Mean squared error (Brier 1950).
    :param log_loss: Mean negative log-likelihood, in nats.
    """

    ece: float
    brier: float
    log_loss: float


@dataclass(frozen=True)
class Threshold:
    """A score from which on documents are kept, and what stands behind it.

    :param measure: ``"precision"``: of what is kept; or ``"recall"``: of the relevant candidates.
    :param target: What it is to be at least.
    :param score: Keep what scores at least this; a calibrated probability.
    :param bound: The one-sided lower confidence bound of the measure at this score.
    :param observed: The measure on the judged pairs.
    :param confidence: How sure the bound is, such as 0.95.
    :param pairs: Judged pairs behind it: for precision those that are kept, for recall the relevant ones.
    :param effective_pairs: As how many independent pairs they count, since those of one query are alike.
    :param kept: Share of all judged pairs that are kept.
    """

    measure: str
    target: float
    score: float
    bound: float
    observed: float
    confidence: float
    pairs: int
    effective_pairs: float
    kept: float


@dataclass(frozen=True)
class Calibration:
    """A curve from raw scores to probabilities, what it is bound to, and what stands behind it.

    :param curve: How a raw score becomes a probability.
    :param binding: The model it holds for.
    :param dataset: What it was fitted on.
    :param pairs: Judged pairs behind it.
    :param relevant: How many of them are relevant.
    :param queries: How many queries they belong to.
    :param unjudged: Candidates without a judgement.
    :param unjudged_as: ``"left out"`` or ``"irrelevant"``: what was done with them.
    :param before: Quality of the sigmoid of the raw score.
    :param after: Quality of the calibrated probabilities, each from a curve fitted on other queries.
    :param log_losses: Method -> its held-out log loss, by which the method was chosen.
    :param thresholds: Thresholds that were asked for.
    """

    curve: Platt | Isotonic
    binding: Binding
    dataset: str
    pairs: int
    relevant: int
    queries: int
    unjudged: int
    unjudged_as: str
    before: Quality
    after: Quality
    log_losses: Mapping[str, float]
    thresholds: tuple[Threshold, ...] = ()

    @property
    def method(self) -> str:
        """``"platt"`` or ``"isotonic"``."""
        return next(name for name, kind in CURVES.items() if isinstance(self.curve, kind))

    @property
    def digest(self) -> str:
        """Tells this calibration from others; for caches."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def activation(self) -> Activation:
        """As what it takes the place of."""
        return Activation(self.apply, "calibrated", monotone=True)

    def apply(self, logits: Any) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape.

        :param logits: Raw scores of any shape, as ``PairScores.relevance`` has them.
        """
        return self.curve.apply(np.asarray(logits, np.float64))

    def check(self, model: Binding) -> None:
        """Refuse a model that it does not hold for.

        :raises InputError: If the weights, the precision, the length or the label is another; both are named.
        """
        bound = ("identity", "precision", "max_length", "label")
        other = [name for name in bound if getattr(self.binding, name) != getattr(model, name)]
        if other:
            raise InputError(
                f"The calibration was fitted on {self.binding}, but this model is {model}: another "
                f"{' and '.join(other)}. Fit one for it (crossrank calibrate), or load the model as it was."
            )

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: asdict(value) for name, value in values.items() if is_dataclass(value)}  # type: ignore[arg-type]
        values["log_losses"] = dict(self.log_losses)
        values["thresholds"] = [asdict(threshold) for threshold in self.thresholds]
        return {"format": FORMAT, "version": VERSION, "method": self.method, **values}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; a file that is there is replaced in one step."""
        with write_atomically(Path(path)) as stream:
            stream.write(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def from_dict(cls, value: Any, where: str = "the calibration") -> Calibration:
        """Read what :meth:`to_dict` wrote.

        :param where: What it is called in messages.
        :raises InputError: If it is something else, of a version not known, or damaged.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise InputError(f"{where} is not a calibration. Write one with: crossrank calibrate DATASET -o FILE")
        if value.get("version") == 1:
            raise InputError(
                f"{where} was written by an earlier crossrank, which did not check the tokenizer's settings, modules "
                "and prompts of the model. Fit it again: crossrank calibrate DATASET -o FILE"
            )
        if value.get("version") != VERSION:
            raise InputError(
                f"{where} is of version {value.get('version')!r}; version {VERSION} is known. Update crossrank, or fit "
                "it again."
            )
        if value.get("method") not in CURVES:
            raise InputError(f"{where} has method={value.get('method')!r}; known are {', '.join(CURVES)}.")
        try:
            given = {key: value[key] for key in (field.name for field in fields(cls))}
            curve: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in given["curve"].items()}
            given["curve"] = CURVES[value["method"]](**curve)
            given["binding"] = _made(Binding, given["binding"])
            given["before"], given["after"] = (_made(Quality, given[name]) for name in ("before", "after"))
            given["log_losses"] = {str(name): float(loss) for name, loss in given["log_losses"].items()}
            given["thresholds"] = tuple(_made(Threshold, threshold) for threshold in given["thresholds"])
            return cls(**given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged ({error!r}). Fit it again.") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file that :meth:`save` wrote.

        :raises InputError: If there is no such file, or it can't be used.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"The calibration {os.fspath(path)!r} can't be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"The calibration {os.fspath(path)!r} is not valid JSON ({error}). Fit it again."
            ) from error
        return cls.from_dict(value, f"The file {os.fspath(path)!r}")

    def only_raw(self, chosen: Activation, given: Any) -> Activation:
        """Let only raw scores be asked for beside this calibration.

        :param chosen: What was asked for.
        :param given: How it was asked for, for the message.
        :raises InputError: If it is something else.
        """
        if chosen.kind == "logit":
            return chosen
        raise InputError(
            f"activation_fn={given!r}, but this model's scores are calibrated. Give 'identity' for raw scores, or make "
            "a CrossEncoder without calibration."
        )

    @classmethod
    def of(cls, given: Any, activation_fn: Any = None) -> Calibration | None:
        """Take a calibration as it is, or read the file that is named.

        :param activation_fn: What else is to make the scores; must be ``None``.
        :raises InputError: If it is neither, or can't be used.
        """
        if given is None:
            return None
        if activation_fn is not None:
            raise InputError(
                f"activation_fn={activation_fn!r} and calibration are both given, but each makes the scores. Leave one "
                "out; raw scores are had with activation_fn='identity' in a call."
            )
        if isinstance(given, cls):
            return given
        if isinstance(given, (str, os.PathLike)):
            return cls.load(given)
        raise InputError(f"calibration={given!r} is neither a file nor a Calibration.")


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "float": (int, float),
}


def _made(kind: type[_T], value: Mapping[str, Any]) -> _T:
    """Make a dataclass of plain values, their types checked.

    :raises TypeError: If a type is wrong, or a key is missing or not known.
    """
    made = kind(**value)
    for field in fields(made):  # type: ignore[arg-type]
        found = getattr(made, field.name)
        if not isinstance(found, _TYPES[str(field.type)]) or isinstance(found, bool):
            raise TypeError(f"{field.name}={found!r} is not {field.type}")
    return made
