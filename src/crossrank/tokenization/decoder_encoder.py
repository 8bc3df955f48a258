"""Query + document -> ids for decoders: inside a prompt that is never cut, with padding on the left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import CheckpointError, InputError
from crossrank.tokenization.batching import Batch, padded_length
from crossrank.tokenization.pair_encoder import EncodedPairs
from crossrank.tokenization.prompts import BOS, DOCUMENT, QUERY, Chunk, Prompt, Slot
from crossrank.validation import encodable

_NONE = (0, 0)


@dataclass(frozen=True)
class _Piece:
    """A chunk in tokens, and the ranges of query and document in it: ``[start, end)``, empty if not in it."""

    ids: NDArray[np.int32]
    query: tuple[int, int]
    document: tuple[int, int]


class DecoderEncoder:
    """The encoder of decoders.

    Assembles ``input_ids`` and ``attention_mask``, ``[batch, length]``, padded on the left, so that the last position
    is the prompt's last token in every row. Query and document are cut at the end; the prompt stays whole.

    Its :class:`EncodedPairs` has no queries. Its documents are the whole rows of the distinct pairs, already cut,
    because the text between query and document can depend on both.

    :param tokenizer: With truncation and padding off.
    :param prompt: The prompt around query and document.
    :param max_length: The most tokens of a pair, the prompt included.
    :param pad_id: The id that fills up a row; it is masked, so any id works.
    :param bos: The tokenizer's token for the beginning of a text, if it has one that is not its padding.
    :raises InputError: If ``max_length`` leaves no room for a token of each text.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Prompt, max_length: int, *, pad_id: int, bos: str | None = None
    ) -> None:
        # Special tokens are part of the prompt; the post-processor would only trim the offsets.
        tokenizer.post_processor = None
        self.max_length = max_length
        self.tokenizer = tokenizer
        self._strip = prompt.strip
        self._pad_id = pad_id
        chunks = [tuple(bos or "" if part is BOS else part for part in chunk) for chunk in prompt.chunks]
        self._chunks: list[Chunk] = [chunk for chunk in chunks if chunk != ("",)]
        around = sum(len(self._pieces(chunk, [("a", "a")])[0].ids) for chunk in self._chunks) - 2
        if max_length < around + 2:
            raise InputError(
                f"max_length={max_length} is too short: this model's prompt takes {around} tokens around a pair, "
                f"so at least {around + 2} are needed."
            )

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize, cut documents to the available room, and queries too if they take more than half of it."""
        distinct: dict[tuple[str, str], int] = {}
        inverse = np.fromiter((distinct.setdefault(pair, len(distinct)) for pair in pairs), np.int64, len(pairs))
        columns = [self._pieces(chunk, list(distinct)) for chunk in self._chunks]
        rows = list(zip(*columns, strict=True))
        query_full = np.array([sum(piece.query[1] - piece.query[0] for piece in row) for row in rows], np.int64)
        document_full = np.array(
            [sum(piece.document[1] - piece.document[0] for piece in row) for row in rows], np.int64
        )
        total = np.array([sum(len(piece.ids) for piece in row) for row in rows], np.int64)
        room = np.maximum(self.max_length - (total - query_full - document_full), 0)
        over = query_full + document_full > room
        cap = np.maximum(1, room // 2)
        query_kept = np.where(over, np.minimum(query_full, np.maximum(cap, room - document_full)), query_full)
        document_kept = np.clip(room - query_kept, 0, document_full)
        query_cut, document_cut = query_full - query_kept, document_full - document_kept
        # Arrays, because lists of Python integers would take ten times the memory.
        cut: list[Any] = [
            _join(row, int(query), int(document))
            for row, query, document in zip(rows, query_cut, document_cut, strict=True)
        ]
        count = len(distinct)
        return EncodedPairs(
            queries=[],
            documents=cut,
            pairs=np.stack([np.zeros(count, np.int64), np.arange(count)], axis=1),
            inverse=inverse,
            lengths=total - query_cut - document_cut,
            query_kept=query_kept,
            document_kept=document_kept,
            query_cut=query_cut,
            document_cut=document_cut,
        )

    def assemble(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> Batch:
        """Pad the rows on the left to the longest."""
        lengths = encoded.lengths[rows]
        length = padded_length(int(lengths.max()), self.max_length)
        ids = np.full((len(rows), length), self._pad_id, np.int64)
        for row, pair in enumerate(rows):
            ids[row, length - lengths[row] :] = encoded.documents[encoded.pairs[pair, 1]]
        mask = (np.arange(length) >= length - lengths[:, None]).astype(np.int64)
        return Batch({"input_ids": ids, "attention_mask": mask}, rows, int(lengths.sum()))

    def token_id(self, token: str) -> int:
        """Look up the token id of an answer.

        :raises CheckpointError: If the tokenizer makes several tokens of it.
        """
        ids = self.tokenizer.encode(token, add_special_tokens=False).ids
        if len(ids) != 1:
            raise CheckpointError(
                f"The tokenizer makes {len(ids)} tokens of the answer {token!r}, but this model's score is the logit "
                "of one. Is the tokenizer of the same model?"
            )
        return int(ids[0])

    def _pieces(self, chunk: Chunk, pairs: Sequence[tuple[str, str]]) -> list[_Piece]:
        """One chunk of each pair; a text that several pairs share is tokenized once."""
        places: dict[tuple[str, str], int] = {}
        keys = [(query if QUERY in chunk else "", document if DOCUMENT in chunk else "") for query, document in pairs]
        for key in keys:
            places.setdefault(key, len(places))
        texts, spans = zip(*(self._fill(chunk, *key) for key in places), strict=True) if places else ((), ())
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        pieces = []
        for encoding, (query, document) in zip(encodings, spans, strict=True):
            ends = [end for _, end in encoding.offsets]
            pieces.append(_Piece(np.array(encoding.ids, np.int32), _tokens(ends, *query), _tokens(ends, *document)))
        return [pieces[places[key]] for key in keys]

    def _fill(self, chunk: Chunk, query: str, document: str) -> tuple[str, tuple[tuple[int, int], tuple[int, int]]]:
        """Fill in a chunk: its text, and the character ranges of query and document in it."""
        text = ""
        spans: dict[Slot, tuple[int, int]] = {}
        for part in chunk:
            start = len(text)
            if isinstance(part, str):
                text += part
            else:
                filling = encodable(query if part is QUERY else document)
                text += filling.strip() if self._strip else filling
                spans[part] = (start, len(text))
        return text, (spans.get(QUERY, _NONE), spans.get(DOCUMENT, _NONE))


def _tokens(ends: Sequence[int], start: int, stop: int) -> tuple[int, int]:
    """Find the tokens of a text's characters ``[start, stop)``.

    A token that reaches from the prompt into the text belongs to the text, because it has the text's first letter. One
    that reaches from the text into the prompt belongs to the prompt, because the prompt must stay whole.
    """
    first = bisect_right(ends, start)
    return (first, max(first, bisect_right(ends, stop))) if stop > start else _NONE


def _join(row: Iterable[_Piece], query_cut: int, document_cut: int) -> NDArray[np.int32]:
    """Join the ids of a row, without the last tokens of query and document that are cut."""
    parts: list[NDArray[np.int32]] = []
    for piece in row:
        gaps = [
            (end - cut, end)
            for (start, end), cut in ((piece.query, query_cut), (piece.document, document_cut))
            if end > start and cut
        ]
        begin = 0
        for start, end in sorted(gaps):
            parts.append(piece.ids[begin:start])
            begin = end
        parts.append(piece.ids[begin:])
    return np.concatenate(parts)
