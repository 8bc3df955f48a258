"""States of a document -> bytes of a segment, and back: int8 or float16 rows, or 4 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.tokenization.split_encoder import ReadText

STORAGE = ("int8", "float16", "int4")
# Values of a row that share a scale in 4 bits.
_GROUP = 32


def pack(read: ReadText, storage: str) -> bytes:
    """Token ids, scales and rows, one after the other, in little-endian byte order."""
    ids = read.ids.astype("<i4").tobytes()
    states = read.states.astype(np.float32)
    if storage == "float16":
        return ids + states.astype("<f2").tobytes()
    if storage == "int8":
        scales, rows = _quantize(states, 127)
        return ids + scales.tobytes() + rows.tobytes()
    scales, rows = _quantize(states.reshape(len(states), -1, _group(states.shape[1])), 7)
    flat = (rows + 8).astype(np.uint8).reshape(len(states), -1)
    return ids + scales.tobytes() + (flat[:, 0::2] | flat[:, 1::2] << 4).tobytes()


def unpack(data: memoryview, tokens: int, hidden: int, storage: str, tokens_cut: int) -> ReadText:
    """Return a document's states; int8 and float16 rows are not copied."""
    ids = np.frombuffer(data, "<i4", tokens)
    rest = data[4 * tokens :]
    if storage == "float16":
        states: NDArray[Any] = np.frombuffer(rest, "<f2", tokens * hidden).reshape(tokens, hidden)
        return ReadText(ids, tokens_cut, states, prepared=True)
    if storage == "int8":
        scales = np.frombuffer(rest, "<f2", tokens)
        states = np.frombuffer(rest, np.int8, tokens * hidden, 2 * tokens).reshape(tokens, hidden)
        return ReadText(ids, tokens_cut, states, scales, prepared=True)
    group = _group(hidden)
    scales = np.frombuffer(rest, "<f2", tokens * hidden // group).reshape(tokens, -1, 1)
    packed = np.frombuffer(rest, np.uint8, tokens * hidden // 2, scales.nbytes).reshape(tokens, -1)
    rows = np.empty((tokens, hidden), np.float16)
    rows[:, 0::2] = (packed & 15).astype(np.int8) - np.int8(8)
    rows[:, 1::2] = (packed >> 4).astype(np.int8) - np.int8(8)
    states = (rows.reshape(tokens, -1, group) * scales).reshape(tokens, hidden)
    return ReadText(ids, tokens_cut, states, prepared=True)


def _quantize(states: NDArray[np.float32], most: int) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    """Round the last axis to integers up to ``most`` and a scale."""
    scales = (np.abs(states).max(-1) / most).astype("<f2")
    # The scale, rounded to float16, may be slightly too small; a row of zeros has scale 0.
    divisor = np.maximum(scales.astype(np.float32), np.float32(1e-7))[..., None]
    return scales, np.clip(np.rint(states / divisor), -most, most).astype(np.int8)


def _group(hidden: int) -> int:
    return _GROUP if hidden % _GROUP == 0 else hidden
