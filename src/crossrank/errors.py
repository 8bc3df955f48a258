"""All errors. Every message names the value, the limit and the remedy.

::

    CrossRankError
    ├── InputError (also ValueError)      an argument, a pair or a line of a file can't be used
    ├── ModelError
    │   ├── ModelNotFoundError            no such folder or repository, or offline and not cached
    │   ├── ModelAccessError              the hub refused access: gated, private, or a wrong token
    │   ├── DownloadError                 the hub can't be reached, or a download was interrupted
    │   ├── CheckpointError               the files are damaged, incomplete or inconsistent
    │   └── UnsupportedModelError         the files are valid, but crossrank can't run the model
    ├── PreparedError                     prepared documents are of another model, are damaged, or can't be written
    ├── StageError                        a stage of a pipeline can't score, for instance because of the network
    └── MissingExtraError (also ImportError)   an optional package is not installed

    CrossRankWarning (UserWarning)        not an error, but worth knowing
"""

from __future__ import annotations

from collections.abc import Iterable


class CrossRankError(Exception):
    """The base class of all errors that crossrank raises on purpose."""


class InputError(CrossRankError, ValueError):
    """An argument, a pair or a line of a file that can't be used."""


class ModelError(CrossRankError):
    """A model that can't be loaded."""


class ModelNotFoundError(ModelError):
    """The folder or repository does not exist, or it is not cached while offline."""


class ModelAccessError(ModelError):
    """The hub refuses access to the repository: gated, private, or a wrong token."""


class DownloadError(ModelError):
    """The hub can't be reached, or a download was interrupted."""


class CheckpointError(ModelError):
    """The files of a checkpoint are damaged, incomplete or inconsistent."""


class UnsupportedModelError(ModelError):
    """A valid checkpoint that crossrank can't or won't run."""


class PreparedError(CrossRankError):
    """Prepared documents can't be used or written: another model, damage, a full disk, an unknown id."""


class StageError(CrossRankError):
    """A stage of a pipeline can't score.

    :param reason: What happened, with the remedy.
    :param retryable: Whether the same call may work later.
    :param stage: The stage's name, if known.
    """

    def __init__(self, reason: str, *, retryable: bool = False, stage: str | None = None) -> None:
        super().__init__(reason if stage is None else f"{stage}: {reason}")
        self.reason = reason
        self.retryable = retryable
        self.stage = stage


class MissingExtraError(CrossRankError, ImportError):
    """An optional package is needed but not installed."""


class CrossRankWarning(UserWarning):
    """Something the caller should know that is not an error."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most similar to a wrong one, as the end of a message.

    :returns: ``" Did you mean 'query'?"``, or ``""`` if no name is similar.
    """
    from difflib import get_close_matches  # imported here, because only errors need it

    close = get_close_matches(wrong, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
