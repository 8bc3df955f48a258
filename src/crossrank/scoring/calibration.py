"""Calibration: raw scores -> probabilities of relevance, bound to the model whose scores they were fitted on.

Fitted by :mod:`crossrank.evaluation.calibration.curves`. The curves rise with the raw score, so the order of the
documents stays. Where isotonic regression makes scores equal, the raw scores still order them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossrank.atomic_write import write_atomically
from crossrank.errors import InputError
from crossrank.scoring.activation import Activation
from crossrank.scoring.calibration_curves import CURVES, Floats, Isotonic, Platt

FORMAT, VERSION = "crossrank-calibration", 2

_T = TypeVar("_T")


@dataclass(frozen=True)
class Binding:
    """The model that a calibration was fitted for.

    :param model: Its name, for people: a copy of a model may have another name.
    :param revision: The commit on the hub, if it came from there; also for people.
    :param architecture: ``model_type``.
    :param identity: Digest of every file that the scores depend on, see :mod:`crossrank.checkpoint.identity`.
    :param precision: The precision it runs in.
    :param max_length: The most tokens of a pair.
    :param label: The label that means relevant, for a model of several.
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
    """The score from which on documents are kept, and the data behind it.

    :param measure: ``"precision"`` of what is kept, or ``"recall"`` of the relevant candidates.
    :param target: The least value of the measure that you asked for.
    :param score: Keep documents that score at least this; a calibrated probability.
    :param bound: The one-sided lower confidence bound of the measure at this score.
    :param observed: The measure on the judged pairs.
    :param confidence: The confidence of the bound, such as 0.95.
    :param pairs: Number of judged pairs behind it: those that are kept for precision, the relevant ones for recall.
    :param effective_pairs: How many independent pairs they are worth: pairs of one query are alike.
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
    """A curve from raw scores to probabilities, the model it belongs to, and the data behind it.

    :param curve: From raw scores to probabilities.
    :param binding: The model it was fitted for.
    :param dataset: The data it was fitted on.
    :param pairs: Number of judged pairs.
    :param relevant: How many of them are relevant.
    :param queries: How many queries they belong to.
    :param unjudged: Number of candidates without a judgement.
    :param unjudged_as: How those were used: ``"left out"`` or ``"irrelevant"``.
    :param before: Quality of the sigmoid of the raw score.
    :param after: Quality of the calibrated probabilities, each from a curve fitted on other queries.
    :param log_losses: The held-out log loss of each method. The lowest was chosen.
    :param thresholds: The thresholds that you asked for.
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
        """Digest of the whole calibration, as a cache key."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def activation(self) -> Activation:
        """The activation that puts this calibration in place of the model's own."""
        return Activation(self.apply, "calibrated", monotone=True)

    def apply(self, logits: Any) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape.

        :param logits: Raw scores of any shape, as ``PairScores.relevance`` has them.
        """
        return self.curve.apply(np.asarray(logits, np.float64))

    def check(self, model: Binding) -> None:
        """Refuse another model than the one it was fitted for.

        :raises InputError: If the weights, the precision, the length or the label differ. Both are named.
        """
        bound = ("identity", "precision", "max_length", "label")
        other = [name for name in bound if getattr(self.binding, name) != getattr(model, name)]
        if other:
            raise InputError(
                f"The calibration was fitted on {self.binding}, but this model is {model}. They differ "
                f"in {' and '.join(other)}. Fit a calibration for this model (crossrank calibrate), or load the model "
                "that it was fitted on."
            )

    def to_dict(self) -> dict[str, Any]:
        """The calibration as a dictionary for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: asdict(value) for name, value in values.items() if is_dataclass(value)}  # type: ignore[arg-type]
        values["log_losses"] = dict(self.log_losses)
        values["thresholds"] = [asdict(threshold) for threshold in self.thresholds]
        return {"format": FORMAT, "version": VERSION, "method": self.method, **values}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON. An existing file is replaced in one step."""
        with write_atomically(Path(path)) as stream:
            stream.write(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def from_dict(cls, value: Any, where: str = "the calibration") -> Calibration:
        """Read what :meth:`to_dict` wrote.

        :param where: Its name in error messages.
        :raises InputError: If it is something else, of an unknown version, or damaged.
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
                f"{where} has version {value.get('version')!r}, but this crossrank reads version {VERSION}. "
                "Update crossrank, or fit it again."
            )
        if value.get("method") not in CURVES:
            raise InputError(f"{where} has method={value.get('method')!r}. Known methods: {', '.join(CURVES)}.")
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

    def only_raw(self, chosen: Activation, given: Any) -> None:
        """Refuse every activation but raw scores: the calibration makes the scores.

        :param chosen: The activation of the call.
        :param given: As the caller wrote it, for the message.
        :raises InputError: If it is not ``"identity"``.
        """
        if chosen.kind != "logit":
            raise InputError(
                f"activation_fn={given!r}, but this model's scores are calibrated. Give 'identity' for raw scores, or "
                "make a CrossEncoder without a calibration."
            )

    @classmethod
    def of(cls, given: Any, activation_fn: Any = None) -> Calibration | None:
        """Return a calibration as it is, or read it from a file.

        :param activation_fn: Must be ``None``: only one of the two can make the scores.
        :raises InputError: If both are given, or the calibration can't be used.
        """
        if given is None:
            return None
        if activation_fn is not None:
            raise InputError(
                f"activation_fn={activation_fn!r} and calibration are both given, but only one can make the scores. "
                "Leave one out. For raw scores, pass activation_fn='identity' to the call."
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
    """Make a dataclass from JSON values, and check their types."""
    made = kind(**value)
    for field in fields(made):  # type: ignore[arg-type]
        found = getattr(made, field.name)
        if not isinstance(found, _TYPES[str(field.type)]) or isinstance(found, bool):
            raise TypeError(f"{field.name}={found!r} is not {field.type}")
    return made
