"""Files that commands write: checked before long work, and never the same as an input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crossrank.data.beir import folder_files
from crossrank.errors import InputError


def check_output(name: str | Path, inputs: Sequence[str | Path | None] = ()) -> None:
    """Check that a file can be written, and that it is not an input.

    :param inputs: Files that the command reads, and folders in BEIR's layout; ``None`` is ignored.
    :raises InputError: If its folder is missing or not writable, or the name belongs to a folder or an input.
    """
    path = Path(name)
    folder = path.resolve().parent
    if path.is_dir():
        raise InputError(f"{name} is a folder, but the output is a file. Name a file in it.")
    if not folder.is_dir():
        raise InputError(f"The folder of {name} does not exist. Make it first, or name another.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{name} can't be written: permission denied. Name another place.")
    if not path.exists():
        return
    for given in (Path(one) for one in inputs if one):
        for file in folder_files(given) if given.is_dir() else [given] if given.exists() else []:
            if path.samefile(file):
                raise InputError(f"{name} is an input: writing it would destroy {file}. Name another output.")
