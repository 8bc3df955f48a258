"""Checkpoints that can't be used say why: the key and the value, or the tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from checkpoints import edit_config, make_checkpoint
from crossrank import CheckpointError, CrossEncoder, UnsupportedModelError


@pytest.fixture
def copy(tiny_bert: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    return folder


def refusal(folder: Path, kind: type[Exception] = UnsupportedModelError) -> str:
    with pytest.raises(kind) as caught:
        CrossEncoder(folder).load()
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["BertModel", "BertForMaskedLM", "BertForTokenClassification", "BertForMultipleChoice"]
)
def test_a_model_for_another_task_is_no_reranker(name: str, copy: Path) -> None:
    edit_config(copy, architectures=[name])
    message = refusal(copy)
    assert "not a reranker" in message
    assert name in message
    assert "ForSequenceClassification" in message


def test_a_body_that_says_nothing_of_itself_is_no_reranker(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    save_file(kept, copy / "model.safetensors")
    edit_config(copy, architectures=None)
    message = refusal(copy)
    assert "not a reranker" in message
    assert "classifier." in message


def test_an_unknown_architecture_lists_the_known_ones(copy: Path) -> None:
    edit_config(copy, model_type="longformer")
    message = refusal(copy)
    for name in ("longformer", "bert", "xlm-roberta", "modernbert", "deberta-v2"):
        assert repr(name) in message or name in message


def test_a_missing_key_is_named(copy: Path) -> None:
    edit_config(copy, intermediate_size=None)
    assert "'intermediate_size'" in refusal(copy, CheckpointError)


def test_weights_of_another_shape_are_named(copy: Path) -> None:
    edit_config(copy, intermediate_size=48)
    message = refusal(copy, CheckpointError)
    assert "bert.encoder.layer.0.intermediate.dense.weight" in message
    assert "(64, 32)" in message
    assert "(48, 32)" in message


def test_missing_weights_are_named(copy: Path) -> None:
    edit_config(copy, num_hidden_layers=3)
    assert "bert.encoder.layer.2.attention.self.query.weight" in refusal(copy, CheckpointError)


def test_a_number_of_labels_that_the_head_does_not_have(copy: Path) -> None:
    edit_config(copy, id2label={"0": "no", "1": "yes"})
    message = refusal(copy, CheckpointError)
    assert "classifier.weight" in message
    assert "(2, 32)" in message


def test_heads_that_do_not_divide_the_hidden_size(copy: Path) -> None:
    edit_config(copy, num_attention_heads=5)
    assert "contradicts itself" in refusal(copy, CheckpointError)


@pytest.mark.parametrize(
    ("model_type", "edits", "words"),
    [
        ("bert", {"hidden_act": "quick_gelu"}, ("quick_gelu", "gelu_new")),
        ("bert", {"position_embedding_type": "relative_key"}, ("position_embedding_type", "relative_key")),
        ("roberta", {"is_decoder": True}, ("is_decoder", "True")),
        ("modernbert", {"classifier_pooling": "max"}, ("classifier_pooling", "max")),
        ("modernbert", {"layer_types": ["full_attention"]}, ("layer_types", "full_attention")),
        ("modernbert", {"layer_types": ["chunked_attention"] * 4}, ("layer_types", "chunked_attention")),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope_scaling", "linear")),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 10.0}}},
            ("rope_type", "yarn"),
        ),
        ("deberta-v2", {"conv_kernel_size": 3}, ("conv_kernel_size", "3")),
        ("deberta-v2", {"attention_head_size": 16}, ("attention_head_size", "16")),
        ("deberta-v2", {"pooler_hidden_size": 16}, ("pooler_hidden_size", "16")),
    ],
)
def test_variants_without_a_graph(
    model_type: str, edits: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path, model_type)
    edit_config(folder, **edits)
    message = refusal(folder)
    for word in words:
        assert word in message


def test_code_from_a_checkpoint_is_not_run(copy: Path) -> None:
    edit_config(copy, auto_map={"AutoModel": "modeling.Model"})
    assert "never runs code" in refusal(copy)
    assert "auto_map" in json.loads((copy / "config.json").read_text())
