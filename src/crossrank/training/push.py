"""Upload a trained model to the hub."""

from __future__ import annotations

import os
from pathlib import Path

from crossrank.errors import DownloadError, InputError, ModelAccessError


def check_repository(name: str) -> None:
    """Check that a name is valid for a repository, before hours of training.

    :raises InputError: If it can't.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{name!r} can't be the name of a repository. Give owner/name.") from error


def push(folder: Path, name: str, *, token: str | None = None, private: bool | None = None) -> str:
    """Upload a model folder. The repository is created if it does not exist; the folder is not changed.

    :param token: Token for the hub; by default the one that ``hf auth login`` stored.
    :returns: The repository's address.
    :raises ModelAccessError: If the hub refuses.
    :raises DownloadError: If the hub can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    from crossrank.checkpoint.hub import DOWNLOAD_ERRORS

    # Read at each call; huggingface_hub reads it once when it is imported.
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    remedy = f"The model is complete in {str(folder)!r}. Upload it with: hf upload {name} {folder}"
    try:
        url = api.create_repo(name, exist_ok=True, private=private)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Add a trained cross-encoder")
    except LocalTokenNotFoundError as error:
        raise ModelAccessError(f"The hub requires a token. Run 'hf auth login' or set HF_TOKEN. {remedy}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        kind = ModelAccessError if status in (401, 403) else DownloadError
        raise kind(f"{name!r} could not be uploaded: the hub answered {status}. {remedy}") from error
    except DOWNLOAD_ERRORS as error:
        raise DownloadError(f"{name!r} could not be uploaded: {error}. {remedy}") from error
    return str(url)
