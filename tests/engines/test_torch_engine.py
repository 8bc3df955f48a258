from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder
from crossrank.checkpoint.model_config import load_config
from crossrank.engines.load import load_model
from crossrank.engines.torch_engine import TorchDecoderEngine, TorchEngine
from crossrank.errors import CheckpointError, CrossRankError, InputError, UnsupportedModelError
from crossrank.tokenization.batching import Batch
from decoder_checkpoints import make_decoder

PAIRS = texts.pairs(12)


def run(engine: Any, folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> np.ndarray:
    """Score with an engine what the model's own encoder makes of the pairs."""
    encoder = load_model(folder, device=None, precision="float32", max_length=None, num_threads=None).encoder
    encoded = encoder.encode(pairs)
    rows = np.arange(len(encoded.pairs))
    found = [engine.forward(encoder.assemble(encoded, rows[start : start + 5])) for start in range(0, len(rows), 5)]
    return np.concatenate(found)[encoded.inverse]


def transformers_logits(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [model(**tokenizer(*pair, truncation="only_second", return_tensors="pt")).logits[0] for pair in pairs]
    return torch.stack(rows).numpy()


def test_three_ways_agree(tiny_bert: Path) -> None:
    engine = TorchEngine(tiny_bert, device="cpu")
    found = run(engine, tiny_bert)
    assert found.shape == (len(PAIRS), 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, transformers_logits(tiny_bert), atol=1e-4)
    np.testing.assert_allclose(found, CrossEncoder(tiny_bert, precision="float32").score(PAIRS).logits, atol=1e-4)


def test_facts(tiny_bert: Path) -> None:
    before = torch.get_num_threads()
    try:
        engine = TorchEngine(tiny_bert, device="cpu", num_threads=1)
        assert dict(engine.facts) == {"engine": "torch", "device": "cpu", "precision": "float32", "threads": 1}
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_heads_run_in_float32(tmp_path: Path, kind: str) -> None:
    folder = make_checkpoint(tmp_path, kind, **({"position_buckets": 32} if kind == "deberta-v2" else {}))
    engine = TorchEngine(folder, device="cpu", precision="bfloat16")
    ids = torch.arange(10, 34).reshape(2, 12).numpy()
    batch = Batch({"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.arange(2), ids.size)
    logits = engine.forward(batch)
    exact = TorchEngine(folder, device="cpu", precision="float32").forward(batch)
    np.testing.assert_allclose(logits, exact, atol=0.5)
    # bfloat16 numbers have nothing in the lower half of a float32.
    assert (logits.view(np.uint32) & 0xFFFF).all()


def test_token_types(tmp_path: Path) -> None:
    for kind, types in (("bert", True), ("distilbert", False)):
        assert TorchEngine(make_checkpoint(tmp_path / kind, kind), device="cpu").token_types is types


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_no_gpu(tiny_bert: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where there is one, torch is told that there is none; elsewhere this changes nothing.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for folder in (tiny_bert, make_decoder(tmp_path, "qwen3")):
        with pytest.raises(
            InputError, match=rf"device='{device}' is not available: torch .* finds cpu.*Give one of these"
        ):
            CrossEncoder(folder, device=device).load()


def test_no_mps(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="device='mps' is not available"):
        CrossEncoder(tiny_bert, device="mps").load()


@pytest.mark.parametrize("device", ["cuda:x", "tpu", "meta"])
def test_unknown_devices(tiny_bert: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device='{device}'"):
        TorchEngine(tiny_bert, device=device)


def test_int8_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=r"'int8'.*'float32' or 'bfloat16'"):
        TorchEngine(tiny_bert, device="cpu", precision="int8")


def test_the_model_in_the_box_stays_on_the_cpu() -> None:
    with pytest.raises(InputError, match=r"device='cuda'.*runs on the CPU"):
        CrossEncoder(device="cuda").load()


def test_missing_weights_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    kept = {name: array for name, array in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack classifier\.bias, classifier\.weight"):
        TorchEngine(folder, device="cpu")
    save_file(
        {**weights, "classifier.weight": torch.zeros(1, 7)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(CheckpointError, match="transformers can't load"):
        TorchEngine(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="damaged"):
        TorchEngine(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="pickled"):
        TorchEngine(folder, device="cpu")


def test_a_batch_that_can_not_be_run(tiny_bert: Path) -> None:
    ids = np.full((1, 8), 10**6)
    batch = Batch({"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.arange(1), 8)
    with pytest.raises(CrossRankError, match="batch of 1 x 8 tokens on cpu"):
        TorchEngine(tiny_bert, device="cpu").forward(batch)


# ---- the packages are optional ---------------------------------------------------------------------------------------


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_ERROR = """
import sys
sys.modules[sys.argv[1]] = None
from crossrank import CrossEncoder
from crossrank.errors import MissingExtraError
try:
    CrossEncoder(sys.argv[2], device=sys.argv[3]).load()
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["torch", "transformers"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_the_packages(tiny_bert: Path, tmp_path: Path, package: str, device: str) -> None:
    folder = tiny_bert if device == "cuda" else make_decoder(tmp_path, "qwen3")
    message = python(_ERROR, package, str(folder), device)
    assert f"needs the package '{package}'" in message
    assert "pip install 'crossrank[torch]'" in message


def test_encoders_on_the_cpu_import_neither(tiny_bert: Path) -> None:
    code = """
import sys
from crossrank import CrossEncoder
CrossEncoder(sys.argv[1]).predict([("a", "b")])
print([name for name in ("torch", "transformers", "jinja2") if name in sys.modules])
"""
    assert python(code, str(tiny_bert)) == "[]"


@pytest.mark.parametrize("budget", [64, 2048, 16_384])
def test_batches_are_as_large_as_the_engine_wants_them(tiny_bert: Path, budget: int) -> None:
    engine = TorchEngine(tiny_bert, device="cpu")
    assert engine.token_budget == CrossEncoder(tiny_bert).token_budget == 2048
    model = CrossEncoder(tiny_bert, precision="float32")
    model.load()._load().engine.token_budget = budget
    pairs = [("wing flow", "boundary layer " * (i % 9)) for i in range(200)]
    shapes = [batch.inputs["input_ids"].shape for batch in model.batches(model.encode(list(dict.fromkeys(pairs)) * 9))]
    assert all(rows * length <= budget or rows == 1 for rows, length in shapes)
    most = max(rows * length for rows, length in shapes)
    assert most > budget / 2 or len(shapes) == 1
    expected = CrossEncoder(tiny_bert, precision="float32").score(pairs).logits
    np.testing.assert_allclose(model.score(pairs).logits, expected, atol=1e-5)


# ---- on a GPU, where there is one ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_on_a_gpu(tiny_bert: Path, tmp_path: Path, precision: str) -> None:
    tolerance = 1e-3 if precision == "float32" else 0.5
    for folder in (tiny_bert, make_decoder(tmp_path, "qwen3")):
        model = CrossEncoder(folder, device="cuda", precision=precision)
        exact = CrossEncoder(folder, device="cpu", precision="float32").score(PAIRS).logits
        np.testing.assert_allclose(model.score(PAIRS).logits, exact, atol=tolerance)
        assert model.info()["device"] == "cuda"
        assert model.token_budget == 16_384
        assert model.info()["precision"] == ("bfloat16" if precision == "auto" else precision)


def test_decoder_engine_by_itself(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3")
    engine = TorchDecoderEngine(folder, kind="text-generation", tokens=(300, 301), device="cpu")
    turned = TorchDecoderEngine(folder, kind="text-generation", tokens=(301, 300), device="cpu")
    assert load_config(folder).architecture == "Qwen3ForCausalLM"
    np.testing.assert_array_equal(run(engine, folder), -run(turned, folder))
