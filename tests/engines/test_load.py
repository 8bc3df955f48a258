"""Opening a model folder: which precision, which engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import texts
from checkpoints import edit_config
from crossrank import (
    BiEncoder,
    CheckpointError,
    CrossEncoder,
    CrossEncoderStage,
    CrossRankError,
    InputError,
    Reranker,
)
from crossrank.scoring.long_documents import score_long

PAIRS = texts.pairs(6)


def test_the_environment_sets_what_auto_means(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("float32", "bfloat16", "int8"):
        monkeypatch.setenv("CROSSRANK_PRECISION", precision)
        assert CrossEncoder(tiny_bert).info()["precision"] == precision
        assert CrossEncoder(tiny_bert, precision="float32").info()["precision"] == "float32"
    monkeypatch.setenv("CROSSRANK_PRECISION", "fast")
    for make in (CrossEncoder, BiEncoder):
        with pytest.raises(InputError, match="CROSSRANK_PRECISION='fast' is not known: give one of auto, float32"):
            make(tiny_bert)
    CrossEncoder(tiny_bert, precision="int8")
    monkeypatch.setenv("CROSSRANK_PRECISION", "")
    assert CrossEncoder(tiny_bert).info()["precision"] in ("float32", "bfloat16")


def test_more_tokens_than_the_embedding_table_has_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    # transformers raises an IndexError at the first such token; a gather of OpenVINO would read zeros.
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    save_file({**tensors, name: tensors[name][:30000].copy()}, folder / "model.safetensors")
    edit_config(folder, vocab_size=30000)
    with pytest.raises(CheckpointError, match=r"token ids up to 30521.*has 30000 rows"):
        CrossEncoder(folder).load()


@pytest.mark.parametrize(
    "damage",
    [{"name": "bert.encoder.layer.1.output.dense.bias", "value": np.nan}, {"name": "classifier.bias", "value": np.inf}],
)
def test_scores_that_are_not_numbers_are_an_error(damage: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors[damage["name"]] = np.full_like(tensors[damage["name"]], damage["value"])
    save_file(tensors, folder / "model.safetensors")
    model = CrossEncoder(folder)
    for call in (lambda: model.predict(PAIRS), lambda: model.rank("a", ["b", "c"]), lambda: score_long(model, PAIRS)):
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            call()
    with pytest.raises(CrossRankError, match="NaN or infinite"):
        Reranker([CrossEncoderStage(model)], threshold=0.5).rank("a", ["b", "c"])


@pytest.mark.parametrize(
    "change", [{"layer_norm_eps": float("nan")}, {"layer_norm_eps": -5}, {"max_position_embeddings": -1}]
)
def test_numbers_of_a_config_that_give_no_scores(change: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    edit_config(folder, **change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        CrossEncoder(folder).load()


def test_numbers_of_labels(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config.pop("id2label", None)
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": 10**9}))
    with pytest.raises(CheckpointError, match="num_labels=1000000000"):
        CrossEncoder(folder).load()
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": None}))
    with pytest.raises(CheckpointError, match=r"classifier\.weight.*calls for \(2, 32\)"):
        CrossEncoder(folder).load()


@pytest.mark.proc
def test_a_lack_of_memory_is_an_error_of_ours(minilm_checkpoint: Path) -> None:
    # With less and less memory the process either works or says what is wrong; it never shows a bare exception.
    program = (
        "import resource, sys\n"
        "from crossrank import CrossEncoder, CrossRankError\n"
        "model = CrossEncoder(sys.argv[1], num_threads=1, precision='float32').load()\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]), -1))\n"
        "pairs = [(f'query {i}', 'word ' * 500) for i in range(4)]\n"
        "try:\n"
        "    print(len(model.predict(pairs, batch_size=4)))\n"
        "except CrossRankError as error:\n"
        "    print('CrossRankError', error)\n"
    )
    outcomes = []
    for megabytes in (4, 64, 2048):
        ran = subprocess.run(
            [sys.executable, "-c", program, str(minilm_checkpoint), str(megabytes << 20)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        outcomes.append(ran.stdout)
    assert outcomes[0].startswith("CrossRankError")
    assert "memory" in outcomes[0]
    assert outcomes[-1] == "4\n"
