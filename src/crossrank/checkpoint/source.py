"""A name, a folder or nothing -> a local folder with the model's files."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from crossrank.errors import (
    CheckpointError,
    CrossRankWarning,
    DownloadError,
    InputError,
    ModelAccessError,
    ModelNotFoundError,
)

if TYPE_CHECKING:
    from crossrank.checkpoint.hub import Repository

BUNDLED = Path(__file__).parent.parent / "bundled"


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine.

    :param folder: The folder with ``config.json``.
    :param name: The name that the caller gave; ``"bundled"`` for the bundled model.
    :param revision: The commit hash if it came from the hub, the version if from a registry, else ``None``.
    """

    folder: Path
    name: str
    revision: str | None


def resolve(
    model: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Find a model's files, and download those that are missing from the hub.

    A folder overrides a hub name of the same spelling. ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` and
    ``HF_HOME`` work as in huggingface_hub. If the hub can't be reached, a copy in the cache is used, with a
    :class:`~crossrank.errors.CrossRankWarning`.

    :param model: A hub name such as ``"cross-encoder/ms-marco-MiniLM-L6-v2"``, a folder, or ``None`` for the bundled
        model. For a registry's folder, the version in use.
    :param revision: A branch, a tag or a full commit hash; by default the hub's ``main``. Only for hub names.
    :param token: A hub token; ``None`` uses the one that is set or saved on this machine, ``False`` sends none.
    :param cache_folder: Where to store hub models, instead of huggingface_hub's cache.
    :param local_files_only: Use only the cache, without a request to the hub.
    :raises InputError: If an argument can't be used: a wrong type, a folder with a revision, a bad ``HF_ENDPOINT``.
    :raises ModelNotFoundError: If the folder, repository or revision does not exist, or, offline, is not in the cache.
    :raises ModelAccessError: If the hub denies access: a gated repository, or an invalid token.
    :raises DownloadError: If the hub can't be reached or a download failed, and the cache has no copy.
    :raises UnsupportedModelError: If the repository has only pickled weights.
    :raises CheckpointError: If the folder or repository lacks ``config.json``, or the repository has no weights.
    """
    if model is None:
        return _local(BUNDLED, "bundled", revision)
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"model is {model!r}. Give a hub name, a folder, or None for the bundled model.")
    # os.path and not pathlib: Path raises for some names that can't be paths (~nobody, a null byte, 5000 letters).
    path = os.path.expanduser(name)  # noqa: PTH111
    means_folder = not isinstance(model, str) or name.startswith((".", "~")) or os.path.isabs(path)  # noqa: PTH117
    if means_folder or os.path.exists(path):  # noqa: PTH110
        return _local(Path(path), name, revision)
    return _from_hub(name, revision, token, cache_folder, local_files_only)


def _local(folder: Path, name: str, revision: str | None) -> ModelFiles:
    if revision is not None:
        raise InputError(
            f"revision={revision!r} is for models on the hub, but {name!r} is a local model. Leave it out."
        )
    if not os.path.exists(folder):  # noqa: PTH110
        raise ModelNotFoundError(
            f"There is no folder {str(folder)!r} (seen from {str(Path.cwd())!r}). "
            "Check the path; a hub name has the form 'owner/name'."
        )
    if not folder.is_dir():
        raise ModelNotFoundError(f"{str(folder)!r} is a file. Name the folder with config.json, weights and tokenizer.")
    if not (folder / "config.json").is_file():
        if (folder / "current").is_file():  # a registry's
            from crossrank.checkpoint.model_registry import ModelRegistry

            if (version := ModelRegistry(folder).current()) is not None:
                return ModelFiles(version.folder, name, version.name)
        entries = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(
            f"{str(folder)!r} has no config.json, so it is not a model folder; it holds "
            f"{', '.join(entries[:6]) or 'nothing'}{', ...' if len(entries) > 6 else ''}. Name the folder that "
            "save_pretrained() wrote, or the one into which the whole checkpoint was downloaded."
        )
    return ModelFiles(folder, name, None)


def _from_hub(
    name: str, revision: str | None, token: str | bool | None, cache_folder: str | Path | None, local_files_only: bool
) -> ModelFiles:
    """Look on the hub, or only in the cache, and raise our own errors."""
    # Imported here, because huggingface_hub takes a quarter of a second to import, and local models don't need it.
    from huggingface_hub import errors

    from crossrank.checkpoint.hub import DOWNLOAD_ERRORS, Repository

    hub = Repository(name, revision, token, cache_folder)
    try:
        if local_files_only:
            return _cached(hub, "local_files_only=True was given", "call once without it while online")
        if hub.offline:
            return _cached(hub, "HF_HUB_OFFLINE is set", "unset it and call once while online")
        folder = hub.download()
    except errors.HFValidationError as error:
        page = "/".join(urlsplit(name).path.strip("/").split("/")[:2])
        remedy = f"For that page of the hub, give {page!r}." if "://" in name else "Check the spelling."
        raise ModelNotFoundError(
            f"There is no folder {name!r}, and it can't be a hub name either: 'owner/name' of letters, digits, '-', "
            f"'_' and '.', at most 96 characters, without '--' or '..'. {remedy}"
        ) from error
    except errors.GatedRepoError as error:
        sent = "The token that was sent is not on their list." if hub.sends_token else "No token was sent."
        raise ModelAccessError(
            f"{name!r} is gated: its owners must approve access first. {sent} Ask for access at {hub.url}, make a "
            f"token at {hub.endpoint}/settings/tokens, and pass it as token= or in HF_TOKEN.{_copy_hint(hub)}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{name!r} has no revision {hub.revision!r} at {hub.endpoint}. Name a branch, a tag or a full commit hash "
            f"that {hub.url}/commits lists, or leave revision out.{_copy_hint(hub)}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        form = "" if "/" in name else " (most names have the form owner/name)"
        sent = "; the token that was sent may not" if hub.sends_token else ""
        raise ModelNotFoundError(
            f"There is no model {name!r} at {hub.endpoint}, and no folder of that name here. Check the spelling{form}. "
            f"If it is private, pass a token that may read it as token= or in HF_TOKEN{sent}.{_copy_hint(hub)}"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise ModelAccessError(
            f"token={token!r} asks for the token saved on this machine, but there is none. "
            "Run 'hf auth login', set HF_TOKEN, or pass the token itself."
        ) from error
    except DOWNLOAD_ERRORS as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise ModelAccessError(
                f"{hub.endpoint} refused {name!r} ({_reason(error)}). Is the token (token=, HF_TOKEN or the saved one) "
                f"valid, and may it read this repository? token=False sends none.{_copy_hint(hub)}"
            ) from error
        copy, lack = hub.cached()
        if copy is None:
            raise DownloadError(
                f"{name!r} (revision {hub.revision!r}) could not be fetched from {hub.endpoint}: {_reason(error)}. "
                f"The cache {str(hub.cache)!r} can't be used instead: it has {lack}. Check the connection, HTTPS_PROXY "
                "and HF_ENDPOINT, and that the disk has room; then call again: finished files are kept."
            ) from error
        warnings.warn(
            f"{name!r} could not be fetched from {hub.endpoint}: {_reason(error)}. The copy in the cache is used, "
            f"commit {copy.name}; it may not be the newest. local_files_only=True does so without asking the hub.",
            CrossRankWarning,
            stacklevel=3,
        )
        folder = copy
    return ModelFiles(folder, name, folder.name)


def _cached(hub: Repository, why: str, remedy: str) -> ModelFiles:
    folder, lack = hub.cached()
    if folder is None:
        raise ModelNotFoundError(
            f"{hub.name!r} (revision {hub.revision!r}) was looked for in the cache {str(hub.cache)!r} alone, because "
            f"{why}; it has {lack}. To fetch it, {remedy}; or name another cache_folder, or the model's own folder."
        )
    return ModelFiles(folder, hub.name, folder.name)


def _copy_hint(hub: Repository) -> str:
    return " The cache has a copy: local_files_only=True uses it." if hub.cached()[0] else ""


def _reason(error: BaseException) -> str:
    # huggingface_hub wraps the cause in "can't find it in the cache" and a page of advice.
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
