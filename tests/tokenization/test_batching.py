"""Batches under a budget of tokens: every pair once, and a document that is read apart once for its pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import texts
from crossrank import CrossEncoder
from crossrank.tokenization.batching import group_rows, padded_length
from crossrank.tokenization.pair_encoder import concatenate


@given(
    documents=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    lengths=st.lists(st.integers(1, 50), min_size=10, max_size=10),
    budget=st.integers(1, 200),
    apart=st.booleans(),
)
def test_each_pair_is_in_one_batch_within_the_budget(
    documents: list[int], lengths: list[int], budget: int, apart: bool
) -> None:
    of = np.array(documents)
    tokens = np.array(lengths)[of]
    batches = list(group_rows(tokens, of, budget, apart=apart))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(of)))
    for batch in batches:
        units = len(set(of[batch])) if apart else len(batch)
        assert units == 1 or units * tokens[batch].max() <= budget


def test_a_document_that_is_read_apart_counts_once() -> None:
    documents = np.repeat([0, 1, 2, 3], 5)
    lengths = np.full(20, 8)
    assert [len(batch) for batch in group_rows(lengths, documents, 20)] == [2] * 10
    assert [len(batch) for batch in group_rows(lengths, documents, 20, apart=True)] == [8, 7, 5]
    assert [len(batch) for batch in group_rows(lengths, documents, 20, 4, apart=True)] == [4] * 5


def test_the_budget_counts_padding() -> None:
    """Pairs of 65 tokens are padded to 80, so 15 of them fit where 18 would fit without padding."""
    lengths = np.full(31, 65)
    padded = padded_length(65, 512)
    assert padded == 80
    assert [len(batch) for batch in group_rows(lengths, np.arange(31), 1200)] == [8, 8, 15]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=90),
    budget=st.integers(1, 900),
    most=st.none() | st.integers(1, 40),
)
def test_groups_have_few_sizes(lengths: list[int], budget: int, most: int | None) -> None:
    sizes = [len(batch) for batch in group_rows(np.array(lengths), np.arange(len(lengths)), budget, most)]
    assert sum(sizes) == len(lengths)
    assert max(sizes) <= (most or len(lengths))
    assert set(sizes[:-1]) <= {1, 2, 4, 8, 16, 32, 64}


@given(length=st.integers(1, 600), most=st.integers(1, 600))
def test_lengths_are_rounded_up_to_few(length: int, most: int) -> None:
    padded = padded_length(length, most)
    assert length <= padded <= max(length, most)
    assert padded < length + 32
    assert len({padded_length(one, 512) for one in range(1, 513)}) == 28


@pytest.mark.parametrize("bundled", [False, True])
def test_pairs_encoded_apart_score_together_as_they_do_alone(tiny_bert: Path, bundled: bool) -> None:
    # The bundled model reads query and document apart, so its encoded pairs have more to put together.
    model = CrossEncoder(None if bundled else str(tiny_bert), precision="float32")
    pairs = texts.pairs(9)
    whole = concatenate([model.encode(pairs[:4]), model.encode(pairs[4:])])
    logits = np.empty((9, 1), np.float32)
    for batch in model.batches(whole):
        logits[batch.rows] = model.forward(batch)
    scores, relevance = model.activate(logits)
    expected = model.score(pairs)
    np.testing.assert_allclose(logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
    assert relevance is not None
    np.testing.assert_array_equal(whole.document_cut, expected.document_tokens_cut)
