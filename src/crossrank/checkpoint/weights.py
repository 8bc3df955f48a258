"""safetensors files -> arrays, memory-mapped.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, a JSON header with each
tensor's dtype, shape and byte range, then the bytes. It is read here rather than with the safetensors package because
NumPy has no bfloat16, in which many checkpoints are stored, and because a damaged file has to be told with its name.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint.config import read_json
from crossrank.errors import CheckpointError, UnsupportedModelError

_DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I8": "|i1",
    "U8": "|u1",
    "I64": "<i8",
    "I32": "<i4",
}
# Names under which older versions of TensorFlow ports saved layer norms.
_OLD_NAMES: Mapping[str, str] = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Weights:
    """The tensors of a checkpoint by name, handed out as arrays; keeps account of what was asked for.

    :param folder: The model folder, for messages.
    :param tensors: Name -> (dtype as safetensors spells it, array that maps the file; bfloat16 as raw 16-bit words).
    :param prefix: What stands before every name that is asked for, such as ``"bert."``.
    :param as_int8: Whether graphs should hold matrices as int8, see :meth:`int8`.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, tuple[str, NDArray[Any]]],
        prefix: str = "",
        *,
        as_int8: bool = False,
    ) -> None:
        self.folder = folder
        self.as_int8 = as_int8
        self._tensors = tensors
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._tensors if name.startswith(self._prefix))

    def under(self, prefix: str) -> Weights:
        """The same weights, with names that start behind ``prefix``."""
        return Weights(self.folder, self._tensors, self._prefix + prefix, as_int8=self.as_int8)

    def compressed(self, on: bool = True) -> Weights:
        """The same weights, with ``as_int8`` set or cleared."""
        return Weights(self.folder, self._tensors, self._prefix, as_int8=on)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is there."""
        return tuple(self._tensors[self._prefix + name][1].shape)

    def raw(self, name: str, *shape: int) -> NDArray[Any]:
        """The tensor as stored (a view of the file), its shape checked; ``-1`` stands for any size.

        :raises CheckpointError: If it is missing or has another shape.
        """
        full = self._prefix + name
        if full not in self._tensors:
            raise CheckpointError(
                f"The weights in {self.folder} have no tensor {full!r}, which config.json calls for. "
                f"They have: {_sample(self._tensors)}. Take config.json and the weights, all of them, from one model."
            )
        array = self._tensors[full][1]
        if len(array.shape) != len(shape) or any(
            want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)
        ):
            raise CheckpointError(
                f"The tensor {full!r} in {self.folder} has the shape {tuple(array.shape)}, "
                f"but config.json calls for {shape}. Take config.json and the weights from one model."
            )
        return array

    def __call__(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor as float32, its shape checked. A float32 tensor is a view of the file, not a copy.

        :raises CheckpointError: If it is missing, has another shape, or is not of a floating type.
        """
        array = self.raw(name, *shape)
        dtype = self._tensors[self._prefix + name][0]
        if dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            return (array.astype(np.uint32) << 16).view(np.float32)
        if dtype == "I8":
            scale = self(name + ".scale", prod(array.shape[:-1]))
            return array.astype(np.float32) * scale.reshape(*array.shape[:-1], 1)
        if array.dtype.kind != "f":
            raise CheckpointError(
                f"The tensor {self._prefix + name!r} in {self.folder} is stored as {dtype}; a float was expected."
            )
        return array.astype(np.float32, copy=False)

    def int8(self, name: str, *shape: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """A matrix as int8 and a scale for each row, ``[rows, 1]``: ``matrix = int8 * scale``, to within half a step.

        :raises CheckpointError: If it is missing, has another shape, or is not of a floating type.
        """
        stored = self.raw(name, *shape)
        if self._tensors[self._prefix + name][0] == "I8":
            return stored, self(name + ".scale", shape[0])[:, None]
        matrix = self(name, *shape)
        # Symmetric, so that a product with it needs no correction; by row, because outputs differ widely in size.
        scale = np.maximum(matrix.max(axis=1), -matrix.min(axis=1))[:, None] / np.float32(127)
        scale[scale == 0] = 1
        return np.rint(matrix / scale).astype(np.int8), scale


def load_weights(folder: Path) -> Weights:
    """Map the safetensors file of a folder, or all shards that its index names.

    :raises UnsupportedModelError: If there are only pickled weights.
    :raises CheckpointError: If there are none, a shard is missing, or a file is damaged.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return Weights(folder, _map_file(single))
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{index} has no weight_map. Download the checkpoint again.")
        tensors: dict[str, tuple[str, NDArray[Any]]] = {}
        for shard in sorted(set(map(str, shards.values()))):
            if not (folder / shard).is_file():
                raise CheckpointError(
                    f"{index} names the file {shard}, which is missing. Download the checkpoint again."
                )
            tensors.update(_map_file(folder / shard))
        return Weights(folder, tensors)
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        raise UnsupportedModelError(
            f"{folder} has only pickled weights ({', '.join(pickled)}). Loading a pickle runs code from the file, so "
            "crossrank does not. Convert it once, where you trust it: "
            "AutoModelForSequenceClassification.from_pretrained(folder)"
            ".save_pretrained(folder, safe_serialization=True)"
        )
    raise CheckpointError(f"{folder} has no model.safetensors. Download the checkpoint again, or name another folder.")


def _map_file(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    size = path.stat().st_size
    damaged = f"{path} is damaged or was not downloaded to its end"
    remedy = "Delete it and download it again."
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise CheckpointError(
                f"{path} is not the weights but a Git LFS pointer to them, of {size} bytes. "
                "Run 'git lfs pull' in the repository it came from, or download the file itself."
            )
        if len(start) < 8 or length < 2 or length > size - 8:
            raise CheckpointError(f"{damaged}: it has {size} bytes and says its header takes {length}. {remedy}")
        header_bytes = file.read(length)
    try:
        header = json.loads(header_bytes)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{damaged}: its header is not JSON. {remedy}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{damaged}: its header is not a JSON object. {remedy}")
    header.pop("__metadata__", None)
    # Copy-on-write: OpenVINO shares only memory that is writable; nothing is ever written, and never to the file.
    empty = size == 8 + length
    data: NDArray[np.uint8] = np.zeros(0, np.uint8) if empty else np.memmap(path, np.uint8, "c", offset=8 + length)
    tensors: dict[str, tuple[str, NDArray[Any]]] = {}
    for name, entry in header.items():
        try:
            dtype, shape = entry["dtype"], tuple(map(operator.index, entry["shape"]))
            begin, end = map(operator.index, entry["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{damaged}: its header's entry for {name!r} is malformed. {remedy}") from error
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise UnsupportedModelError(
                f"{path} stores {name!r} as {dtype}; known are {', '.join(_DTYPES)}. "
                "Save the checkpoint again in float32, float16 or bfloat16."
            )
        fits = end - begin == prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if not (fits and 0 <= begin <= end and min(shape, default=0) >= 0):
            raise CheckpointError(f"{damaged}: the byte range of {name!r} does not fit its shape {shape}. {remedy}")
        if end > len(data):
            raise CheckpointError(f"{damaged}: {name!r} ends at byte {end} of {len(data)}. {remedy}")
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        tensors[name] = (dtype, data[begin:end].view(_DTYPES[dtype]).reshape(shape))
    return tensors


def _sample(names: Mapping[str, Any], most: int = 6) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
