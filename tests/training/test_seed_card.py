"""The published run of 45 pairs, in a tiny shape: its steps, its schedule and what its card says."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "seed_card.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("seed_card", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_run_of_the_card(example: Any, make_pairs: Callable[..., Path], tiny_bert: Path, tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs.jsonl", 9, 4)
    example.main([str(pairs), "--base", str(tiny_bert), "--output", str(tmp_path / "model")])
    with (tmp_path / "model/training_log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    steps = np.array([int(row["step"]) for row in rows])
    assert steps[-1] == 45
    # Linear to 0 over 45 steps; what is logged at a step is the rate that the step was taken with.
    rates = np.array([float(row["learning_rate"]) for row in rows])
    np.testing.assert_allclose(rates, 5e-5 * (1 - (steps - 1) / 45), rtol=1e-6)
    card = ModelCard.load(tmp_path / "model/README.md")
    assert {"dataset_size:45", "loss:BinaryCrossEntropyLoss", "cross-encoder", "reranker"} <= set(card.data.tags)
    for said in (
        "**Maximum Sequence Length:** 128 tokens",
        "`per_device_train_batch_size`: 1",
        "`num_train_epochs`: 1",
        '"activation_fn": "torch.nn.modules.linear.Identity"',
        '"pos_weight": null',
    ):
        assert said in card.text
    before, after = load_file(tiny_bert / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    assert not np.array_equal(
        before["bert.embeddings.word_embeddings.weight"], after["bert.embeddings.word_embeddings.weight"]
    )


def test_a_random_base_is_one(example: Any, tmp_path: Path) -> None:
    from crossrank import CrossEncoder
    from crossrank.checkpoint.source import BUNDLED

    tiny = {**example.MINILM_L12, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48}
    info = CrossEncoder(example.random_base(tmp_path / "base", BUNDLED, tiny)).info()
    assert (info["layers"], info["hidden_size"]) == (2, 24)
