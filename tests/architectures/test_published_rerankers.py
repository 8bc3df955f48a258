"""docs/models.md: what it says of each published reranker, tried on a small checkpoint of the same architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import texts
from checkpoints import edit_config, make_checkpoint
from crossrank import CrossEncoder
from crossrank.errors import UnsupportedModelError
from decoder_checkpoints import make_decoder
from own_code_checkpoints import make_gte, make_jina_bert, make_jina_xlm_roberta, publish_gte, publish_jina_xlm_roberta

ROOT = Path(__file__).parents[2]
PAIRS = [(query, passage[:400]) for query, passage in texts.pairs(6)]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def architectures(heading: str) -> list[str]:
    """The second column of a table, without repetitions."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return sorted({row[1].strip() for row in rows[1:]})


CPU, DECODERS, REFUSED = (
    architectures("On the CPU, through OpenVINO"),
    architectures("Decoders, through torch"),
    architectures("Refused, and what to use instead"),
)


def sentence_transformers_logits(folder: Path) -> NDArray[np.float32]:
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    found = Theirs(str(folder), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    return np.asarray(found, np.float32).reshape(len(PAIRS), -1)


def plain(model_type: str, tokenizer: str = "wordpiece", **config: Any) -> Callable[[Path], Path]:
    return lambda folder: make_checkpoint(folder, model_type, tokenizer=tokenizer, **config)


def ettin(folder: Path) -> Path:
    """The modules as the card of cross-encoder/ettin-reranker-68m-v1 prints them."""
    import torch
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    bare = make_checkpoint(folder / "bare", "modernbert")
    torch.manual_seed(0)
    modules = [
        Transformer(str(bare), transformer_task="feature-extraction"),
        Pooling(32, pooling_mode="cls"),
        Dense(32, 32, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    model = Theirs(modules=modules, device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(folder / "modular"), create_model_card=False)
    return folder / "modular"


def with_logit_score(model_type: str, *, no: str | None) -> Callable[[Path], Path]:
    """A decoder saved by sentence-transformers, with a template that puts the document first, as ctxl-rerank's."""

    def make(folder: Path) -> Path:
        from sentence_transformers import CrossEncoder as Theirs
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        template = (
            '<Document> {{ (messages | selectattr("role", "eq", "document") | first).content }}\n'
            '<Query> {{ (messages | selectattr("role", "eq", "query") | first).content }} ??\n'
        )
        bare = make_decoder(folder / "bare", model_type, chat_template=template)
        body = Transformer(str(bare), transformer_task="text-generation")
        ids = body.tokenizer.convert_tokens_to_ids
        score = LogitScore(ids("yes"), ids(no) if no else None)
        Theirs(modules=[body, score], device="cpu").save_pretrained(str(folder / "modular"), create_model_card=False)
        return folder / "modular"

    return make


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "bert": plain("bert"),
    "bert, 2 labels": plain("bert", num_labels=2),
    "camembert": plain("camembert", "unigram"),
    "deberta-v2": plain("deberta-v2"),
    "deberta-v2, 3 labels": plain("deberta-v2", num_labels=3),
    "electra": plain("electra"),
    "modernbert": plain("modernbert"),
    "modernbert + modules": ettin,
    "modernbert, unigrams": plain("modernbert", "unigram"),
    "modernbert, mean pooling": plain("modernbert", classifier_pooling="mean"),
    "roberta": plain("roberta", "byte_bpe"),
    "roberta, 3 labels": plain("roberta", "byte_bpe", num_labels=3),
    "xlm-roberta": plain("xlm-roberta", "unigram"),
    "qwen2 + LogitScore": with_logit_score("qwen2", no="no"),
    "qwen3 + LogitScore": with_logit_score("qwen3", no="no"),
    "qwen3 + LogitScore, yes alone": with_logit_score("qwen3", no=None),
    "qwen3 classifier": lambda folder: make_decoder(folder, "qwen3", head="SequenceClassification"),
}
# Whose references need more than sentence-transformers; what the file has to mention.
ELSEWHERE = {
    "new": ("test_without_remote_code.py", "test_gte_as_published"),
    "jina_bert": ("test_without_remote_code.py", "test_jina_bert"),
    "xlm_roberta_flash": ("test_without_remote_code.py", "test_jina_xlm_roberta"),
    "gemma": ("../engines/test_decoders.py", "gemma"),
    "ONNX": ("../engines/test_exported.py", "onnx"),
}


def test_every_row_that_runs_has_a_test() -> None:
    assert set(CPU) | set(DECODERS) == set(BUILDERS) | set(ELSEWHERE)
    for name, mention in ELSEWHERE.values():
        assert mention in (Path(__file__).parent / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("architecture", sorted(BUILDERS))
def test_scores_as_sentence_transformers(architecture: str, tmp_path: Path) -> None:
    folder = BUILDERS[architecture](tmp_path)
    expected = sentence_transformers_logits(folder)
    assert expected.std(axis=0).min() > 0.01
    model = CrossEncoder(folder, precision="float32")
    np.testing.assert_allclose(model.score(PAIRS).logits, expected, atol=1e-4)
    assert model.info()["engine"] == ("openvino" if architecture in CPU else "torch")


@pytest.mark.parametrize("architecture", ["new", "jina_bert", "xlm_roberta_flash"])
def test_what_brings_code_runs_on_the_cpu(architecture: str, tmp_path: Path) -> None:
    if architecture == "new":
        publish_gte(make_gte(tmp_path))
    elif architecture == "jina_bert":
        make_jina_bert(tmp_path)
    else:
        publish_jina_xlm_roberta(make_jina_xlm_roberta(tmp_path))
    info = CrossEncoder(tmp_path).info()
    assert (info["engine"], info["architecture"]) == ("openvino", architecture)


def other_code(name: str, **config: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_checkpoint(folder, "bert")
        edit_config(folder, auto_map={"AutoModel": name}, **config)

    return make


def unknown(model_type: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_checkpoint(folder, "bert")
        edit_config(folder, model_type=model_type, architectures=None)

    return make


def colbert(folder: Path) -> None:
    make_checkpoint(folder, "bert")
    edit_config(folder, architectures=["HF_ColBERT"])
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("classifier.")}
    save_file(kept, path)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "qwen3 with code of its own": (other_code("modeling.JinaForRanking", model_type="qwen3"), "never runs code"),
    "llama_bidirec with code of its own": (
        other_code("llama_bidirectional_model.LlamaBidirectionalModel", model_type="llama_bidirec"),
        "never runs code",
    ),
    "minicpm with code of its own": (other_code("modeling_minicpm.MiniCPM", model_type="minicpm"), "never runs code"),
    "deberta-v2 with code of its own": (other_code("modeling.Provence", model_type="deberta-v2"), "never runs code"),
    "qwen2_vl": (unknown("qwen2_vl"), "'qwen2_vl' is not supported"),
    "code of its own, type not seen": (other_code("modeling.Reranker", model_type="new_type"), "never runs code"),
    "mt5": (unknown("mt5"), "'mt5' is not supported"),
    "t5": (unknown("t5"), "'t5' is not supported"),
    "deberta": (unknown("deberta"), "'deberta' is not supported"),
    "mistral without a known prompt": (
        lambda folder: make_decoder(folder, "mistral"),
        "does not name its prompt",
    ),
    "bert without a classifier": (colbert, "is not a reranker"),
}


def test_every_refused_row_has_a_test() -> None:
    assert set(REFUSED) == set(REFUSALS)


@pytest.mark.parametrize("architecture", sorted(REFUSALS))
def test_refusals(architecture: str, tmp_path: Path) -> None:
    build, message = REFUSALS[architecture]
    build(tmp_path)
    with pytest.raises(UnsupportedModelError, match=re.escape(message)):
        CrossEncoder(tmp_path).load()
