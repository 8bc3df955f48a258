"""safetensors files -> arrays.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, a JSON header with each
tensor's dtype, shape and byte range, then the bytes. The safetensors package is not used because NumPy has no bfloat16,
in which many checkpoints are stored, and because an error must name the damaged file.

Tensors are read, not mapped. OpenVINO keeps reading the arrays while a model is in use. If a mapped file were
overwritten, the scores would change or the process would end with SIGBUS (docs/decisions.md has the cost of reading).
"""

from __future__ import annotations

import json
import operator
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint.model_config import read_json
from crossrank.errors import CheckpointError, CrossRankWarning, UnsupportedModelError
from crossrank.validation import shown

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
# Far more than any tensor has; NumPy fails on more.
_MAX_DIMENSIONS, _MAX_ROWS = 8, 2**48
# Names under which older versions of TensorFlow ports saved layer norms.
_OLD_NAMES: Mapping[str, str] = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


# Tensors that a graph may leave unread: buffers, and heads for other tasks.
_OPTIONAL = re.compile(
    r"position_ids$|inv_freq$|(^|\.)pooler\.|rel_embeddings\.|encoder\.LayerNorm\.|^(cls|lm_head|predictions|vocab_\w+|"
    r"decoder|generator_\w+|mask_predictions|discriminator_predictions|lm_predictions|qa_outputs|head|"
    r"sequence_summary)\."
)
_NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class Tensor:
    """The location of a tensor.

    :param offset: Its first byte in the file.
    :param dtype: As safetensors spells it.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """Read it from the file; bfloat16 as raw 16-bit words.

        :raises CheckpointError: If the file can't be read, or has become shorter.
        """
        count = prod(self.shape)
        try:
            array: NDArray[Any] = np.fromfile(self.path, _DTYPES[self.dtype], count, offset=self.offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if len(array) != count:
            raise CheckpointError(f"{self.path} became shorter while it was read. Load the model again.")
        return array.reshape(self.shape)


class Weights:
    """The tensors of a checkpoint by name, read on request. It records which were read.

    :param folder: The model folder, for messages.
    :param tensors: Name -> location.
    :param prefix: The prefix of every name, such as ``"bert."``.
    :param as_int8: Whether graphs should hold matrices as int8, see :meth:`int8`.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        prefix: str = "",
        *,
        as_int8: bool = False,
        asked: set[str] | None = None,
    ) -> None:
        self.folder = folder
        self.as_int8 = as_int8
        self._tensors = tensors
        self._prefix = prefix
        self._asked: set[str] = set() if asked is None else asked  # shared by all views of one checkpoint

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._tensors if name.startswith(self._prefix))

    def under(self, prefix: str) -> Weights:
        """The same weights, with names relative to ``prefix``."""
        return Weights(self.folder, self._tensors, self._prefix + prefix, as_int8=self.as_int8, asked=self._asked)

    def compressed(self, on: bool = True) -> Weights:
        """The same weights, with ``as_int8`` set or cleared."""
        return Weights(self.folder, self._tensors, self._prefix, as_int8=on, asked=self._asked)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an existing tensor."""
        return self._tensors[self._prefix + name].shape

    def dtype(self, name: str) -> str:
        """The type of an existing tensor, as safetensors spells it."""
        return self._tensors[self._prefix + name].dtype

    def check_all_read(self, prefix: str = "") -> None:
        """Check that all tensors of the checkpoint were read.

        :param prefix: Check only tensors whose names start with this.
        :raises CheckpointError: If layers are left over, because config.json has fewer of them than the weights.
        """
        unread = sorted(
            name
            for name in self._tensors.keys() - self._asked
            if name.startswith(prefix) and not _OPTIONAL.search(name) and not name.endswith(".scale")
        )
        if not unread:
            return
        read = {_NUMBER.sub(".N.", name) for name in self._asked}
        if layers := [name for name in unread if _NUMBER.search(name) and _NUMBER.sub(".N.", name) in read]:
            raise CheckpointError(
                f"The weights in {self.folder} have layers that config.json does not count, such as {layers[0]!r}. "
                "Scores without them would be wrong. Take config.json and the weights from one model."
            )
        warnings.warn(
            f"The weights in {self.folder} have tensors that the model does not use: {_sample(unread)}. If the "
            "scores are not what you expect, check that config.json and the weights belong together.",
            CrossRankWarning,
            stacklevel=2,
        )

    def raw(self, name: str, *shape: int) -> NDArray[Any]:
        """The tensor as stored, its shape checked; ``-1`` means any size.

        :raises CheckpointError: If it is missing or has another shape.
        """
        full = self._prefix + name
        if full not in self._tensors:
            raise CheckpointError(
                f"The weights in {self.folder} have no tensor {full!r}, which config.json calls for. "
                f"They have: {_sample(self._tensors)}. Take config.json and the weights, all of them, from one model."
            )
        tensor = self._tensors[full]
        if len(tensor.shape) != len(shape) or any(
            want not in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)
        ):
            raise CheckpointError(
                f"The tensor {full!r} in {self.folder} has the shape {tensor.shape}, "
                f"but config.json calls for {shape}. Take config.json and the weights from one model."
            )
        self._asked.add(full)
        return tensor.read()

    def __call__(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor as float32, its shape checked.

        :raises CheckpointError: If it is missing, has another shape, or is not of a floating type.
        """
        array = self.raw(name, *shape)
        dtype = self.dtype(name)
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
        if name in self and self.dtype(name) == "I8":
            return self.raw(name, *shape), self(name + ".scale", shape[0])[:, None]
        matrix = self(name, *shape)
        # Symmetric, so that a product with it needs no correction; by row, because outputs differ widely in size.
        scale = np.maximum(matrix.max(axis=1), -matrix.min(axis=1))[:, None] / np.float32(127)
        scale[scale == 0] = 1
        return np.rint(matrix / scale).astype(np.int8), scale


def load_weights(folder: Path) -> Weights:
    """Read the headers of a folder's safetensors file, or of all shards that its index names.

    :raises UnsupportedModelError: If there are only pickled weights.
    :raises CheckpointError: If there are none, a shard is missing, or a file is damaged.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return Weights(folder, _read_header(single))
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{index} has no weight_map. Download the checkpoint again.")
        tensors: dict[str, Tensor] = {}
        for shard in sorted(set(map(str, shards.values()))):
            if not (folder / shard).is_file():
                raise CheckpointError(
                    f"{index} names the file {shard}, which is missing. Download the checkpoint again."
                )
            tensors.update(_read_header(folder / shard))
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


def _read_header(path: Path) -> dict[str, Tensor]:
    damaged = f"{path} is damaged or was not downloaded to its end"
    remedy = "Delete it and download it again."
    try:
        size = path.stat().st_size
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
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        header = json.loads(header_bytes, object_pairs_hook=_without_duplicates)
    except _DuplicateError as error:
        raise CheckpointError(f"{damaged}: its header has the key {error} twice. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{damaged}: its header is not JSON. {remedy}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{damaged}: its header is not a JSON object. {remedy}")
    header.pop("__metadata__", None)
    data_size = size - 8 - length
    ranges: list[tuple[int, int, str]] = []
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        try:
            dtype, shape = entry["dtype"], tuple(map(operator.index, entry["shape"]))
            begin, end = map(operator.index, entry["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{damaged}: its header's entry for {name!r} is malformed. {remedy}") from error
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise UnsupportedModelError(
                f"{path} stores {name!r} as {dtype}; supported types are {', '.join(_DTYPES)}. "
                "Save the checkpoint again in float32, float16 or bfloat16."
            )
        fits = end - begin == prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        possible = len(shape) <= _MAX_DIMENSIONS and all(0 <= rows <= _MAX_ROWS for rows in shape)
        if not (fits and possible and 0 <= begin <= end):
            raise CheckpointError(
                f"{damaged}: the byte range of {name!r} does not fit its shape {str(shape)[:60]}. {remedy}"
            )
        if end > data_size:
            raise CheckpointError(f"{damaged}: {name!r} ends at byte {end} of {data_size}. {remedy}")
        ranges.append((begin, end, name))
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        if name in tensors:
            raise CheckpointError(f"{damaged}: it has two tensors {name!r}. {remedy}")
        tensors[name] = Tensor(path, 8 + length + begin, dtype, shape)
    _check_ranges(ranges, data_size, f"{damaged}: ", remedy)
    return tensors


def _check_ranges(ranges: Iterable[tuple[int, int, str]], size: int, damaged: str, remedy: str) -> None:
    """Refuse bytes that belong to two tensors or to none, as the safetensors package does."""
    covered = 0
    for begin, end, name in sorted(ranges):
        if begin != covered:
            what = (
                "overlaps the tensor before it" if begin < covered else f"has {begin - covered} stray bytes before it"
            )
            raise CheckpointError(f"{damaged}{name!r} {what}. {remedy}")
        covered = end
    if covered != size:
        raise CheckpointError(f"{damaged}{size - covered} bytes after the last tensor belong to none. {remedy}")


class _DuplicateError(ValueError):
    """A key occurs twice in a JSON object."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateError(shown(key))
        found[key] = value
    return found


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} can't be read: {error.strerror or error}. Check its permissions and the disk.")


def _sample(names: Iterable[str], limit: int = 6) -> str:
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
