"""Query and document -> separate ids, for models that encode them separately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import CrossRankError, InputError
from crossrank.tokenization.batching import Batch
from crossrank.tokenization.pair_encoder import EncodedPairs, distinct_pairs, tokenize
from crossrank.tokenization.tokenizer import PairTemplate


@dataclass(frozen=True)
class ReadText:
    """An encoded text.

    :param ids: ``[L]``, its tokens after cutting, special tokens included; int32.
    :param tokens_cut: Number of tokens cut because it was too long.
    :param states: ``[L, H]``: float32, float16, int8, or bfloat16's bits as uint16.
    :param scales: ``[L]``, float16: the factor of each row of int8 states; ``None`` for other types.
    :param prepared: Whether it was encoded earlier and comes from disk.
    """

    ids: NDArray[np.int32]
    tokens_cut: int
    states: NDArray[Any]
    scales: NDArray[np.float16] | None = None
    prepared: bool = False


class KnownTexts(Protocol):
    """Texts that were encoded before."""

    def find(self, text: Hashable) -> ReadText | None:
        """Return a text's states, or ``None`` if it must be encoded."""

    def keep(self, text: Hashable, read: ReadText) -> None:
        """Add a text that was just encoded."""


@dataclass(frozen=True)
class Text:
    """A text of a batch.

    :param key: The text itself, or its key among the known texts.
    :param ids: ``[L]``, cut, special tokens included; int32.
    :param tokens_cut: Number of tokens cut.
    :param known: ``"cached"`` or ``"prepared"`` if its states are known, else ``None``.
    :param read: Its states if they are on disk. Those in memory are looked up when they are needed: holding them
        here would take more memory than the cache is allowed.
    """

    key: Hashable
    ids: NDArray[np.int32]
    tokens_cut: int
    known: str | None = None
    read: ReadText | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class SplitPairs(EncodedPairs):
    """Pairs whose texts are encoded separately.

    :param query_texts: Each distinct query, cut.
    :param document_texts: Each distinct document, cut.
    """

    query_texts: Sequence[Text] = ()
    document_texts: Sequence[Text] = ()

    @property
    def distinct(self) -> dict[str, Sequence[Any]]:
        """The two fields that ``pairs`` points into."""
        return {"query_texts": self.query_texts, "document_texts": self.document_texts}

    @property
    def all_known(self) -> bool:
        """Whether every document was encoded before, so that a pair costs little."""
        return all(text.known is not None for text in self.document_texts)

    @property
    def documents_known(self) -> dict[str, int]:
        """The number of distinct documents, and how many of them were encoded before."""
        known = Counter(text.known for text in self.document_texts)
        return {
            "documents": len(self.document_texts),
            "documents_cached": known["cached"],
            "documents_prepared": known["prepared"],
        }

    def known(self, row: int) -> str | None:
        """Whether the document of a distinct pair was ``"cached"`` or ``"prepared"``."""
        text: Text = self.document_texts[self.pairs[row, 1]]
        return text.known


@dataclass(frozen=True)
class SplitBatch(Batch):
    """Pairs for one forward pass.

    :param queries: The distinct queries.
    :param documents: The distinct documents.
    :param query_index: ``[batch]``, each pair's query.
    :param document_index: ``[batch]``, each pair's document.
    """

    queries: Sequence[Text]
    documents: Sequence[Text]
    query_index: NDArray[np.int64]
    document_index: NDArray[np.int64]


class SplitEncoder:
    """The encoder of models that encode query and document separately before they compare them.

    Assembles :class:`SplitBatch`. A text shared by many pairs occurs once, and known texts are not tokenized.

    :param tokenizer: With truncation and padding off.
    :param template: The special tokens; the prefix opens a text, the suffix ends it.
    :param max_length: The most tokens of a document, special tokens included.
    :param max_query_length: The most tokens of a query, special tokens included.
    :param known: Documents that were encoded before.
    :raises InputError: If ``max_length`` leaves no room for a token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PairTemplate,
        max_length: int,
        max_query_length: int,
        known: KnownTexts | None = None,
    ) -> None:
        if max_length < 3:
            raise InputError(
                f"max_length={max_length} is too short: two special tokens and one of text need at least 3."
            )
        self.max_length = max_length
        self.max_query_length = min(max_query_length, max_length)
        self.tokenizer = tokenizer
        self.known = known
        self._start, self._end = template.prefix[0], template.suffix[-1]

    def encode(self, pairs: Sequence[tuple[str, str]]) -> SplitPairs:
        """Tokenize each distinct text once and count the tokens cut."""
        query_keys, document_keys, indices, inverse = distinct_pairs(pairs)
        queries = self._cut(query_keys, self.max_query_length)
        documents = self.documents(document_keys)
        query_length, query_cut = _measured(queries, indices[:, 0])
        document_length, document_cut = _measured(documents, indices[:, 1])
        return SplitPairs(
            queries=[text.ids[1:-1].tolist() for text in queries],
            documents=[],
            pairs=indices,
            inverse=inverse,
            # A query is encoded once for all of its documents, so a pair costs as much as its document.
            lengths=document_length,
            query_kept=query_length - 2,
            document_kept=document_length - 2,
            query_cut=query_cut,
            document_cut=document_cut,
            apart=True,
            query_texts=queries,
            document_texts=documents,
        )

    def documents(self, keys: Sequence[Hashable]) -> list[Text]:
        """Tokens of documents; for known documents they are known too."""
        found = [None if self.known is None else self.known.find(key) for key in keys]
        new = iter(self._cut([key for key, read in zip(keys, found, strict=True) if read is None], self.max_length))
        return [
            next(new)
            if read is None
            else Text(key, read.ids, read.tokens_cut, "prepared", read)
            if read.prepared
            else Text(key, read.ids, read.tokens_cut, "cached")
            for key, read in zip(keys, found, strict=True)
        ]

    def assemble(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> SplitBatch:
        """Collect the distinct queries and documents of some pairs."""
        assert isinstance(encoded, SplitPairs)
        which_queries, query_index = np.unique(encoded.pairs[rows, 0], return_inverse=True)
        which_documents, document_index = np.unique(encoded.pairs[rows, 1], return_inverse=True)
        queries = [encoded.query_texts[i] for i in which_queries]
        documents = [encoded.document_texts[i] for i in which_documents]
        tokens = sum(map(len, queries)) + sum(map(len, documents))
        return SplitBatch({}, rows, tokens, queries, documents, query_index, document_index)

    def _cut(self, keys: Sequence[Hashable], most: int) -> list[Text]:
        texts = []
        strange = [key for key in keys if not isinstance(key, str)]
        if strange:
            raise CrossRankError(f"{strange[0]!r} has no text that could be read, and its states are gone. Try again.")
        for key, ids in zip(keys, tokenize(self.tokenizer, [str(key) for key in keys]), strict=True):
            kept = ids[: most - 2]
            framed = np.array([self._start, *kept, self._end], np.int32)
            texts.append(Text(key, framed, len(ids) - len(kept)))
        return texts


def _measured(texts: Sequence[Text], index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each pair's text: its tokens, and the number cut."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    cut = np.fromiter((text.tokens_cut for text in texts), np.int64, len(texts))
    return lengths[index], cut[index]
