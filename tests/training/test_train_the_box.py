"""The bundled model learns: what it reads once, what it keeps, and where it cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder

from crossrank import CrossEncoder
from crossrank.checkpoint.source import BUNDLED
from crossrank.errors import InputError
from crossrank.training import base_model, split_bert_torch
from crossrank.training.data_split import count_long, split_data
from training_runs import PAIRS, MakePairs, quick, run, weights


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, make_pairs: MakePairs) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


def test_the_model_in_the_box(make_pairs: MakePairs, tmp_path: Path) -> None:
    """Its head learns, its body stays what is stored; what is saved loads and scores alike everywhere."""
    pairs = make_pairs(tmp_path / "p.jsonl", 4, 1)
    run(pairs, None, tmp_path / "m", quick(epochs=1, max_length=64, learning_rate=1e-3))
    chosen = [
        ("how is text wrapped", "To wrap a text is to break its paragraphs."),
        ("sort", "Sorting a list in Python."),
    ]
    mine = CrossEncoder(tmp_path / "m", precision="float32")
    theirs = TheirCrossEncoder(str(tmp_path / "m"), device="cpu")
    np.testing.assert_allclose(mine.predict(chosen), theirs.predict(chosen), rtol=0, atol=1e-4)
    assert np.abs(mine.score(chosen).logits - CrossEncoder(precision="float32").score(chosen).logits).max() > 0.01
    assert mine.info()["activation"] == "sigmoid"


def test_lora_in_the_model_in_the_box(pairs: Path, tmp_path: Path) -> None:
    run(pairs, None, tmp_path / "model", quick(lora_rank=2, epochs=0.1))
    box = CrossEncoder(precision="float32").score(PAIRS[:8]).logits
    found = CrossEncoder(tmp_path / "model", precision="float32").score(PAIRS[:8]).logits
    assert 0.001 < np.abs(found - box).max() < 20


@pytest.mark.parametrize(("freeze", "layers"), [("auto", 6), ("half", 3), ("4", 4)])
def test_frozen_layers_read_each_text_once_and_alone(
    freeze: str, layers: int, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    lower = split_bert_torch.SplitBertForSequenceClassification.lower_layers

    def counting(self: Any, ids: torch.Tensor, layers: int) -> torch.Tensor:
        assert len(ids) == 1
        read.append(tuple(ids[0].tolist()))
        return lower(self, ids, layers)

    base = base_model.find_base(None, pairs.parent / "work")
    model = base_model.open_model(base, quick(), "cpu")
    assert model.model.kept is None
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    base_model.freeze(model, base, quick(freeze=freeze))
    assert model.model.kept.layers == layers
    monkeypatch.setattr(split_bert_torch.SplitBertForSequenceClassification, "lower_layers", counting)
    for batch_size in (1, 7, 32):
        found = model.predict(PAIRS, activation_fn=torch.nn.Identity(), batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert len(read) == len(set(read)) > 20
    # Without room they are read again.
    model.model.kept = split_bert_torch.KeptStates(layers, most_bytes=0)
    before = len(read)
    np.testing.assert_allclose(
        model.predict(PAIRS, activation_fn=torch.nn.Identity(), batch_size=1), expected, rtol=0, atol=1e-4
    )
    assert len(read) == before + 2 * len(PAIRS)


@pytest.mark.parametrize("freeze", ["none", "embeddings"])
def test_where_the_lowest_layer_learns_nothing_is_kept(freeze: str, pairs: Path) -> None:
    base = base_model.find_base(None, pairs.parent / "work")
    model = base_model.open_model(base, quick(), "cpu")
    base_model.freeze(model, base, quick(freeze=freeze))
    assert model.model.kept is None


def test_a_text_is_read_once_in_a_batch_and_learns_from_all_its_pairs(pairs: Path) -> None:
    """Gradients are those of reading every pair by itself."""
    base = base_model.find_base(None, pairs.parent / "work")
    model = base_model.open_model(base, quick(), "cpu")
    texts = [("undo a commit", one) for one in ("git revert takes a commit back", "git log", "git log")]

    def gradients(batches: list[list[tuple[str, str]]]) -> dict[str, torch.Tensor]:
        model.model.zero_grad()
        rows: list[int] = []
        hook = model.model.bert.register_forward_pre_hook(
            lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True
        )
        for batch in batches:
            features = model.tokenizer(batch, padding=True, return_tensors="pt")
            model.model(**features).logits.sum().backward()
        hook.remove()
        assert sum(rows) == (3 if len(batches) == 1 else 6)  # two documents and a query; three of each
        return {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}

    together, apart = gradients([texts]), gradients([[one] for one in texts])
    assert together.keys() == apart.keys()
    for name, gradient in apart.items():
        np.testing.assert_allclose(together[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max() + 1))


def test_what_is_cut_while_it_learns_is_read_afterwards(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "p.jsonl", 4, 1)
    for name, given in (("cut", {"max_length": 20}), ("read", {"max_length": None, "train_length": 20})):
        run(pairs, None, tmp_path / name, quick(epochs=1, freeze="5", **given))
    assert CrossEncoder(tmp_path / "cut").max_length == 20
    assert CrossEncoder(tmp_path / "read").max_length == 449
    with pytest.raises(InputError, match="max_length=450 is more than this model's 449 tokens of a document"):
        run(pairs, None, tmp_path / "more", quick(max_length=450))
    cut, read = weights(tmp_path / "cut"), weights(tmp_path / "read")
    for name, tensor in cut.items():
        np.testing.assert_array_equal(tensor, read[name], err_msg=name)


@pytest.mark.parametrize("max_length", [None, 64])
def test_long_texts_are_cut_alike_in_both_libraries(
    max_length: int | None, make_pairs: MakePairs, tmp_path: Path
) -> None:
    """Of a model that started from the bundled one: one cuts texts by themselves, the other the pair."""
    run(make_pairs(tmp_path / "p.jsonl", 4, 1), None, tmp_path / "m", quick(epochs=1, max_length=max_length))
    words = ["how", "is", "a", "long", "text", "wrapped", "in", "python"]
    queries = [" ".join(words[:count] * times) for count, times in ((3, 1), (8, 2), (8, 7))]
    documents = ["Wrap text.", *(" ".join(reversed(words * times)) for times in (7, 8, 9, 55, 57, 90))]
    chosen = [(query, document) for query in queries for document in documents]
    # And a query that is cut itself.
    chosen += [(" ".join(words * times), "Wrap text.") for times in (8, 20)]
    scores = CrossEncoder(tmp_path / "m", precision="float32").score(chosen)
    assert (scores.document_tokens_cut > 0).any()
    theirs = TheirCrossEncoder(str(tmp_path / "m"), device="cpu")
    found = theirs.predict(chosen, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(scores.logits.ravel(), found, rtol=0, atol=1e-4)
    assert CrossEncoder(tmp_path / "m").max_length == (max_length or 449)


@pytest.mark.parametrize(("words", "cut"), [(446, 0), (448, 1)])
def test_a_document_that_is_cut_is_told(words: int, cut: int, tmp_path: Path) -> None:
    """Of a pair that would fit in 512 tokens: a document has 449 of them, two of which frame it."""
    rows = [{"query": "q", "document": " ".join(["word"] * n), "label": label} for n, label in ((words, 1), (3, 0))]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = split_data(tmp_path / "p.jsonl", quick(max_length=None))
    count_long(plan, BUNDLED, quick(max_length=None))
    assert [one.count for one in plan.report.findings if "documents of more than 449 tokens" in one.what] == [cut]
