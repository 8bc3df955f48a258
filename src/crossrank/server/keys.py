"""API keys: read from a file, compared in constant time, each with a limit of concurrent requests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossrank.errors import CrossRankError, InputError


class KeyRefusedError(CrossRankError):
    """The key is missing or unknown."""


class KeyBusyError(CrossRankError):
    """The key has reached its limit of concurrent requests."""


@dataclass(eq=False)
class Key:
    """One key: only its digest is kept.

    :param limit: Maximum of concurrent requests; ``None`` for no limit.
    """

    digest: bytes
    limit: int | None
    at_once: int = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Count a request while it runs.

        :raises KeyBusyError: If the key has reached its limit.
        """
        if self.limit is not None and self.at_once >= self.limit:
            raise KeyBusyError(
                f"This key already has {self.limit} requests running, which is its limit. Wait for one to end."
            )
        self.at_once += 1
        try:
            yield
        finally:
            self.at_once -= 1


class Keys:
    """The keys of a file; without a file, every request is accepted.

    A line is a key, or a key, a space and its limit of concurrent requests; ``#`` starts a comment.

    :raises InputError: If the file can't be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._open = Key(b"", None)
        self._keys: list[Key] = []
        self.read()

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return self._path is not None

    def read(self) -> None:
        """Read the file again. If that fails, the old keys stay.

        :raises InputError: If the file can't be used.
        """
        if self._path is None:
            return
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The keys in {str(self._path)!r} can't be read: {error}.") from error
        keys = []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) > 2 or (len(words) == 2 and not (words[1].isdecimal() and int(words[1]) > 0)):
                raise InputError(f"{str(self._path)!r}, line {number}: write KEY, or KEY and a number of requests.")
            keys.append(Key(_digest(words[0]), int(words[1]) if len(words) == 2 else None))
        if not keys:
            raise InputError(f"{str(self._path)!r} contains no keys. Write one per line, or leave --keys-file out.")
        self._keys = keys

    def admit(self, authorization: str | None) -> Key:
        """Find the key of a request, given as ``Bearer KEY`` or bare.

        :raises KeyRefusedError: If it is unknown.
        """
        if self._path is None:
            return self._open
        given = (authorization or "").strip()
        scheme, _, rest = given.partition(" ")
        digest = _digest(rest.strip() if scheme.lower() == "bearer" else given)
        # Compare with all keys, so that the time does not reveal which one is similar.
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            what = "is not known here" if given else "is missing"
            raise KeyRefusedError(f"The API key {what}. Send the header Authorization: Bearer KEY.")
        return found[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
