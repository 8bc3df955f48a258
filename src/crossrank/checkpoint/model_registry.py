"""ModelRegistry: one folder with the versions of a model, and a pointer to the one in use.

::

    registry/
      current          the version in use, then the versions in use before, newest first
      versions/
        1-5f0c2a9e/    a checkpoint: its number and the start of its SHA-256
        2-b81d77c4/
      history.jsonl    one line for each event, with the figures of the decisions
      decisions/       all decisions of `learn`
      lock             a lock for changes

Readers need no lock: ``current`` is replaced atomically, and a version never changes once it has its name. If a
process is killed or the disk is full, the version in use stays the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from crossrank.atomic_write import write_atomically
from crossrank.checkpoint.locks import FileLock
from crossrank.errors import CheckpointError, CrossRankError, InputError

POINTER, VERSIONS, HISTORY, DECISIONS, LOCK = "current", "versions", "history.jsonl", "decisions", "lock"
_INCOMING = ".incoming"
_NAME = re.compile(r"([1-9]\d*)-[0-9a-f]{8}")
# How many earlier versions in use are remembered for rollbacks.
_REMEMBERED = 100
# Save points and logs of a training run, which some trainers write to the same folder.
_NO_PART = re.compile(r"\.|checkpoint-\d+$|runs$|__pycache__$")
# Seconds that a change waits for another one, because copying a large model takes long.
_WAIT = 60.0


@dataclass(frozen=True)
class Version:
    """A version of the model.

    :param name: Such as ``"2-b81d77c4"``.
    :param folder: Its checkpoint.
    """

    name: str
    folder: Path

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return int(self.name.partition("-")[0])


class ModelRegistry:
    """Versions of a model in one folder. Nothing is read or created before a method is called.

    :param folder: The folder; the first :meth:`publish` creates it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"ModelRegistry({str(self.folder)!r})"

    # ---- reading -----------------------------------------------------------------------------------------------

    def current(self) -> Version | None:
        """Return the version in use; ``None`` before the first.

        :raises CheckpointError: If the pointer is damaged.
        """
        names = self._pointer()
        return self._version(names[0]) if names else None

    def before(self) -> list[Version]:
        """Return the versions in use before, newest first, which :meth:`rollback` goes back to.

        :raises CheckpointError: If the pointer is damaged.
        """
        return [self._version(name) for name in self._pointer()[1:]]

    def must_be_there(self) -> None:
        """Check that the registry exists, for callers that only read it.

        :raises InputError: If it does not.
        """
        if not (self.folder / VERSIONS).is_dir():
            self._pointer()  # of a file it says that it is one
            raise InputError(f"{str(self.folder)!r} is not a registry: it has no {VERSIONS!r} in it. Check the path.")

    def versions(self) -> list[Version]:
        """All versions, in order."""
        folder = self.folder / VERSIONS
        names = [entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name)] if folder.is_dir() else []
        return sorted(map(self._version, names), key=lambda version: version.number)

    def find(self, version: str) -> Version:
        """Find a version by its name or its number.

        :raises InputError: If there is none.
        """
        for known in self.versions():
            if version in (known.name, str(known.number)):
                return known
        there = ", ".join(known.name for known in self.versions()) or "none"
        raise InputError(f"{str(self.folder)!r} has no version {version!r}. There are: {there}.")

    def history(self) -> list[dict[str, Any]]:
        """The history, oldest first. A line that a killed process left incomplete is skipped."""
        path = self.folder / HISTORY
        events = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            with suppress(ValueError):
                events.append(json.loads(line))
        return events

    def decisions(self) -> list[dict[str, Any]]:
        """Decisions on candidates, oldest first. Unreadable files are skipped."""
        found = [event["decision"] for event in self.history() if isinstance(event.get("decision"), dict)]
        folder = self.folder / DECISIONS
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                decision = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(decision, dict) and "promoted" in decision and decision not in found:
                found.append(decision)
        return sorted(found, key=lambda decision: str(decision.get("time", "")))

    def check(self, version: Version) -> None:
        """Check that a version has not changed since it was published.

        :raises CheckpointError: If it has.
        """
        if not version.folder.is_dir():
            raise CheckpointError(f"The version {version.name} is not in {str(version.folder.parent)!r} any more.")
        found = digest_of(version.folder)
        if found[:8] != version.name.partition("-")[2]:
            raise CheckpointError(
                f"The version {version.name} in {str(version.folder.parent)!r} is damaged: its files have the digest "
                f"{found[:8]}. Take another version: crossrank rollback --to VERSION; or publish it again."
            )

    # ---- changing ----------------------------------------------------------------------------------------------

    def publish(self, candidate: str | os.PathLike[str], *, record: Mapping[str, Any] | None = None) -> Version:
        """Copy a checkpoint in as a new version; it is not in use yet.

        A checkpoint that is already in the registry keeps its version. Hidden files and save points are not copied.

        :param record: Further fields for the history.
        :raises InputError: If it is not a checkpoint.
        :raises OSError: If it can't be copied, for example to a full disk. The registry is unchanged.
        :raises CrossRankError: If the registry is in use by another process.
        """
        source = Path(candidate)
        if not (source / "config.json").is_file():
            raise InputError(f"{str(source)!r} has no config.json, so it is not a checkpoint. Name the model's folder.")
        with self._changing("publish") as versions:
            digest = digest_of(source)
            for known in self.versions():
                if known.name.endswith(f"-{digest[:8]}"):
                    try:
                        self.check(known)
                    except CheckpointError:
                        continue  # damaged since: add it again, under a new number
                    return known
            number = max((version.number for version in self.versions()), default=0) + 1
            version = self._version(f"{number}-{digest[:8]}")
            incoming = versions / _INCOMING
            with self._disk(f"the model {str(source)!r} was not published"):
                try:
                    for file in _files(source):
                        _copy(source / file, incoming / file)
                    if digest_of(incoming) != digest:
                        raise InputError(
                            f"{str(source)!r} changed while it was copied. Publish it when it is finished."
                        )
                    for folder in sorted({(incoming / file).parent for file in _files(incoming)}):
                        _sync(folder)
                    self._tell("publish", version, record)
                    incoming.rename(version.folder)
                except BaseException:
                    shutil.rmtree(incoming, ignore_errors=True)
                    raise
                _sync(versions)
        return version

    def switch(
        self, version: Version | str, *, instead_of: Version | None = None, record: Mapping[str, Any] | None = None
    ) -> Version:
        """Put a version into use.

        :param instead_of: Switch only if this version is in use, because the comparison was made with it.
        :param record: Further fields for the history, such as the figures of a decision.
        :raises InputError: If there is no such version.
        :raises CheckpointError: If it is damaged.
        :raises CrossRankError: If another version than ``instead_of`` is in use, or the registry is being changed.
        """
        found = self.find(version if isinstance(version, str) else version.name)
        with self._changing("switch"):
            names = self._pointer()
            if instead_of is not None and names[:1] != [instead_of.name]:
                raise CrossRankError(
                    f"{str(self.folder)!r} was switched to {names[0] if names else 'nothing'} meanwhile, but "
                    f"{found.name} was compared with {instead_of.name}. Compare it again with what is in use now."
                )
            if names[:1] != [found.name]:
                self.check(found)
                self._point("switch", [found.name, *names], record)
        return found

    def rollback(self, to: str | None = None) -> Version:
        """Go back to the version that was in use before, or to a named one. A second call goes back further.

        :param to: A version's name or number.
        :raises InputError: If there is nothing to go back to.
        :raises CheckpointError: If that version is damaged; the version in use stays.
        :raises CrossRankError: If the registry is being changed.
        """
        self.must_be_there()
        with self._changing("rollback"):
            names = self._pointer()
            if to is None and len(names) < 2:
                there = ", ".join(version.name for version in self.versions()) or "none"
                raise InputError(
                    f"{str(self.folder)!r} has no earlier version to go back to. Versions there: {there}; name one "
                    "with --to."
                )
            found = self.find(to) if to is not None else self._version(names[1])
            if names[:1] == [found.name]:
                return found
            self.check(found)
            # Forget the versions between, so that the next rollback goes further back.
            rest = names[names.index(found.name) :] if found.name in names else [found.name, *names]
            self._point("rollback", rest, None)
        return found

    def prune(self, keep: int = 5, *, dry_run: bool = False) -> list[Version]:
        """Delete old versions, except the one in use, the last ``keep`` in use before it, and newer ones.

        :param keep: How many earlier versions in use to keep for rollbacks.
        :param dry_run: Delete nothing.
        :returns: The deleted versions, oldest first.
        :raises InputError: If ``keep`` is below 0.
        :raises CrossRankError: If the registry is being changed.
        """
        if keep < 0:
            raise InputError(f"keep={keep} is below 0. Give the number of earlier versions to keep.")
        self.must_be_there()
        with self._changing("prune") as versions:
            names = self._pointer()
            stay = names[: keep + 1]
            newest = self._version(stay[0]).number if stay else 0
            old = [one for one in self.versions() if one.name not in stay and one.number < newest]
            if old and not dry_run:
                # Remove them from the pointer, then rename, then delete, so that a version is always complete.
                self._point("prune", stay, {"deleted": [one.name for one in old]})
                for one in old:
                    one.folder.rename(versions / _INCOMING)
                    shutil.rmtree(versions / _INCOMING)
        return old

    # ---- within ------------------------------------------------------------------------------------------------

    def _version(self, name: str) -> Version:
        return Version(name, self.folder / VERSIONS / name)

    def _pointer(self) -> list[str]:
        try:
            names = (self.folder / POINTER).read_text(encoding="utf-8", errors="replace").split()
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise InputError(f"{str(self.folder)!r} is a file. Name a registry's folder.") from error
        if not names or not all(map(_NAME.fullmatch, names)):
            raise CheckpointError(
                f"{str(self.folder / POINTER)!r} does not name a version. Write the name of a folder in "
                f"{VERSIONS!r} into it, such as that of the last entry of {HISTORY!r}."
            )
        return names

    @contextmanager
    def _changing(self, what: str) -> Iterator[Path]:
        versions = self.folder / VERSIONS
        versions.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / LOCK, what, wait=_WAIT) as lock:
            shutil.rmtree(versions / _INCOMING, ignore_errors=True)  # left by a process that was killed
            if lock.left_by is not None:
                # The history is written before a change takes effect; check whether the last change did.
                self._tell("found", self.current(), {"left_by": lock.left_by})
            yield versions

    def _point(self, event: str, names: list[str], record: Mapping[str, Any] | None) -> None:
        """Replace the pointer. The rename is last, because it needs no disk space."""
        with self._disk(f"{names[0]} was not put to use"):
            with write_atomically(self.folder / POINTER) as stream:
                stream.write("".join(f"{name}\n" for name in names[:_REMEMBERED]))
                stream.flush()
                self._tell(event, self._version(names[0]), record)
            _sync(self.folder)

    def _tell(self, event: str, version: Version | None, record: Mapping[str, Any] | None) -> None:
        names = self._pointer()
        line = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "event": event,
            "version": version.name if version else None,
            "before": names[0] if names else None,
            **(record or {}),
        }
        path = self.folder / HISTORY
        with path.open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # an incomplete line
                    stream.write(b"\n")
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def _disk(self, outcome: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            names = self._pointer()
            stays = f"{names[0]} is in use as before" if names else "no version is in use"
            raise OSError(
                f"{str(self.folder)!r} can't be written: {error.strerror or error}. So {outcome}, and {stays}. "
                "Check that the disk has room and the folder is writable, then try again."
            ) from error


def digest_of(folder: Path) -> str:
    """SHA-256 of a checkpoint's files and their names, in hexadecimal."""
    hashed = hashlib.sha256()
    for file in _files(folder):
        path = folder / file
        hashed.update(f"{len(file.as_posix())} {path.stat().st_size} {file.as_posix()}\n".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Files that make up a checkpoint, relative to it, in a fixed order."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(_NO_PART.match(part) for part in relative.parts):
            found.append(relative)
    return sorted(found, key=Path.as_posix)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on disk. Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
