"""The files of a model -> its identity: the same for all copies of a model, and different for other models.

Caches, calibrations and registries use it to recognize a model.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from crossrank.errors import CheckpointError

# The small files of a model: config, tokenizer, modules with their prompts, chat template.
SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "chat_template.jinja",
)
# All that scores depend on, besides the weights.
_SETTINGS = (
    *SMALL_FILES,
    "*.model",
    "chat_template.json",
    "[0-9]*_*/config.json",
    "[0-9]*_*/model.safetensors",
)
_SAFETENSORS = ("*.safetensors", "model.safetensors.index.json")
# Used only without safetensors files. The weights of an OpenVINO graph are in a .bin file next to its .xml.
_EXPORTED = ("*.xml", "*.onnx", "*.onnx_data", "openvino/*.xml", "onnx/*.onnx", "onnx/*.onnx_data")


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that its scores depend on, sorted."""
    return sorted(set(_matching(folder)), key=lambda path: path.relative_to(folder).as_posix())


def _matching(folder: Path) -> Iterator[Path]:
    weights = _SAFETENSORS if any(folder.glob("model.safetensors*")) else _EXPORTED
    for pattern in (*_SETTINGS, *weights):
        for path in folder.glob(pattern):
            if path.is_file():
                yield path
            if path.suffix == ".xml" and path.with_suffix(".bin").is_file():
                yield path.with_suffix(".bin")


def model_identity(folder: Path) -> str:
    """Digest every file that the scores depend on, by name and content; 16 hexadecimal digits.

    It reads all of the weights: about half a second for a gigabyte on a processor with SHA instructions, else two.
    """
    digest = hashlib.sha256()
    for path in model_files(folder):
        content = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    content.update(block)
        except OSError as error:
            raise CheckpointError(f"{path} can't be read: {error.strerror or error}. Check its permissions.") from error
        digest.update(f"{path.relative_to(folder).as_posix()} {content.hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


class LoadedFiles:
    """The files a model was loaded from.

    The identity is computed on first use, because hashing the weights would make the bundled model start up to half
    again as slowly. Size, time and inode of every file are noted before the model is loaded, so
    that the identity of files that changed in the meantime is never taken for that of the model in memory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = self._facts()
        self._identity: str | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """Identity of the loaded model, see :func:`model_identity`.

        :raises CheckpointError: If a file changed after the model was loaded, and the identity was not known yet.
        """
        with self._lock:
            if self._identity is None:
                self.check_unchanged()
                identity = model_identity(self.folder)
                self.check_unchanged()
                self._identity = identity
            return self._identity

    def check_unchanged(self) -> None:
        """Compare the files with what they were before loading.

        :raises CheckpointError: If one changed; the message names it.
        """
        now = self._facts()
        changed = sorted(path for path in self._before.keys() | now.keys() if self._before.get(path) != now.get(path))
        if changed:
            raise CheckpointError(
                f"{changed[0]} changed after the model was loaded, so the files are not those of the model in memory. "
                "Load the model again: make a new CrossEncoder, or restart the process."
            )

    def _facts(self) -> dict[str, tuple[int, int, int]]:
        facts = {}
        for path in model_files(self.folder):
            try:
                stat = path.stat()
            except OSError:  # removed since it was listed
                continue
            facts[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return facts
