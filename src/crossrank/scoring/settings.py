"""What a CrossEncoder is made with, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from crossrank.checkpoint.fingerprint import fingerprint
from crossrank.checkpoint.source import ModelFiles
from crossrank.engines.select import LoadedModel
from crossrank.errors import InputError
from crossrank.scoring.calibration import Binding


def check_name(model: Any, revision: Any) -> None:
    """Refuse a name or revision of the wrong type.

    :raises InputError: If it is one.
    """
    if model is not None and not isinstance(model, (str, os.PathLike)):
        raise InputError(
            f"model_name_or_path={model!r} is neither a string nor a path. "
            "Give a name on the hub or a folder, or leave it out for the model in the box."
        )
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"revision={revision!r} is not a string. Give a branch, a tag or a commit.")


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


def binding_of(name: str, files: ModelFiles, model: LoadedModel, label: int | None) -> Binding:
    """Say what a calibration of a model is bound to; reads all of its weights.

    :param label: Of several labels, the index of the one that counts.
    """
    return Binding(
        model=name,
        revision=files.revision,
        architecture=model.config.model_type,
        fingerprint=fingerprint(files.folder),
        precision=str(model.engine.facts["precision"]),
        max_length=model.encoder.max_length,
        label=None if label is None else model.config.labels[label],
    )
