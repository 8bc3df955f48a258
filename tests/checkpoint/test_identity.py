"""The identity of a model: every file that scores depend on, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from checkpoints import make_checkpoint
from crossrank import CheckpointError, CrossEncoder
from crossrank.checkpoint.identity import LoadedFiles, model_identity


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def test_a_copy_has_the_same_identity_and_what_is_beside_the_model_does_not_count(model: Path, tmp_path: Path) -> None:
    before = model_identity(model)
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    (copy / "README.md").write_text("a model card")
    (copy / "pytorch_model.bin").write_bytes(b"a pickle, which is never read")
    (copy / "checkpoint-10").mkdir()
    (copy / "checkpoint-10" / "model.safetensors").write_bytes(b"a save point of training")
    assert model_identity(copy) == before
    assert len(before) == 16
    assert int(before, 16) >= 0


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "spm.model",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "chat_template.jinja",
        "1_LogitScore/config.json",
        "1_Dense/model.safetensors",
    ],
)
def test_each_file_that_scores_depend_on_changes_it(model: Path, name: str) -> None:
    before = model_identity(model)
    path = model / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.is_file() else b"") + b"\n")
    assert model_identity(model) != before


def test_exported_graphs_count_only_where_there_are_no_safetensors(model: Path) -> None:
    before = model_identity(model)
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"a graph")
    assert model_identity(model) == before
    (model / "model.safetensors").unlink()
    alone = model_identity(model)
    (model / "onnx" / "model.onnx").write_bytes(b"another")
    assert model_identity(model) != alone


def test_a_calibration_refuses_a_model_whose_tokenizer_settings_changed(model: Path) -> None:
    # do_lower_case of tokenizer_config.json changes scores and was not part of the earlier fingerprint.
    before = CrossEncoder(model, precision="float32").binding()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    assert CrossEncoder(model, precision="float32").binding().identity != before.identity


def test_the_identity_is_that_of_the_loaded_files(model: Path, tmp_path: Path) -> None:
    known, late = CrossEncoder(model).load(), CrossEncoder(model).load()
    identity = known.identity
    assert identity == model_identity(model) == known.info()["identity"] == known.binding().identity
    other = make_checkpoint(tmp_path / "other", "bert", seed=3)
    (other / "model.safetensors").replace(model / "model.safetensors")
    assert known.identity == identity
    with pytest.raises(CheckpointError, match=r"model\.safetensors changed after the model was loaded.*[Ll]oad"):
        _ = late.identity
    assert CrossEncoder(model).identity == model_identity(model) != identity


def test_a_file_that_comes_or_goes_is_noticed(model: Path) -> None:
    files = LoadedFiles(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(CheckpointError, match="chat_template"):
        files.check_unchanged()
