"""Write a model folder completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crossrank.checkpoint.locks import FileLock
from crossrank.errors import InputError

# How the model was trained.
RUN = "training.json"
# The files that transformers, sentence-transformers and a training run write into a model's folder.
_OF_A_MODEL = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|modules"
    r"|config_sentence_transformers|sentence_bert_config|training)\.json|(vocab|merges)\.txt|.+\.model"
    r"|(model|pytorch_model)([.-].+)?\.(safetensors|bin)(\.index\.json)?|chat_template\.jinja"
    r"|README\.md|\.gitattributes|training_log\.csv|runs/.+"
)
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
# Messages about a full disk from writers that raise no OSError: safetensors, torch's zip writer, Arrow.
_MESSAGES = (
    *("no space left", "file too large", "os error 28", "os error 27", "quota exceeded"),
    *("failed writing file", "unexpected pos"),
)


def check_output(output: Path) -> None:
    """Check that a model can be written there, and clean up after an interruption between two renames.

    :raises InputError: If it is a file, or a folder with other contents.
    """
    old = _sibling(output, "old")
    if old.is_dir():
        if output.exists():
            shutil.rmtree(old)
        else:
            old.rename(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"{str(output)!r} is a file. Name a folder for the model.")
    files = sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())
    if output.is_dir() and any(output.iterdir()) and not _is_model(output, files):
        raise InputError(
            f"The folder {str(output)!r} is not empty and holds no model, so it is not replaced. Name another "
            "folder, or empty this one."
        )
    foreign = [file for file in files if not _OF_A_MODEL.fullmatch(file)]
    if foreign:
        raise InputError(
            f"The folder {str(output)!r} holds files that are not part of a model ({', '.join(map(repr, foreign[:3]))})"
            " and would be deleted with the old model. Move them away, or name another folder."
        )


def queries_learnt(folder: Path) -> set[str]:
    """Return the digests of the queries that a model and its base were trained on, see :func:`.checks.digest_of_query`.

    :returns: An empty set for a model that :func:`.trainer.train` did not make.
    """
    try:
        return set(json.loads((folder / RUN).read_text(encoding="utf-8"))["queries"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Lock a model's folder and its save points against a second run.

    :raises CrossRankError: If another run has the lock.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    path = _sibling(output, "lock")
    with FileLock(path, f"the training of {output.name}"):
        try:
            yield
        finally:
            # Windows can't delete an open file; the empty file remains then.
            with suppress(OSError):
                path.unlink()


def write_folder(output: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name, then rename it. An existing model is replaced as a whole.

    :param write: Writes into the folder it is given.
    :raises OSError: If it could not be written. An existing model is unchanged.
    """
    new, old = _sibling(output, "new"), _sibling(output, "old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        write(new)
        _readable(new)
        _to_disk(new)
        if output.exists():
            output.rename(old)
        new.rename(output)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.is_dir() and not output.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def explain_full_disk(output: Path, remedy: str) -> Iterator[None]:
    """Turn errors about a full disk into one that says what happened to the model.

    :raises OSError: If the disk is full.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) not in _FULL and not any(text in str(error).lower() for text in _MESSAGES):
            raise
        stays = " The existing model is unchanged." if (output / "config.json").is_file() else ""
        raise OSError(
            f"The disk is full, or a file size limit is reached, at {str(output.parent)!r}: the model {str(output)!r} "
            f"was not written.{stays} {remedy}"
        ) from error


def _is_model(folder: Path, files: Sequence[str]) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = any(file.endswith((".safetensors", ".bin")) for file in files)
    return isinstance(config, dict) and "model_type" in config and weights


def _sibling(output: Path, what: str) -> Path:
    return output.parent / f".{output.name}.{what}"


def _readable(folder: Path) -> None:
    """Give all files the permissions of config.json, because some writers make weights readable only by the owner."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(mode)


def _to_disk(folder: Path) -> None:
    """Wait until the files are on the disk, so that no incomplete file is renamed."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
