"""Query + document -> ids. The document is cut, and the query only if it is very long; both are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import InputError
from crossrank.tokenization.batching import Batch, fill, padded_length
from crossrank.tokenization.tokenizer import PairTemplate
from crossrank.validation import encodable

Ids = Sequence[int]
_PER_PAIR = ("lengths", "query_kept", "document_kept", "query_cut", "document_cut")


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of pairs; each distinct text is tokenized and each distinct pair kept once.

    :param queries: Ids of each distinct query, uncut.
    :param documents: Ids of each distinct document, uncut: how much fits depends on the query beside it.
    :param pairs: ``[distinct pairs, 2]``, an index into ``queries`` and one into ``documents``.
    :param inverse: ``[pairs as given]``, an index into ``pairs``.
    :param lengths: Tokens of each distinct pair as the model sees it, special tokens included.
    :param query_kept: Tokens that are kept of each distinct pair's query.
    :param document_kept: Tokens that are kept of each distinct pair's document.
    :param query_cut: Tokens cut from each distinct pair's query.
    :param document_cut: Tokens cut from each distinct pair's document.
    :param apart: Whether ``lengths`` are of the document alone, because the model encodes the two texts separately.
    """

    queries: list[Ids]
    documents: list[Ids]
    pairs: NDArray[np.int64]
    inverse: NDArray[np.int64]
    lengths: NDArray[np.int64]
    query_kept: NDArray[np.int64]
    document_kept: NDArray[np.int64]
    query_cut: NDArray[np.int64]
    document_cut: NDArray[np.int64]
    apart: bool = False

    @property
    def distinct(self) -> dict[str, Sequence[Any]]:
        """The two fields that ``pairs`` points into: of distinct queries, and of distinct documents."""
        return {"queries": self.queries, "documents": self.documents}

    @property
    def documents_known(self) -> dict[str, int]:
        """Counts of documents that were encoded before: none, because the two texts are encoded together."""
        return {}

    @property
    def all_known(self) -> bool:
        """Whether every document was encoded before, so that a pair costs little."""
        return False

    def known(self, row: int) -> str | None:
        """The origin of the states of a distinct pair's document, if they are known."""
        return None


def concatenate(parts: Sequence[EncodedPairs]) -> EncodedPairs:
    """Join pairs from several calls of one encoder, so that they can share a batch."""
    if len(parts) == 1:
        return parts[0]
    per_pair: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_PAIR}
    texts: dict[str, Any] = {
        name: [item for part in parts for item in part.distinct[name]] for name in parts[0].distinct
    }
    sizes = [[len(items) for items in part.distinct.values()] for part in parts[:-1]]
    offsets = np.cumsum([[0, 0], *sizes], axis=0)
    starts = np.cumsum([0, *(len(part.pairs) for part in parts[:-1])])
    return replace(
        parts[0],
        pairs=np.concatenate([part.pairs + offset for part, offset in zip(parts, offsets, strict=True)]),
        inverse=np.concatenate([part.inverse + start for part, start in zip(parts, starts, strict=True)]),
        **per_pair,
        **texts,
    )


class Encoder(Protocol):
    """Turns pairs of texts into batches for an engine."""

    max_length: int
    tokenizer: Tokenizer

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize the pairs, cut them and count their tokens."""

    def assemble(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> Batch:
        """Put the given distinct pairs into padded arrays."""


class PairEncoder:
    """The encoder of models that take query and document as one sequence.

    Assembles ``input_ids`` and ``attention_mask``, ``[batch, length]``, and ``token_type_ids`` if the model has
    token types.

    :param tokenizer: With truncation and padding off.
    :param template: The special tokens.
    :param max_length: The most tokens of a pair, special tokens included.
    :param token_types: Whether the model has token types.
    :param prompt: Put before every query, and counted as part of it.
    :raises InputError: If ``max_length`` leaves no room for a token of each text, or for the prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: PairTemplate, max_length: int, *, token_types: bool, prompt: str = ""
    ) -> None:
        if max_length < template.specials + 2:
            raise InputError(
                f"max_length={max_length} is too short: this model puts {template.specials} special tokens around a "
                f"pair, so at least {template.specials + 2} are needed."
            )
        if (needed := 2 * prompt_length(tokenizer, prompt)) and max_length < needed + template.specials:
            raise InputError(
                f"max_length={max_length} is too short for this model's prompt {prompt!r}: it precedes each query, "
                f"which may take half of the length, so at least {needed + template.specials} are needed."
            )
        self.max_length = max_length
        self.tokenizer = tokenizer
        self.prompt = prompt
        self._template = template
        self._token_types = token_types

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize each distinct text once, cut queries to half of the room, and count the cut tokens."""
        room = self.max_length - self._template.specials
        if self.prompt:
            pairs = [(self.prompt + query, document) for query, document in pairs]
        return encode_pairs(self.tokenizer, pairs, room=room, specials=self._template.specials)

    def assemble(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> Batch:
        """Join query and document of each pair and pad to the longest."""
        template = self._template
        prefix, middle, suffix = list(template.prefix), list(template.middle), list(template.suffix)
        lengths = encoded.lengths[rows]
        length = padded_length(int(lengths.max()), self.max_length)
        ids: list[list[int]] = []
        types = np.zeros((len(rows), length), np.int64) if self._token_types else None
        for row, pair in enumerate(rows):
            query = encoded.queries[encoded.pairs[pair, 0]][: encoded.query_kept[pair]]
            document = encoded.documents[encoded.pairs[pair, 1]][: encoded.document_kept[pair]]
            ids.append([*prefix, *query, *middle, *document, *suffix])
            if types is not None:
                start = len(prefix) + len(query)
                types[row, :start] = template.query_type
                types[row, start : start + len(middle)] = template.middle_types
                types[row, start + len(middle) : len(ids[-1])] = template.document_type
        inputs = {
            "input_ids": fill(ids, length, template.pad_id),
            "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64),
        }
        if types is not None:
            inputs["token_type_ids"] = types
        return Batch(inputs, rows, int(lengths.sum()))


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, room: int, specials: int) -> EncodedPairs:
    """Tokenize the distinct texts of some pairs, without special tokens.

    :param room: Tokens that query and document may have together.
    :param specials: The number of special tokens besides.
    """
    query_texts, document_texts, indices, inverse = distinct_pairs(pairs)
    queries = tokenize(tokenizer, query_texts)
    documents = tokenize(tokenizer, document_texts)
    # A query of more than half of the room would leave too little of the document.
    cap = max(1, room // 2)
    query_full = np.fromiter(map(len, queries), np.int64, len(queries))[indices[:, 0]]
    document_full = np.fromiter(map(len, documents), np.int64, len(documents))[indices[:, 1]]
    # A long query is cut only if the document would be cut otherwise.
    over = query_full + document_full > room
    query_kept = np.where(over, np.minimum(query_full, np.maximum(cap, room - document_full)), query_full)
    document_kept = np.minimum(document_full, room - query_kept)
    return EncodedPairs(
        queries=queries,
        documents=documents,
        pairs=indices,
        inverse=inverse,
        lengths=query_kept + document_kept + specials,
        query_kept=query_kept,
        document_kept=document_kept,
        query_cut=query_full - query_kept,
        document_cut=document_full - document_kept,
    )


def distinct_pairs(
    pairs: Sequence[tuple[str, str]],
) -> tuple[list[str], list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct queries and documents, their distinct pairs ``[n, 2]``, and each pair's index ``[pairs]``."""
    query_of: dict[str, int] = {}
    document_of: dict[str, int] = {}
    pair_of: dict[tuple[int, int], int] = {}
    inverse = np.empty(len(pairs), np.int64)
    for position, (query, document) in enumerate(pairs):
        pair = (query_of.setdefault(query, len(query_of)), document_of.setdefault(document, len(document_of)))
        inverse[position] = pair_of.setdefault(pair, len(pair_of))
    return list(query_of), list(document_of), np.array(list(pair_of), np.int64).reshape(-1, 2), inverse


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Ids of each text, without special tokens and uncut."""
    clean = [encodable(text) for text in texts]
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(clean, add_special_tokens=False)]


def prompt_length(tokenizer: Tokenizer, prompt: str) -> int:
    """The number of tokens that a prompt takes at the beginning of a pair, special tokens included.

    Counted as sentence-transformers does, on the prompt alone; 0 for none.
    """
    if not prompt:
        return 0
    encoding = tokenizer.encode(prompt)
    return len(encoding.ids) - encoding.special_tokens_mask[-1]
