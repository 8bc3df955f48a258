"""The bi-encoder as it will be bundled: every matrix rounded to int8 rows, written in float32 again.

What is computed with the body, the states that the head is trained on above all, is computed with this one. So the
head learns from what it will see, and storing the body changes nothing afterwards. After training on the exact body's
states it did: Kendall tau .988 on the test collections' candidates, an error of 2 % of the logits' spread.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from recipes.bundled.export import stored


def rounded(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is left of tensors after they were stored."""
    out = {}
    for name, tensor in stored(tensors).items():
        if name in tensors:
            out[name] = tensor
        else:
            matrix = name.removesuffix(".scale")
            scale = tensor.astype(np.float32).reshape(*out[matrix].shape[:-1], 1)
            out[matrix] = out[matrix].astype(np.float32) * scale
    return out


def run(body: Path, output: Path) -> None:
    """Write the folder; ``config.json`` comes last."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = load_file(body / "model.safetensors")
    whole = {name: tensor for name, tensor in tensors.items() if tensor.dtype.kind != "f"}
    floats = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype.kind == "f"}
    save_file(whole | rounded(floats), output / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"):
        shutil.copyfile(body / name, output / name)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--body", type=Path, required=True, help="folder of the bi-encoder (safetensors)")
    parser.add_argument("--output", type=Path, required=True)
    run(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
