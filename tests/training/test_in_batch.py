"""Which rows make a batch, and what stands against what in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses

from checkpoints import transformers_logits
from crossrank.training.in_batch import CachedInBatchLoss, InBatchLoss, SimilarBatches, in_batch_loss
from crossrank.training.loss_inputs import Columns

WORDS = st.sampled_from(["cat", "ship", "Cat ", "ship sails", "the", "日本", ""])


def columns(rows: list[tuple[str, ...]]) -> Columns:
    names = ["query", "positive", "negative_1", "negative_2"][: len(rows[0])]
    return Columns(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), len(rows), len(names) - 1, {})


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(WORDS, WORDS, st.integers(1, 4)), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
def test_every_epoch_has_each_positive_of_a_query_once(found: list[tuple[str, str, int]], size: int, seed: int) -> None:
    rows = [(query, positive, str(i)) for query, positive, times in found for i in range(times)]
    batches = SimilarBatches(columns(rows), size, seed)
    seen = set()
    for epoch in range(max(Counter(row[:2] for row in rows).values())):
        batches.epoch = epoch
        made = [list(map(int, batch)) for batch in batches]
        assert [list(map(int, batch)) for batch in batches] == made
        assert len(made) == len(batches)
        assert sorted(map(len, made))[1:] == [size] * (len(made) - 1)
        taken = [rows[row][:2] for batch in made for row in batch]
        assert sorted(taken) == sorted({row[:2] for row in rows})
        seen.update(row for batch in made for row in batch)
    assert seen == set(range(len(rows)))


def test_batches_are_of_queries_alike_and_of_others_in_every_epoch() -> None:
    of_ships = [(f"how ships {n}", f"ships number {n}") for n in range(10, 26)]
    of_cats = [(f"why cats {n}", f"cats number {n}") for n in range(50, 66)]
    batches = SimilarBatches(columns([*of_ships, *of_cats]), 8, 0)
    epochs = []
    for epoch in range(2):
        batches.epoch = epoch
        made = list(batches)
        assert [len({row < 16 for row in batch}) for batch in made] == [1] * 4
        epochs.append({frozenset(map(int, batch)) for batch in made})
    assert epochs[0] != epochs[1]
    assert list(map(list, SimilarBatches(columns([*of_ships, *of_cats]), 8, 1))) != list(map(list, made))


def test_positives_of_one_query_stand_apart_while_there_are_others() -> None:
    rows = [("cats", f"cats purr {n}") for n in range(4)] + [(f"ships {n}", f"ships sail {n}") for n in range(12)]
    made = list(SimilarBatches(columns(rows), 4, 0))
    assert sum(sum(row < 4 for row in batch) > 1 for batch in made) <= 1


QUERIES = ["how do cats purr", "where do ships sail", "what do cats eat"]
POSITIVES = ["Cats purr by their larynx.", "Ships sail on all seas.", "Cats eat mice, and fish."]
NEGATIVES = ["Dogs bark at cats.", "Sailors have ships.", "Mice eat cheese."]


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(str(tiny_bert), device="cpu").eval()


@pytest.mark.parametrize(("kind", "more"), [(InBatchLoss, {}), (CachedInBatchLoss, {"mini_batch_size": 4})])
@pytest.mark.parametrize("own", [[POSITIVES], [POSITIVES, NEGATIVES]])
def test_with_all_documents_of_the_batch_it_is_sentence_transformers_loss(
    kind: type, more: dict[str, int], own: list[list[str]], model: CrossEncoder
) -> None:
    data = columns(list(zip(QUERIES, *own, strict=True)))
    theirs = losses.MultipleNegativesRankingLoss(model, num_negatives=None, scale=1, activation_fn=torch.nn.Identity())
    results = []
    for loss in (theirs, in_batch_loss(kind, model, data, 100, **more)):
        model.zero_grad()
        value = loss([QUERIES, *own], None)
        value.backward()
        results.append((value.item(), torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-5, rtol=1e-4)


def test_what_is_relevant_for_a_query_is_never_its_negative(model: CrossEncoder, tiny_bert: Path) -> None:
    """The first query's other positive, not in this batch as its own, stands there as the third's."""
    data = columns([*zip(QUERIES, POSITIVES, strict=True), (" How do  CATS purr", POSITIVES[2])])
    found = in_batch_loss(InBatchLoss, model, data, 100)([QUERIES, POSITIVES], None)
    against = {0: [1], 1: [0, 2], 2: [0, 1]}  # by hand
    expected = []
    for query, others in against.items():
        logits = transformers_logits(tiny_bert, [(QUERIES[query], POSITIVES[i]) for i in (query, *others)])
        expected.append(np.log(np.exp(logits).sum()) - logits[0])
    assert found.item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_query_for_which_all_of_the_batch_is_relevant_learns_nothing(model: CrossEncoder) -> None:
    rows = [("cats", POSITIVES[0]), ("cats", POSITIVES[2])]
    loss = in_batch_loss(InBatchLoss, model, columns(rows), 100)(list(map(list, zip(*rows, strict=True))), None)
    assert loss.item() == 0


@pytest.mark.parametrize(("kind", "more"), [(InBatchLoss, {}), (CachedInBatchLoss, {"mini_batch_size": 2})])
def test_a_positive_in_a_negatives_place_and_a_negative_given_twice_change_nothing(
    kind: type, more: dict[str, int], model: CrossEncoder
) -> None:
    data = columns(list(zip(QUERIES, POSITIVES, strict=True)))

    def learnt(*own: list[str]) -> tuple[float, torch.Tensor]:
        loss = in_batch_loss(kind, model, data, 100, **more)
        model.zero_grad()
        value = loss([QUERIES, POSITIVES, *own], None)
        value.backward()
        return value.item(), torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])

    for one, other in (((), (POSITIVES, POSITIVES)), ((NEGATIVES,), (NEGATIVES, NEGATIVES))):
        (value, gradient), (again, same) = learnt(*one), learnt(*other)
        assert value == pytest.approx(again, abs=1e-6)
        torch.testing.assert_close(gradient, same, atol=1e-5, rtol=1e-4)


def test_so_many_documents_of_the_batch_as_asked(model: CrossEncoder) -> None:
    loss = in_batch_loss(InBatchLoss, model, columns(list(zip(QUERIES, POSITIVES, strict=True))), 1)
    seen = set()
    for _ in range(200):
        (column,) = loss.get_in_batch_negatives(QUERIES, [POSITIVES])
        assert all(text in POSITIVES and text != own for text, own in zip(column, POSITIVES, strict=True))
        seen.add(tuple(column))
    assert len(seen) == 8
