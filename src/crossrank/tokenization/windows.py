"""A long document -> overlapping windows: slices of its text that fit the model.

Windows are planned in tokens and cut in characters, so that each is a slice of the original text. A slice is
tokenized again when it is scored. If that gives more tokens than it had in the document (a word that begins in its
middle), it is cut once more, so a window is never truncated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.tokenization.pair_encoder import Encoder
from crossrank.validation import encodable

# Where a sentence begins: after a full stop and white space, an ideographic full stop, or the end of a line. No
# alternative can begin within a run that it repeats, so that a text of dots takes no longer than another.
_SENTENCE_ENDS = re.compile(
    r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？｡])(?![。！？｡])[」』）”’]*\s*|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*"
)
_SPACE = re.compile(r"\s+")
# How many pairs are measured, and texts located, at a time; this limits the memory.
_CHUNK = 2048
_TEXTS = 64


@dataclass(frozen=True)
class Window:
    """A part of a document.

    :param start: Offset of its first character.
    :param end: Offset of the character after its last.
    :param first: Its first token, counted in the whole document.
    :param last: The token after its last.
    """

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class LocatedText:
    """A text and the positions of its tokens.

    :param text: The text, unchanged.
    :param starts: ``[tokens + 1]``, the character each token begins with, without white space; at the end the length
        of the text. Tokens that share a character have the same start.
    :param sentences: ``[tokens + 1]``, whether a sentence begins with the token.
    :param words: ``[tokens + 1]``, whether it follows white space.
    """

    text: str
    starts: NDArray[np.int64]
    sentences: NDArray[np.bool_]
    words: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def window(self, first: int, last: int) -> Window:
        """Cut out the tokens ``[first, last)``, without trailing white space."""
        start = int(self.starts[first]) if first else 0
        if last == len(self):
            return Window(start, len(self.text), first, last)
        return Window(start, start + len(self.text[start : self.starts[last]].rstrip()), first, last)


def locate(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[LocatedText]:
    """Find the positions of the tokens in each text."""
    for begin in range(0, len(texts), _TEXTS):
        some = texts[begin : begin + _TEXTS]
        encodings = tokenizer.encode_batch([encodable(text) for text in some], add_special_tokens=False)
        for text, encoding in zip(some, encodings, strict=True):
            starts = np.array([start for start, _ in encoding.offsets] + [len(text)], np.int64)
            spaces = np.array([match.span() for match in _SPACE.finditer(text)], np.int64).reshape(-1, 2)
            if len(spaces):
                before = np.searchsorted(spaces[:, 0], starts, side="right") - 1
                starts = np.where(before >= 0, np.maximum(starts, spaces[before, 1]), starts)
            starts = np.maximum.accumulate(starts)
            sentences = [match.end() for match in _SENTENCE_ENDS.finditer(text)]
            yield LocatedText(text, starts, np.isin(starts, sentences), np.isin(starts, spaces[:, 1]))


def window_ranges(
    located: LocatedText, room: int, overlap: int, first: int = 0, last: int | None = None
) -> list[tuple[int, int]]:
    """Cut the tokens ``[first, last)`` into overlapping ranges, which together hold all of them.

    A range ends with a sentence if one ends in the last quarter of the room, else with a word, else where the room
    does. It begins with a sentence or a word too, up to an eighth of the room before the overlap demands it.

    :param room: The most tokens of a range; a single character with more tokens stays whole.
    :param overlap: The minimum of tokens that neighbours share, but never more than half of the room.
    """
    last = len(located) if last is None else last
    overlap = min(overlap, room // 2)
    ranges: list[tuple[int, int]] = []
    end = first
    while True:
        if first + room >= last:
            return [*ranges, (first, last)]
        # Each range must extend past the end of the previous one, or the loop would not end.
        end = _near(located, max(end, first + room - room // 4 - 1) + 1, first + room) or _whole(
            located, max(first + room, end + 1), above=end
        )
        ranges.append((first, end))
        if end >= last:
            return ranges
        begin = max(first + 1, end - overlap)
        if overlap:
            begin = _near(located, max(first + 1, begin - room // 8), begin) or _whole(located, begin, above=first)
        first = min(begin, end)


def covered(windows: Iterable[Window]) -> int:
    """How many tokens are in at least one of these windows, which are sorted."""
    total = end = 0
    for window in windows:
        total += max(0, window.last - max(end, window.first))
        end = max(end, window.last)
    return total


def _near(located: LocatedText, low: int, high: int) -> int | None:
    """Find the last position from ``low`` to ``high`` where a sentence begins, else where a word begins."""
    for begins in (located.sentences, located.words):
        found = np.flatnonzero(begins[low : high + 1])
        if len(found):
            # Tokens of the same character have the same start; the first of them is where it begins.
            place = int(np.searchsorted(located.starts, located.starts[low + found[-1]]))
            if place >= low:
                return place
    return None


def _whole(located: LocatedText, place: int, above: int) -> int:
    """Move a position to the beginning of its character: back, or forward if that would not be above ``above``."""
    back = int(np.searchsorted(located.starts, located.starts[place]))
    if back > above:
        return back
    return min(int(np.searchsorted(located.starts, located.starts[place], side="right")), len(located))


@dataclass(frozen=True)
class Windows:
    """The windows of a document, beside one query.

    :param windows: The windows in order; a single one if all of the text fits.
    :param tokens: Tokens of the whole document.
    """

    windows: Sequence[Window]
    tokens: int


def cut_documents(
    encoder: Encoder, pairs: Sequence[tuple[str, str]], *, overlap: int, size: int | None = None
) -> list[Windows]:
    """Cut the documents of some pairs into windows that fit beside their queries, with nothing lost.

    A document that fits is one window, even if it is longer than ``size``.

    :param encoder: The model's encoder, which knows how much room a query leaves.
    :param pairs: ``(query, document)``.
    :param overlap: Tokens that neighbouring windows share.
    :param size: The most tokens of a window of a document that does not fit; ``None`` for all available room.
    """
    cut: list[Windows] = []
    for begin in range(0, len(pairs), _CHUNK):
        cut += _cut_some(encoder, pairs[begin : begin + _CHUNK], overlap, size)
    return cut


def _cut_some(encoder: Encoder, pairs: Sequence[tuple[str, str]], overlap: int, size: int | None) -> list[Windows]:
    encoded = encoder.encode(pairs)
    kept, lost = encoded.document_kept[encoded.inverse], encoded.document_cut[encoded.inverse]
    tokens = kept + lost
    # The tokens that a long document keeps are the available room.
    rooms = kept if size is None else np.minimum(kept, size)
    long = [int(i) for i in np.flatnonzero(lost)]
    texts = list(dict.fromkeys(pairs[i][1] for i in long))
    located = dict(zip(texts, locate(encoder.tokenizer, texts), strict=True))
    known: dict[tuple[str, int], list[Window]] = {}
    found = [Windows([Window(0, len(text), 0, int(tokens[i]))], int(tokens[i])) for i, (_, text) in enumerate(pairs)]
    for i in long:
        query, text = pairs[i]
        key = (text, max(1, int(rooms[i])))
        if key not in known:
            known[key] = _fitting(encoder, query, located[text], key[1], overlap)
        found[i] = Windows(known[key], len(located[text]))
    return found


def _fitting(encoder: Encoder, query: str, located: LocatedText, room: int, overlap: int) -> list[Window]:
    """Plan windows, and split those again that the encoder would truncate."""
    settled: list[Window] = []
    ranges = window_ranges(located, room, overlap)
    while ranges:
        windows = [located.window(*tokens) for tokens in ranges]
        encoded = encoder.encode([(query, located.text[window.start : window.end]) for window in windows])
        ranges = []
        for window, lost in zip(windows, encoded.document_cut[encoded.inverse], strict=True):
            length = window.last - window.first
            pieces = (
                window_ranges(located, max(1, length - int(lost)), overlap, window.first, window.last) if lost else []
            )
            # A single character can't be split.
            if len(pieces) < 2:
                settled.append(window)
            else:
                ranges += pieces
    settled.sort(key=lambda window: (window.first, -window.last))
    # A piece may lie inside a neighbour's piece; it then adds nothing.
    ends = np.maximum.accumulate([window.last for window in settled])
    return [window for i, window in enumerate(settled) if not i or window.last > ends[i - 1]]
