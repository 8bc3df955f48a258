"""A repository on the Hugging Face hub -> the files that crossrank needs, in the local cache.

It uses huggingface_hub and its cache (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), which it shares
with other libraries. That import is slow, so import this file only when it is needed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

# huggingface_hub reads this when it is imported. It has no effect if it was imported before; a set variable stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from huggingface_hub import HfApi, constants, get_token, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from crossrank.checkpoint.identity import SMALL_FILES
from crossrank.checkpoint.model_config import read_json
from crossrank.errors import CheckpointError, InputError, UnsupportedModelError

# The first base of the hub's HTTP error is the root of all errors of its HTTP library, which was requests and then
# httpx and then httpx2. OSError covers sockets, and the disk.
NETWORK_ERRORS: tuple[type[BaseException], ...] = (OSError, HfHubHTTPError.__bases__[0])
# ValueError is a response that is not the hub's JSON. RuntimeError is from the Rust client of the hub's Xet storage.
DOWNLOAD_ERRORS: tuple[type[BaseException], ...] = (*NETWORK_ERRORS, ValueError, RuntimeError)

_T = TypeVar("_T")

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
# The modules after the transformer of a modular sentence-transformers model, such as 1_LogitScore.
_MODULE_FILE = re.compile(r"\d+_[^/]+/(config\.json|model\.safetensors)")
_SENTENCEPIECE = re.compile(r"[^/]+\.model")
_OPENVINO = re.compile(r"(openvino/)?[^/]+\.xml")
_ONNX = re.compile(r"(onnx/)?[^/]+\.onnx")
_PICKLED = re.compile(r"[^/]+\.(bin|pt|pth|ckpt|pkl)")

_PAUSE = 0.5  # seconds before the second and last try of a request
_BRANCH_MOVES = 3  # how often to start over if the branch changes during the download


class Repository:
    """One repository at one revision, on the hub and in the cache.

    :param name: ``"owner/name"``.
    :param revision: A branch, a tag or a commit hash; ``None`` is ``"main"``.
    :param token: As in huggingface_hub: a token, ``None`` for the one set or saved, ``False`` for none.
    :param cache_folder: A folder instead of huggingface_hub's cache.
    :raises InputError: If ``HF_ENDPOINT`` is not a URL.
    """

    def __init__(
        self, name: str, revision: str | None, token: str | bool | None, cache_folder: str | Path | None
    ) -> None:
        # huggingface_hub reads these only when it is imported, which may be before the caller sets them.
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
        self.offline = constants.HF_HUB_OFFLINE or offline.upper() in constants.ENV_VARS_TRUE_VALUES
        self.cache = Path(cache_folder or constants.HF_HUB_CACHE).expanduser()
        self.name = name
        self.revision = revision or constants.DEFAULT_REVISION
        self.url = f"{self.endpoint}/{name}"
        self._token = token
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"HF_ENDPOINT is {self.endpoint!r}. Give it as a URL, such as https://huggingface.co.")

    @property
    def sends_token(self) -> bool:
        """Whether requests carry a token."""
        return self._token is not False and bool(self._token if isinstance(self._token, str) else get_token())

    def download(self) -> Path:
        """Download missing files, and return the snapshot's folder, whose name is the commit hash.

        :raises CheckpointError: If the repository has no ``config.json``, no weights, or lacks a shard.
        :raises UnsupportedModelError: If it has only pickled weights. No file is downloaded then.
        """
        for _ in range(_BRANCH_MOVES):
            commit, listed = self._listing()
            # The weights come last, so if they are in the cache, all other files are too.
            for file in _needed(self.name, listed):
                path = self._fetch(file, commit)
                for shard in _shards(path, listed) if file == _INDEX else ():
                    self._fetch(shard, commit)
            folder = self._fetch(_CONFIG, commit).parent
            # A request for the revision by its name makes huggingface_hub record the commit of that name. This
            # comes last, so that an older copy stays in use, offline, until the newer one is complete.
            if self._fetch(_CONFIG, self.revision).parent.name == commit:
                break
        return folder

    def cached(self) -> tuple[Path | None, str]:
        """Look only in the cache: the snapshot's folder if it is complete, else ``None`` and what is missing."""
        try:
            folder = self._fetch(_CONFIG, self.revision, local_files_only=True).parent
        except LocalEntryNotFoundError:
            return None, f"no whole copy of {self.name!r} at revision {self.revision!r}"
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        weights = _weights(files)
        needed = weights + (_shards(folder / _INDEX) if _INDEX in weights else [])
        if not weights or not set(needed) <= set(files):
            return None, f"only a part of {self.name!r}, without all its weights"
        if not ({"tokenizer.json", "vocab.txt", "vocab.json"} & set(files) or _matching(_SENTENCEPIECE, files)):
            return None, f"only a part of {self.name!r}, without its tokenizer"
        return folder, ""

    def _listing(self) -> tuple[str, list[str]]:
        """Get the revision's commit hash and file names. The timeout is short, because the cache can stand in."""
        api = HfApi(endpoint=self.endpoint, token=self._token)
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        info = _twice(lambda: api.model_info(self.name, revision=self.revision, timeout=timeout))
        if not info.sha:
            raise ValueError(f"{self.endpoint} answered without a commit hash, so it does not seem to be a model hub")
        return info.sha, [file.rfilename for file in info.siblings or []]

    def _fetch(self, file: str, revision: str, *, local_files_only: bool = False) -> Path:
        """Return the file in the cache, downloaded if necessary, with huggingface_hub's progress bar on a terminal.

        This does not use ``snapshot_download``, which lists the repository again, without a timeout, and shows
        a progress bar even without a terminal.
        """
        path = _twice(
            lambda: hf_hub_download(
                self.name,
                file,
                revision=revision,
                token=self._token,
                cache_dir=self.cache,
                endpoint=self.endpoint,
                local_files_only=local_files_only,
            )
        )
        return Path(path)


def _twice(request: Callable[[], _T]) -> _T:
    """Send a request a second time if the network or the hub failed.

    huggingface_hub does not retry after all errors, such as a connection that was reset.
    """
    try:
        return request()
    except LocalEntryNotFoundError:  # huggingface_hub has given up its retries, or it is offline
        raise
    except NETWORK_ERRORS as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None and status < 500:
            raise
    time.sleep(_PAUSE)
    return request()


def _needed(name: str, listed: Collection[str]) -> list[str]:
    if _CONFIG not in listed:
        raise CheckpointError(f"The repository {name!r} has no {_CONFIG}, so it is not a model. Check the name.")
    small = [file for file in listed if file in SMALL_FILES or _MODULE_FILE.fullmatch(file)]
    if "tokenizer.json" not in listed:
        small += _matching(_SENTENCEPIECE, listed)
    if weights := _weights(listed):
        return small + weights
    if pickled := _matching(_PICKLED, listed):
        raise UnsupportedModelError(
            f"{name!r} has only pickled weights ({', '.join(pickled)}). Loading a pickle runs code from the file, so "
            "crossrank does not; nothing was downloaded. If you trust it, convert it once with transformers: "
            f"AutoModelForSequenceClassification.from_pretrained({name!r}).save_pretrained(folder, "
            f"safe_serialization=True), AutoTokenizer.from_pretrained({name!r}).save_pretrained(folder), and name that "
            "folder; or have https://huggingface.co/spaces/safetensors/convert do it, and name the revision it makes."
        )
    raise CheckpointError(
        f"{name!r} has no weights that crossrank reads. Known are model.safetensors, whole or in shards, OpenVINO's "
        ".xml with .bin, and ONNX. Save the model again with save_pretrained(), or name another."
    )


def _weights(files: Collection[str]) -> list[str]:
    """Choose the weights to use, of one kind only; for shards, their index."""
    for file in ("model.safetensors", _INDEX):
        if file in files:
            return [file]
    # Prefer the shortest name: openvino_model.xml over openvino_model_qint8_quantized.xml.
    for graph in _matching(_OPENVINO, files):
        if (data := graph.removesuffix(".xml") + ".bin") in files:
            return [graph, data]
    for graph in _matching(_ONNX, files):
        return [*(side for side in (graph + "_data", graph + ".data") if side in files), graph]
    return []


def _shards(index: Path, listed: Collection[str] | None = None) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index} has no weight_map, so it names no weights. Delete it and download it again.")
    names = sorted(set(map(str, shards.values())))
    if listed is not None and (missing := [name for name in names if name not in listed]):
        raise CheckpointError(f"{index} names {', '.join(missing)}, which the repository lacks. Take another revision.")
    return names


def _matching(pattern: re.Pattern[str], names: Iterable[str]) -> list[str]:
    return sorted((name for name in names if pattern.fullmatch(name)), key=lambda name: (len(name), name))
