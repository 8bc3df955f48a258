"""Split text into words and sentences with character offsets, in any script and without a word list."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

# Longer "sentences" are split: lists, tables and text without punctuation.
LONGEST_SENTENCE = 60

Offsets = tuple[int, int]

# Letters of scripts without spaces, each treated as a word: kana and Han.
_ALONE = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
# Characters inside a word, but not at its ends: don't, 3.14, first-stage.
_JOINERS = frozenset("'’.-‐·:@")
# Matches a string with one letter per character of the text, see _class_of, so that offsets are the same.
_WORD = re.compile(r"a|w+(?:jw+)*")
# An end mark, optional closing marks, and white space, which East Asian full stops don't need. Or an empty line, or the
# start of a list item.
_END = re.compile(
    r"""[.!?…؟।]+["'”’»)\]]*\s+ | [。！？｡]+["'”’»」』）]*\s* | \s*\n\s*\n\s* | \s*\n\s*(?=[-*•–][ ]|\d+[.)][ ])""",
    re.VERBOSE,
)
# A full stop after an initial or one of these does not end a sentence.
_SHORTENED = re.compile(r"(?:^|[\s(])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Eq|vs|cf|al|approx|e\.g|i\.e|etc)\.$")


def words(text: str) -> list[Offsets]:
    """Find the words of a text.

    Letters, digits, marks and symbols form words. In a script without spaces each letter is a word. A text of only
    punctuation is one word. A blank text has no words.

    :returns: ``(start, end)`` of each, in order, never overlapping.
    """
    found = [match.span() for match in _WORD.finditer("".join(map(_class_of, text)))]
    return found or _stripped(text, 0, len(text))


def sentences(text: str) -> list[Offsets]:
    """Find the sentences of a text, pieces of at most :data:`LONGEST_SENTENCE` words.

    :returns: ``(start, end)`` of each, without the white space around it, in order, never overlapping.
    """
    found: list[Offsets] = []
    start = 0
    for match in _END.finditer(text):
        if not _is_end(text, match):
            continue
        found += _stripped(text, start, match.end())
        start = match.end()
    found += _stripped(text, start, len(text))
    return [piece for sentence in found for piece in _pieces(text, *sentence)]


def without(text: str, start: int, end: int) -> str:
    """Leave a span out of a text, and one of two spaces that become adjacent."""
    before, after = text[:start], text[end:]
    if after[:1].isspace() and (not before or before[-1].isspace()):
        after = after[1:]
    return before + after


def runs(spans: list[Offsets], most: int) -> list[Offsets]:
    """Join neighbours, the same number each time, so that there are at most ``most`` spans. Nothing is left out.

    :returns: ``spans`` itself if they are few enough.
    """
    if len(spans) <= most:
        return spans
    size = -(-len(spans) // max(1, most))
    return [(spans[i][0], spans[min(i + size, len(spans)) - 1][1]) for i in range(0, len(spans), size)]


@lru_cache(maxsize=4096)
def _class_of(character: str) -> str:
    """Classify a character: ``a`` is a word, ``w`` is part of one, ``j`` joins two parts, ``.`` is something else."""
    code = ord(character)
    if code >= 0x3040 and any(first <= code <= last for first, last in _ALONE):
        return "a" if character.isalnum() else "w"
    if unicodedata.category(character)[0] in "LMNS" or character == "_":
        return "w"
    return "j" if character in _JOINERS else "."


def _is_end(text: str, match: re.Match[str]) -> bool:
    mark = match.group().rstrip()
    if mark != "." or "\n\n" in match.group():
        return True
    after = text[match.end() : match.end() + 1]
    return not after.islower() and not _SHORTENED.search(text, max(0, match.start() - 8), match.start() + 1)


def _stripped(text: str, start: int, end: int) -> list[Offsets]:
    piece = text[start:end]
    inner = piece.strip()
    start += len(piece) - len(piece.lstrip())
    return [(start, start + len(inner))] if inner else []


def _pieces(text: str, start: int, end: int) -> list[Offsets]:
    inside = words(text[start:end])
    if len(inside) <= LONGEST_SENTENCE:
        return [(start, end)]
    cuts = [start, *(start + inside[i][0] for i in range(LONGEST_SENTENCE, len(inside), LONGEST_SENTENCE)), end]
    return [piece for a, b in pairwise(cuts) for piece in _stripped(text, a, b)]
