"""Checkpoints whose repositories bring code of their own: our graphs compute the same without running it.

The references: for GTE, transformers' own GteForSequenceClassification, and for its stretched rotary positions the
formula of the published code; for Jina's XLM-R, transformers' XLM-R with the weights under its own names; for JinaBERT,
which transformers does not have, the model below, written from its two papers and published config.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import texts
from checkpoints import edit_config, make_checkpoint, transformers_logits
from crossrank import BiEncoder, CrossEncoder
from crossrank.errors import InputError, UnsupportedModelError
from own_code_checkpoints import (
    make_gte,
    make_jina_bert,
    make_jina_xlm_roberta,
    publish_gte,
    publish_jina_xlm_roberta,
    rename,
)

PAIRS = [
    *((query, passage[:600]) for query, passage in texts.pairs(10)),
    ("how is text wrapped", max(texts.passages(), key=len)[:1200]),
    ("how is text wrapped", ""),
    ("", "A document without a query."),
    ("naïve café 東京 🙂", "Ünïcode, “quotes” – and \u200b nothing…"),
]


def ours(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **settings: Any) -> NDArray[np.float32]:
    return CrossEncoder(folder, precision="float32", **settings).score(pairs).logits


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert expected.std(axis=0).min() > 0.1  # else any model would pass
    np.testing.assert_allclose(found, expected, atol=1e-4)


# ---- GTE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_labels": 3},
        {"type_vocab_size": 2, "tokenizer": "wordpiece", "pad_token_id": 0},
        {"type_vocab_size": 0, "hidden_act": "relu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ],
    ids=["as published", "three labels", "two token types", "no token types", "short waves"],
)
def test_gte_as_transformers_saves_it(config: dict[str, Any], tmp_path: Path) -> None:
    folder = make_gte(tmp_path, **config)
    assert_same(ours(folder), transformers_logits(folder, PAIRS))


def test_gte_as_published(tmp_path: Path) -> None:
    folder = make_gte(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 30.0})
    expected = transformers_logits(folder, PAIRS)
    publish_gte(folder, rope_theta=30.0, rope_scaling=None)
    assert_same(ours(folder), expected)
    assert CrossEncoder(folder).max_length == 512


def unpack(old: dict[str, Any]) -> dict[str, Any]:
    new = {}
    for name, tensor in old.items():
        parts = tensor.chunk(3) if "qkv_proj" in name else (tensor,)
        names = [name.replace("qkv_proj", f"{letter}_proj") for letter in "qkv"] if len(parts) == 3 else [name]
        new.update(zip(names, parts, strict=True))
    return new


def test_gte_with_separate_projections(tmp_path: Path) -> None:
    folder = make_gte(tmp_path)
    expected = transformers_logits(folder, PAIRS)
    publish_gte(folder, rope_theta=160_000.0)
    rename(folder, unpack)
    assert_same(ours(folder), expected)


@pytest.mark.parametrize("mixed_b", [None, 0.6])
def test_gte_with_stretched_positions(mixed_b: float | None, tmp_path: Path) -> None:
    """transformers has no such stretching: its model is given the speeds that the published code computes."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theta, factor, size = 20.0, 8.0, 8
    folder = make_gte(tmp_path)
    i = torch.arange(0, size, 2, dtype=torch.float64)
    if mixed_b is None:
        speeds = (theta * factor) ** (-i / size) / factor ** (2 / size)
    else:
        a = math.log(factor) / (size / 2) ** mixed_b
        speeds = theta ** (-i / size) / torch.exp(a * (i / 2 + 1) ** mixed_b)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.gte.rotary_emb.inv_freq.copy_(speeds)
    inputs = AutoTokenizer.from_pretrained(folder)(
        *map(list, zip(*PAIRS, strict=True)),
        truncation="only_second",
        padding=True,
        max_length=512,
        return_tensors="pt",
    )
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    publish_gte(folder, rope_theta=theta, rope_scaling={"type": "ntk", "factor": factor, "mixed_b": mixed_b})
    assert_same(ours(folder), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling", {"type": "yarn", "factor": 2.0}),
        ("layer_norm_type", "rms_norm"),
        ("position_embedding_type", "absolute"),
        ("logn_attention_scale", True),
    ],
)
def test_gte_of_other_kinds(key: str, value: Any, tmp_path: Path) -> None:
    folder = make_gte(tmp_path)
    publish_gte(folder)
    edit_config(folder, **{key: value})
    with pytest.raises(UnsupportedModelError, match=r"yarn|rms_norm|absolute|True"):
        CrossEncoder(folder).load()


# ---- Jina's XLM-R ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"num_labels": 3}, {"type_vocab_size": 2}])
def test_jina_xlm_roberta(config: dict[str, Any], tmp_path: Path) -> None:
    folder = make_jina_xlm_roberta(tmp_path, **config)
    expected = transformers_logits(folder, PAIRS)
    publish_jina_xlm_roberta(folder)
    assert_same(ours(folder), expected)
    assert CrossEncoder(folder).max_length == 512


def test_jina_xlm_roberta_with_rotary_positions(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "xlm-roberta", tokenizer="unigram")
    edit_config(
        folder,
        auto_map={
            "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig"
        },
        position_embedding_type="rotary",
    )
    with pytest.raises(UnsupportedModelError, match="position_embedding_type='rotary'"):
        CrossEncoder(folder).load()


# ---- JinaBERT --------------------------------------------------------------------------------------------------------


# Of 4 heads 2^-2, 2^-4, 2^-6, 2^-8; of 6 these and the first two odd ones of 8: 2^-1, 2^-3 (Press et al., section 3).
SLOPES = {4: [2**-2, 2**-4, 2**-6, 2**-8], 2: [2**-4, 2**-8], 1: [2**-8], 8: [2**-i for i in range(1, 9)]}


def jina_states(folder: Path, ids: list[int], types: list[int]) -> Any:
    """The last states of one text ``[L, H]``: its tokens attend to each other, less a slope for every token between."""
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    w = load_file(folder / "model.safetensors")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    gate_of = {"geglu": torch.nn.functional.gelu, "reglu": torch.relu}[config["feed_forward_type"]]

    def linear(x: Any, name: str) -> Any:
        return torch.nn.functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x: Any, name: str) -> Any:
        return torch.nn.functional.layer_norm(x, (hidden,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    table, kinds = (w[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "token_type"))
    x = norm(table[torch.tensor(ids)] + kinds[torch.tensor(types)], "bert.embeddings.LayerNorm")
    places = torch.arange(len(ids))
    apart = (places[:, None] - places[None, :]).abs()
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}."
        q, k, v = (
            linear(x, f"{layer}attention.self.{name}").reshape(len(ids), heads, -1)
            for name in ("query", "key", "value")
        )
        heard = []
        for head, slope in enumerate(SLOPES[heads]):
            scores = q[:, head] @ k[:, head].T / math.sqrt(hidden / heads) - slope * apart
            heard.append(torch.softmax(scores, -1) @ v[:, head])
        x = norm(
            x + linear(torch.cat(heard, -1), f"{layer}attention.output.dense"), f"{layer}attention.output.LayerNorm"
        )
        gate, value = linear(x, f"{layer}mlp.gated_layers").chunk(2, -1)
        x = norm(x + linear(gate_of(gate) * value, f"{layer}mlp.wo"), f"{layer}mlp.layernorm")
    return x


def jina_logits(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> NDArray[np.float32]:
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    w, tokenizer = load_file(folder / "model.safetensors"), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = []
    for query, document in pairs:
        encoding = tokenizer.encode(query, document)
        first = jina_states(folder, encoding.ids, encoding.type_ids)[0]
        pooled = torch.tanh(w["bert.pooler.dense.weight"] @ first + w["bert.pooler.dense.bias"])
        rows.append((w["classifier.weight"] @ pooled + w["classifier.bias"]).numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    "config", [{}, {"labels": 3}, {"heads": 8}, {"heads": 1}, {"feed_forward": "reglu"}], ids=lambda config: str(config)
)
def test_jina_bert(config: dict[str, Any], tmp_path: Path) -> None:
    folder = make_jina_bert(tmp_path, **config)
    assert_same(ours(folder), jina_logits(folder))


def test_jina_bert_reads_long_texts(tmp_path: Path) -> None:
    folder = make_jina_bert(tmp_path)
    pairs = [("what is read", " ".join(texts.passages())[:4000])]
    scores = CrossEncoder(folder, precision="float32").score(pairs)
    assert CrossEncoder(folder).max_length == 8192
    assert scores.tokens > 600
    np.testing.assert_allclose(scores.logits, jina_logits(folder, pairs), atol=1e-4)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (12, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
    ],
)
def test_slopes_of_other_than_powers_of_two(heads: int, expected: list[float]) -> None:
    """The numbers that the authors of ALiBi give for 8 and for 16 heads, put together as they say."""
    from crossrank.architectures.jina_bert import slopes

    np.testing.assert_allclose(slopes(heads), expected)


@pytest.mark.parametrize(("key", "value"), [("feed_forward_type", "original"), ("position_embedding_type", "absolute")])
def test_jina_bert_of_other_kinds(key: str, value: str, tmp_path: Path) -> None:
    folder = make_jina_bert(tmp_path)
    edit_config(folder, **{key: value})
    with pytest.raises(UnsupportedModelError, match=f"{key}='{value}'"):
        CrossEncoder(folder).load()


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["gte", "jina_bert", "xlm_roberta_flash"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    if request.param == "gte":
        publish_gte(make_gte(folder))
    elif request.param == "jina_bert":
        make_jina_bert(folder)
    else:
        make_jina_xlm_roberta(folder)
        publish_jina_xlm_roberta(folder)
    return folder


def test_a_score_does_not_depend_on_the_batch(published: Path) -> None:
    model = CrossEncoder(published, precision="float32")
    alone = [model.score([pair]).logits[0, 0] for pair in PAIRS]
    np.testing.assert_allclose(model.score(PAIRS).logits[:, 0], alone, atol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.99), ("int8", 0.95)])
def test_the_fast_precisions_agree(precision: str, least: float, published: Path) -> None:
    rough = CrossEncoder(published, precision=precision).score(PAIRS).logits[:, 0]
    assert np.corrcoef(rough, ours(published)[:, 0])[0, 1] > least


def test_the_code_is_never_looked_at(published: Path) -> None:
    for name in ("modeling", "configuration", "modeling_bert", "configuration_bert", "configuration_xlm_roberta"):
        (published / f"{name}.py").write_text("raise SystemExit('this was run')")
    assert np.isfinite(ours(published)).all()


def test_gpus_are_for_what_transformers_knows(published: Path) -> None:
    with pytest.raises(InputError, match=r"device='cuda'.*has code of its own.*runs on the CPU only"):
        CrossEncoder(published, device="cuda").load()


def test_other_code_is_refused(published: Path) -> None:
    edit_config(published, auto_map={"AutoConfig": "modeling_mine.MyConfig"})
    with pytest.raises(UnsupportedModelError, match=r"never runs code from checkpoints.*ettin-reranker.*models\.md"):
        CrossEncoder(published).load()


def test_bi_encoders_of_them(tmp_path: Path) -> None:
    folder = make_jina_bert(tmp_path)
    rename(folder, lambda old: {name[5:]: tensor for name, tensor in old.items() if name.startswith("bert.")})
    edit_config(folder, architectures=["JinaBertModel"])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    sentences = [passage[:300] for passage in texts.passages()[:4]]
    found = BiEncoder(folder, precision="float32").encode(sentences)
    rename(folder, lambda old: {f"bert.{name}": tensor for name, tensor in old.items()})
    for text, vector in zip(sentences, found, strict=True):
        ids = tokenizer.encode(text).ids
        mean = jina_states(folder, ids, [0] * len(ids)).mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_modular_checkpoint_of_gte(tmp_path: Path) -> None:
    """The same head on the same states, whether transformers or we compute them."""
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bare = make_gte(tmp_path / "bare")
    body = Transformer(str(bare), transformer_task="feature-extraction")
    head = Dense(32, 1, activation_function=None, module_output_name="scores")
    model = Theirs(modules=[body, Pooling(32, "mean"), head], device="cpu")
    folder = tmp_path / "modular"
    model.save_pretrained(str(folder), create_model_card=False)
    expected = np.asarray(model.predict(PAIRS, activation_fn=lambda x: x)).reshape(-1, 1)
    assert_same(ours(folder), expected)
    shutil.rmtree(bare)
