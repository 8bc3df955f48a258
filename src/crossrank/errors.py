"""What can go wrong, in one tree. Every message names the value, the limit and the remedy.

::

    CrossRankError
    ├── InputError (also ValueError)      an argument, a pair, a line of a file that can't be used
    ├── ModelError
    │   ├── ModelNotFoundError            no such folder or repository, or not in the cache while offline
    │   ├── ModelAccessError              the hub refused: gated, private, or a wrong token
    │   ├── DownloadError                 the hub can't be reached, or a download broke off
    │   ├── CheckpointError               the files are there but damaged, incomplete or inconsistent
    │   └── UnsupportedModelError         sound files for which there is no graph here
    ├── PreparedError                     prepared documents of another model, damaged, or that can't be written
    ├── StageError                        a stage of a pipeline can't score: a network, a provider, an answer
    └── MissingExtraError (also ImportError)   an optional package is not installed

    CrossRankWarning (UserWarning)        said once, never an error
"""

from __future__ import annotations

from collections.abc import Iterable


class CrossRankError(Exception):
    """The root of all errors that crossrank raises on purpose."""


class InputError(CrossRankError, ValueError):
    """A value from the caller that can't be used: an argument, a pair, a line of a file."""


class ModelError(CrossRankError):
    """A model that can't be loaded."""


class ModelNotFoundError(ModelError):
    """No such folder or repository; or it is not in the local cache while offline."""


class ModelAccessError(ModelError):
    """The hub knows the repository but refuses it: gated, private, or a wrong token."""


class DownloadError(ModelError):
    """The hub can't be reached, or a download broke off."""


class CheckpointError(ModelError):
    """The files of a checkpoint are damaged, incomplete or contradict each other."""


class UnsupportedModelError(ModelError):
    """A sound checkpoint that crossrank has no graph for, or refuses to run."""


class PreparedError(CrossRankError):
    """Prepared documents that can't be used or written: of another model, damaged, a full disk, an unknown id."""


class StageError(CrossRankError):
    """A stage of a pipeline that can't give scores.

    :param reason: What happened, with the remedy.
    :param retryable: Whether the same call may work later.
    :param stage: The stage's name, where it is known.
    """

    def __init__(self, reason: str, *, retryable: bool = False, stage: str | None = None) -> None:
        super().__init__(reason if stage is None else f"{stage}: {reason}")
        self.reason = reason
        self.retryable = retryable
        self.stage = stage


class MissingExtraError(CrossRankError, ImportError):
    """An optional package is needed and not installed."""


class CrossRankWarning(UserWarning):
    """Something the caller should know, and which does not stop the work."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Suggest the known name that a wrong one resembles most, as a sentence to put at the end of a message.

    :returns: ``" Did you mean 'query'?"``, or nothing if no name is close.
    """
    from difflib import get_close_matches  # here, because it is needed only when something is wrong

    close = get_close_matches(wrong, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
