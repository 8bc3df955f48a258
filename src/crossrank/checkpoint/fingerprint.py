"""The files of a model -> a short digest: the same for copies of the same model, another for any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

_NAMES = frozenset({"config.json", "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"})
_WEIGHTS = frozenset({".safetensors", ".xml", ".onnx"})


def fingerprint(folder: Path) -> str:
    """Digest what the logits depend on: weights, config and tokenizer, by their contents; 16 hexadecimal digits.

    It reads all of the weights, which takes about a second for a gigabyte.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        # Weights of an OpenVINO export stand in a .bin beside their .xml; other .bin files are pickles, never read.
        weights = path.suffix in _WEIGHTS or (path.suffix == ".bin" and path.with_suffix(".xml").is_file())
        if path.is_file() and (weights or path.name in _NAMES):
            digest.update(f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    digest, block = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb") as file:
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
    return digest.hexdigest()
