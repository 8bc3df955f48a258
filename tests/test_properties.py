"""What holds for any text, in any company: hypothesis makes up the text and the company."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder
from crossrank.engines.load import load_model

# Fixed examples, so that a failure is the same on every machine; the fixtures are read-only.
few = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# The odd ends of Unicode, more often than chance would bring them.
ODD = [
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "\r\n\t",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202e",
    "\u0301" * 9,
    "a\u0308" * 50,
]
ODD += [
    "👩\u200d👩\u200d👧\u200d👦",
    "🇩🇪",
    "𝔘𝔫𝔦",
    "\U0010ffff",
    "İı",
    "ﬁ",
    "x" * 5000,
    "漢" * 700,
    "[CLS] [SEP] [PAD]",
    "<s></s><pad>",
]
odd = st.sampled_from(ODD)
anything = st.one_of(
    odd, st.text(max_size=60), st.text(st.characters(codec=None), max_size=30), st.sampled_from(texts.passages())
)
mixed = st.lists(anything, max_size=3).map(" ".join)

DOCUMENTS = [passage[:300] for _, passage in texts.pairs(24)]
QUERY = "how are values sorted"


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CrossEncoder]:
    """One of each kind of tokenizer, and of each kind of attention."""
    made = {
        "bert": tiny_bert,
        "roberta": make_checkpoint(tmp_path_factory.mktemp("roberta"), "roberta", tokenizer="byte_bpe"),
        "xlm-roberta": make_checkpoint(tmp_path_factory.mktemp("xlmr"), "xlm-roberta", tokenizer="unigram"),
        "modernbert": make_checkpoint(tmp_path_factory.mktemp("modernbert"), "modernbert"),
        "deberta-v2": make_checkpoint(tmp_path_factory.mktemp("deberta"), "deberta-v2"),
    }
    return {name: CrossEncoder(folder, precision="float32") for name, folder in made.items()}


KINDS = ["bert", "roberta", "xlm-roberta", "modernbert", "deberta-v2"]


@pytest.mark.parametrize("kind", KINDS)
@few
@given(pairs=st.lists(st.tuples(mixed, mixed), min_size=1, max_size=4))
def test_any_text_gets_a_finite_score(kind: str, pairs: list[tuple[str, str]], models: dict[str, CrossEncoder]) -> None:
    result = models[kind].score(pairs)
    assert result.logits.shape == (len(pairs), 1)
    assert np.isfinite(result.logits).all()
    assert np.all((result.scores >= 0) & (result.scores <= 1))
    assert len(models[kind].rank(pairs[0][0], [document for _, document in pairs])) == len(pairs)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    others=st.lists(mixed, max_size=6),
    document=mixed,
    seed=st.integers(0, 99),
    batch_size=st.sampled_from([1, 2, 5, None]),
)
def test_a_score_does_not_depend_on_its_company(
    kind: str, others: list[str], document: str, seed: int, batch_size: int | None, models: dict[str, CrossEncoder]
) -> None:
    model = models[kind]
    alone = model.score([(QUERY, document)]).logits[0]
    company = [*others, document]
    random.Random(seed).shuffle(company)
    together = model.score([(QUERY, text) for text in company], batch_size=batch_size).logits
    assert np.abs(together[company.index(document)] - alone).max() <= 1e-5


@few
@given(seed=st.integers(0, 10_000), batch_size=st.sampled_from([1, 3, 7, None]))
def test_scores_follow_their_documents_through_any_order(
    seed: int, batch_size: int | None, models: dict[str, CrossEncoder]
) -> None:
    order = random.Random(seed).sample(range(len(DOCUMENTS)), len(DOCUMENTS))
    scores = models["bert"].score([(QUERY, text) for text in DOCUMENTS]).logits
    shuffled = models["bert"].score([(QUERY, DOCUMENTS[i]) for i in order], batch_size=batch_size).logits
    assert np.abs(shuffled - scores[order]).max() <= 1e-5


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 0.05), ("int8", 0.05)])
def test_padding_does_not_count(precision: str, most: float, tiny_bert: Path) -> None:
    # bfloat16 promises less: a sum over more columns may be taken in another order, and is rounded to eight bits.
    model = load_model(tiny_bert, device=None, precision=precision, max_length=None, num_threads=None)
    encoded = model.encoder.encode([(QUERY, "a document of some words")])
    inputs = model.encoder.assemble(encoded, np.array([0])).inputs
    narrow = _forward(model, inputs)
    for extra in (1, 8, 100, 400):
        wide = {name: np.pad(array, ((0, 2), (0, extra))) for name, array in inputs.items()}
        assert np.abs(_forward(model, wide)[:1] - narrow).max() <= most


def _forward(model: object, inputs: dict[str, np.ndarray]) -> np.ndarray:
    from crossrank.tokenization.batching import Batch

    return model.engine.forward(Batch(inputs, np.arange(len(inputs["input_ids"])), 0))


@few
@given(picks=st.lists(st.integers(0, 7), max_size=30), top_k=st.one_of(st.none(), st.integers(1, 40)))
def test_rank_is_a_stable_permutation(picks: list[int], top_k: int | None, models: dict[str, CrossEncoder]) -> None:
    documents = [DOCUMENTS[i] for i in picks]  # with many repeats, so that there are ties
    rows = models["bert"].rank(QUERY, documents, top_k=top_k)
    full = models["bert"].rank(QUERY, documents)
    assert sorted(row["corpus_id"] for row in full) == list(range(len(documents)))
    assert rows == full[: len(documents) if top_k is None else top_k]
    for first, second in pairwise(full):
        assert first["score"] >= second["score"]
        if documents[first["corpus_id"]] == documents[second["corpus_id"]]:
            assert first["score"] == second["score"]
            assert first["corpus_id"] < second["corpus_id"]
