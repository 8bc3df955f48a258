"""safetensors files: read as the safetensors package reads them, and never mapped."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import texts
from checkpoints import edit_config, make_checkpoint
from crossrank import CheckpointError, CrossEncoder, CrossRankWarning
from crossrank.checkpoint.weights import load_weights

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(8)]


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def write(folder: Path, header: str, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)


def entry(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


def test_all_tensors_are_those_of_the_safetensors_package(tiny_bert: Path) -> None:
    expected = load_file(tiny_bert / "model.safetensors")
    weights = load_weights(tiny_bert)
    assert set(weights) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(weights(name, *array.shape), array)


@pytest.mark.parametrize(
    ("header", "size", "says"),
    [
        (json.dumps({"a": entry(0, 8), "b": entry(4, 12)}), 12, "'b' overlaps the tensor before it"),
        (json.dumps({"a": entry(0, 4), "b": entry(8, 12)}), 12, "'b' has 4 stray bytes before it"),
        (json.dumps({"a": entry(0, 4)}), 12, "8 bytes after the last tensor belong to none"),
        (f'{{"a": {json.dumps(entry(0, 4))}, "a": {json.dumps(entry(4, 8))}}}', 8, "the key 'a' (str) twice"),
        (json.dumps({"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}), 0, "does not fit its shape"),
        (json.dumps({"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}), 4, "does not fit its shape"),
        (
            json.dumps({"x.LayerNorm.gamma": entry(0, 4), "x.LayerNorm.weight": entry(4, 8)}),
            8,
            "two tensors 'x.LayerNorm.weight'",
        ),
    ],
)
def test_files_that_the_format_forbids_are_refused(folder: Path, header: str, size: int, says: str) -> None:
    write(folder, header, bytes(size))
    with pytest.raises(CheckpointError) as raised:
        load_weights(folder)
    assert says in str(raised.value)
    assert "download it again" in str(raised.value)


def test_a_file_that_is_overwritten_in_use_changes_no_score(folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(folder, precision="float32").load()
    path = folder / "model.safetensors"
    expected = model.score(PAIRS).logits
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8)
        file.write(bytes(path.stat().st_size // 2))
    fresh = [(query, passage[50:]) for query, passage in PAIRS]
    assert np.array_equal(model.score(PAIRS).logits, expected)
    # A mapped file that becomes shorter ends the process with SIGBUS.
    path.write_bytes(b"")
    assert np.array_equal(model.score(PAIRS).logits, expected)
    assert np.isfinite(model.score(fresh).logits).all()


def test_layers_that_config_json_does_not_count_are_an_error(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"layers that config\.json does not count.*encoder\.layer\.1\."):
        CrossEncoder(folder).load()


@pytest.mark.parametrize("model_type", ["deberta-v2", "roberta", "distilbert", "electra"])
def test_so_it_is_with_each_architecture(model_type: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, model_type)
    CrossEncoder(folder).load()
    edit_config(folder, **{"n_layers" if model_type == "distilbert" else "num_hidden_layers": 1})
    with pytest.raises(CheckpointError, match=r"layers that config\.json does not count"):
        CrossEncoder(folder).load()


def test_tensors_without_a_use_are_named_in_a_warning(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    extra = {"bert.adapter.weight": np.zeros((2, 2), np.float32)}
    # A buffer of older transformers and the head of another task are no sign of anything.
    known = {
        "bert.embeddings.position_ids": np.zeros((1, 4), np.int64),
        "cls.predictions.bias": np.zeros(4, np.float32),
    }
    save_file({**tensors, **known}, folder / "model.safetensors")
    CrossEncoder(folder).load()
    save_file({**tensors, **known, **extra}, folder / "model.safetensors")
    with pytest.warns(CrossRankWarning, match=r"does not use: bert\.adapter\.weight\."):
        CrossEncoder(folder).load()


def test_weights_that_may_not_be_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError):
        CrossEncoder(folder).load()
