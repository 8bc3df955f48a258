"""Batches under a budget of tokens: every pair once, and a document that is read apart once for its pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crossrank.tokenization.batching import plan


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
    batches = list(plan(tokens, of, budget, apart=apart))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(of)))
    for batch in batches:
        units = len(set(of[batch])) if apart else len(batch)
        assert units == 1 or units * tokens[batch].max() <= budget


def test_a_document_that_is_read_apart_counts_once() -> None:
    documents = np.repeat([0, 1, 2, 3], 5)
    lengths = np.full(20, 10)
    assert [len(batch) for batch in plan(lengths, documents, 20)] == [2] * 10
    assert [len(batch) for batch in plan(lengths, documents, 20, apart=True)] == [8, 7, 5]
    assert [len(batch) for batch in plan(lengths, documents, 20, 4, apart=True)] == [4] * 5
