"""The same folder, the same pairs, the same scores as sentence-transformers gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
import texts
from checkpoints import edit_config, make_checkpoint

PAIRS = [*((query, passage[:500]) for query, passage in texts.pairs(10)), ("a query", ""), ("a query", "word " * 600)]
IDENTITY = "torch.nn.modules.linear.Identity"


def both(folder: Path) -> tuple[crossrank.CrossEncoder, Any]:
    import sentence_transformers

    return crossrank.CrossEncoder(folder, precision="float32"), sentence_transformers.CrossEncoder(
        str(folder), device="cpu", local_files_only=True
    )


@pytest.mark.parametrize(
    ("edits", "kind"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0.0"}}, "logit"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "tanh"),
        ({"sbert_ce_default_activation_function": IDENTITY}, "logit"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
    ],
)
def test_predict_with_the_checkpoints_own_activation(
    edits: dict[str, Any], kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    edit_config(folder, **edits)
    ours, theirs = both(folder)
    expected = theirs.predict(PAIRS)
    got = ours.predict(PAIRS)
    assert ours.score(PAIRS).kind == kind
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert ours.predict(PAIRS[0]) == pytest.approx(theirs.predict(PAIRS[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("model_type", "tokenizer"), [("roberta", "byte_bpe"), ("xlm-roberta", "unigram"), ("modernbert", "wordpiece")]
)
def test_predict_of_other_architectures(model_type: str, tokenizer: str, tmp_path: Path) -> None:
    ours, theirs = both(make_checkpoint(tmp_path, model_type, tokenizer=tokenizer))
    np.testing.assert_allclose(ours.predict(PAIRS), theirs.predict(PAIRS), atol=1e-5)


def test_predict_of_three_labels(tmp_path: Path) -> None:
    ours, theirs = both(make_checkpoint(tmp_path, "bert", num_labels=3))
    for softmax in (False, True):
        expected = theirs.predict(PAIRS, apply_softmax=softmax)
        assert expected.shape == (len(PAIRS), 3)
        np.testing.assert_allclose(ours.predict(PAIRS, apply_softmax=softmax), expected, atol=1e-5)


def test_rank(tiny_bert: Path) -> None:
    ours, theirs = both(tiny_bert)
    query, documents = PAIRS[0][0], [document for _, document in PAIRS]
    expected = theirs.rank(query, documents, return_documents=True, top_k=5)
    got = ours.rank(query, documents, return_documents=True, top_k=5)
    assert [row["corpus_id"] for row in got] == [row["corpus_id"] for row in expected]
    assert [row["text"] for row in got] == [row["text"] for row in expected]
    assert [row["score"] for row in got] == pytest.approx([float(row["score"]) for row in expected], abs=1e-5)
