"""Encoders with modules behind them, as sentence-transformers saves them: scored by it and by us."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder
from crossrank.errors import CheckpointError, InputError, UnsupportedModelError
from decoder_checkpoints import edit_json

PAIRS = [
    *((query, passage[:600]) for query, passage in texts.pairs(8)),
    ("how is text wrapped", ""),
    ("", "A document without a query."),
    ("naïve café 東京 🙂", "Ünïcode, “quotes” – and \u200b nothing…"),
]
SIZE = 32
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# What our graphs read, with the tokenizer of its kind.
BODIES = {
    "bert": "wordpiece",
    "electra": "wordpiece",
    "roberta": "byte_bpe",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
    "distilbert": "wordpiece",
    "modernbert": "wordpiece",
    "deberta-v2": "wordpiece",
}


def dense(inputs: int, outputs: int, *, output: str | None = None, **settings: Any) -> Any:
    from sentence_transformers.base.modules import Dense

    return Dense(inputs, outputs, module_output_name=output, **settings)


def scores(inputs: int = SIZE, labels: int = 1) -> Any:
    return dense(inputs, labels, output="scores", activation_function=None)


def pooling(mode: Any = "cls", **settings: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(SIZE, pooling_mode=mode, **settings)


def norm(size: int = SIZE) -> Any:
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    return LayerNorm(size)


def ettin(labels: int = 1) -> list[Any]:
    """The head of cross-encoder/ettin-reranker-*-v1, as its model card prints it."""
    import torch

    first = dense(SIZE, SIZE, bias=False, activation_function=torch.nn.GELU())
    return [pooling(), first, norm(), scores(labels=labels)]


def save(bare: Path, folder: Path, build: Any, **settings: Any) -> Path:
    """A checkpoint as sentence-transformers itself makes it of a bare body, with seeded random modules."""
    import torch
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Transformer

    torch.manual_seed(3)
    modules = build()
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    body = Transformer(str(bare), transformer_task="feature-extraction")
    model = Theirs(modules=[body, *modules], device="cpu", **settings)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def theirs(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **settings: Any) -> NDArray[np.float32]:
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    found = Theirs(str(folder), device="cpu", **settings).predict(pairs, activation_fn=torch.nn.Identity())
    return np.asarray(found, np.float32).reshape(len(pairs), -1)


def ours(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **settings: Any) -> NDArray[np.float32]:
    return CrossEncoder(folder, precision="float32", **settings).score(pairs).logits


def assert_same(folder: Path, **settings: Any) -> None:
    expected = theirs(folder, **settings)
    assert expected.std(axis=0).min() > 0.01  # else any model would pass
    np.testing.assert_allclose(ours(folder, **settings), expected, atol=1e-4)


@pytest.mark.parametrize("model_type", BODIES)
def test_every_body(model_type: str, tmp_path: Path) -> None:
    bare = make_checkpoint(tmp_path / "bare", model_type, tokenizer=BODIES[model_type])
    assert_same(save(bare, tmp_path / "modular", ettin))


@pytest.mark.parametrize("model_type", BODIES)
def test_every_body_pooled_over_all_tokens(model_type: str, tmp_path: Path) -> None:
    bare = make_checkpoint(tmp_path / "bare", model_type, tokenizer=BODIES[model_type])
    assert_same(save(bare, tmp_path / "modular", lambda: [pooling("mean"), scores()]))


@pytest.mark.parametrize("mode", [*POOLINGS, ("mean", "max", "lasttoken")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_every_pooling_with_a_prompt(mode: Any, include_prompt: bool, tiny_bert: Path, tmp_path: Path) -> None:
    width = SIZE * (1 if isinstance(mode, str) else len(mode))
    prompts = {"prompts": {"search": "Query to search with: "}, "default_prompt_name": "search"}
    folder = save(tiny_bert, tmp_path, lambda: [pooling(mode, include_prompt=include_prompt), scores(width)], **prompts)
    assert_same(folder)
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name=None)
    assert np.abs(ours(folder) - theirs(folder)).max() < 1e-4


@pytest.mark.parametrize(
    "activation", ["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "ELU", "SELU", "LeakyReLU", "Mish"]
)
def test_activations(activation: str, tiny_bert: Path, tmp_path: Path) -> None:
    import torch

    function = getattr(torch.nn, activation)()
    assert_same(save(tiny_bert, tmp_path, lambda: [pooling(), dense(SIZE, 8, activation_function=function), scores(8)]))


@pytest.mark.parametrize("activation", ["Softplus", "Hardswish"])
def test_rarer_activations(activation: str, tiny_bert: Path, tmp_path: Path) -> None:
    import torch

    function = getattr(torch.nn, activation)()
    assert_same(save(tiny_bert, tmp_path, lambda: [pooling(), dense(SIZE, 8, activation_function=function), scores(8)]))


def modules_in_a_row() -> list[Any]:
    """Every kind of module, under other names than the usual, and before the pooling too."""
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Dropout

    states, pooled = "token_embeddings", "sentence_embedding"
    return [
        dense(SIZE, SIZE, module_input_name=states, use_residual=True),
        Normalize(module_input_name=states),
        pooling(("mean", "cls")),
        Dropout(0.5),
        dense(2 * SIZE, 24, use_residual=True),
        norm(24),
        Normalize(module_output_name="unit"),
        dense(24, 16, module_input_name="unit", output=pooled, bias=False),
        scores(16, 3),
    ]


def test_every_module(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save(tiny_bert, tmp_path, modules_in_a_row)
    assert_same(folder)
    assert CrossEncoder(folder).num_labels == 3


def test_predict_and_rank_as_theirs(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    folder = save(tiny_bert, tmp_path, ettin)
    model, other = CrossEncoder(folder, precision="float32"), Theirs(str(folder), device="cpu")
    np.testing.assert_allclose(model.predict(PAIRS), other.predict(PAIRS), atol=1e-5)
    documents = [document for _, document in PAIRS]
    ranked = [[row["corpus_id"] for row in side.rank("who?", documents)] for side in (model, other)]
    assert ranked[0] == ranked[1]
    assert model.num_labels == 1
    assert model.info()["engine"] == "openvino"


def test_the_activation_that_the_checkpoint_names(tiny_bert: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    folder = save(tiny_bert, tmp_path, ettin, activation_fn=torch.nn.Identity())
    expected = Theirs(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(CrossEncoder(folder, precision="float32").predict(PAIRS), expected, atol=1e-4)


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_score_does_not_depend_on_the_batch(mode: str, tiny_bert: Path, tmp_path: Path) -> None:
    model = CrossEncoder(save(tiny_bert, tmp_path, lambda: [pooling(mode), scores()]), precision="float32")
    alone = [model.score([pair]).logits[0, 0] for pair in PAIRS]
    np.testing.assert_allclose(model.score(PAIRS).logits[:, 0], alone, atol=1e-5)


def test_long_documents_are_cut_as_theirs(tiny_bert: Path, tmp_path: Path) -> None:
    long = [("which one?", text) for text in texts.passages() if len(text) > 1500][:4]
    folder = save(tiny_bert, tmp_path, ettin)
    settings = {"pairs": long, "max_length": 64}
    np.testing.assert_allclose(ours(folder, **settings), theirs(folder, **settings), atol=1e-4)


def test_a_prompt_before_a_sequence_classifier(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    Theirs(str(tiny_bert), device="cpu", prompts={"q": "Query: "}, default_prompt_name="q").save_pretrained(
        str(tmp_path), create_model_card=False
    )
    assert_same(tmp_path)


def test_exported_graphs_of_the_body_are_ignored(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save(tiny_bert, tmp_path, ettin)
    expected = ours(folder)
    for name in ("onnx/model.onnx", "openvino/openvino_model.xml"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("the body alone")
    np.testing.assert_array_equal(ours(folder), expected)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        ours(folder)


def test_the_head_stays_in_float32(tiny_bert: Path, tmp_path: Path) -> None:
    """A head as wide as scores need it: rounded to bfloat16 its scores, all near 1000, would tie."""
    import torch

    def far() -> list[Any]:
        head = scores()
        with torch.no_grad():
            head.linear.bias.fill_(1000.0)
        return [pooling("mean"), head]

    folder = save(tiny_bert, tmp_path, far)
    found = CrossEncoder(folder, precision="bfloat16").score(PAIRS).logits[:, 0]
    assert len(np.unique(found)) == len(PAIRS)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_bert, tmp_path_factory.mktemp("saved"), ettin)


def change(saved: Path, folder: Path, name: str, **changes: Any) -> Path:
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    edit_json(folder / name, **changes)
    return folder


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "Pooling with the mode median"),
        ("2_Dense/config.json", {"activation_function": "mine.GELU"}, r"the activation 'mine\.GELU'"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Tanhshrink"}, "Tanhshrink"),
        ("2_Dense/config.json", {"module_input_name": "nothing"}, "reads 'nothing'"),
        ("4_Dense/config.json", {"module_output_name": "embedding"}, "no module Dense that puts out 'scores'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "pooler_output",
        ),
    ],
)
def test_what_is_not_known_is_named(
    name: str, changes: dict[str, Any], message: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        CrossEncoder(change(saved, tmp_path, name, **changes)).load()


def test_modules_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shape \(32, 32\)"):
        CrossEncoder(change(saved, tmp_path, "2_Dense/config.json", out_features=16)).load()
    shutil.rmtree(tmp_path / "2_Dense")
    with pytest.raises(CheckpointError, match=r"2_Dense is incomplete"):
        CrossEncoder(tmp_path).load()


def test_a_prompt_that_leaves_no_room(saved: Path, tmp_path: Path) -> None:
    prompts = {"prompts": {"long": "many words " * 20}, "default_prompt_name": "long"}
    folder = change(saved, tmp_path, "config_sentence_transformers.json", **prompts)
    with pytest.raises(InputError, match=r"max_length=64 is too short for this model's prompt"):
        CrossEncoder(folder, max_length=64).load()


def test_a_gpu(saved: Path) -> None:
    with pytest.raises(InputError, match=r"device='cuda'.*runs on the CPU"):
        CrossEncoder(saved, device="cuda").load()


def test_a_module_of_the_checkpoints_own(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "modules.json"
    path.write_text(json.dumps([{**entry, "type": "mine.Head"} for entry in json.loads(path.read_text())]))
    with pytest.raises(UnsupportedModelError, match=r"'mine\.Head'.*never runs code"):
        CrossEncoder(tmp_path).load()
