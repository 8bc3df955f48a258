"""Which label of a model counts."""

from __future__ import annotations

from collections.abc import Sequence

from crossrank.errors import InputError


def find_label(label: str | int | None, num_labels: int | None, labels: Sequence[str], name: str) -> int | None:
    """Find the index of the label that counts, if one is named.

    :param label: What the caller named.
    :param num_labels: How many the caller expects.
    :param labels: The model's.
    :param name: The model's name.
    :raises InputError: If the model has no such label, or another number of them.
    """
    if num_labels is not None and num_labels != len(labels):
        raise InputError(
            f"num_labels={num_labels!r}, but {name} has {len(labels)}: {', '.join(labels)}. "
            "A checkpoint is run with the head that it has; leave num_labels out."
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
