"""ScoreScale: how a model's logits become scores, by which label counts and which activation is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.scoring.activation import Activation, label_logit


@dataclass(frozen=True)
class ScoreScale:
    """From logits ``[pairs, labels]`` to scores.

    :param model: The model's name, for messages.
    :param labels: Its labels, in the order of the logits.
    :param label: Index of the label that means relevant, if one of several is named.
    :param activation: What is applied to the logits.
    """

    model: str
    labels: Sequence[str]
    label: int | None
    activation: Activation

    @property
    def is_single(self) -> bool:
        """Whether a pair has one score."""
        return len(self.labels) == 1 or self.label is not None

    def check_single(self) -> None:
        """Refuse a model of several labels of which none is named.

        :raises InputError: With the labels.
        """
        if not self.is_single:
            raise InputError(
                f"{self.model} has {len(self.labels)} labels ({', '.join(self.labels)}), so there is no one score to "
                f"rank by. Name the one that means relevant: CrossEncoder(..., label={self.labels[-1]!r}); or use "
                "predict()."
            )

    def check_activation(self) -> None:
        """Refuse softmax over a single score.

        :raises InputError: If it is that.
        """
        if self.activation.kind == "softmax" and self.is_single:
            raise InputError(
                "activation_fn='softmax' is over the labels of a pair, but here each pair has a single score. "
                "Give 'sigmoid' or 'identity', or leave it out."
            )

    def apply(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Turn logits into ``scores`` and ``relevance`` as :class:`~crossrank.pairs.PairScores` has them.

        :param logits: ``[pairs, labels]``.
        """
        wide = logits.astype(np.float64)
        values = wide[:, 0] if len(self.labels) == 1 else wide
        if self.label is not None and len(self.labels) > 1:
            values = label_logit(wide, self.label)
        scores = self.activation.apply(values)
        if not self.is_single:
            return scores, None
        return scores, values if self.activation.monotone else scores


def find_label(label: str | int | None, num_labels: int | None, labels: Sequence[str], name: str) -> int | None:
    """Find the index of the label that counts, if one is named.

    :param label: What the caller named.
    :param num_labels: How many the caller expects.
    :raises InputError: If the model has no such label, or another number of them.
    """
    if num_labels is not None and num_labels != len(labels):
        raise InputError(
            f"num_labels={num_labels!r}, but {name} has {len(labels)}: {', '.join(labels)}. "
            "A checkpoint keeps its own number of labels; leave num_labels out."
        )
    if label is None:
        return None
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    index = int(label) if isinstance(label, str) and label.isdecimal() else label
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(labels):
        return index
    raise InputError(
        f"label={label!r} is not one of this model's labels: {', '.join(labels)}. "
        f"Give one of these names, or an index from 0 to {len(labels) - 1}."
    )
