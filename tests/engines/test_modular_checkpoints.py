"""Checkpoints that sentence-transformers saves, scored by it and by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from crossrank import CrossEncoder
from crossrank.engines.load import load_model
from crossrank.errors import CheckpointError, UnsupportedModelError
from decoder_checkpoints import ODD_PAIRS, edit_json, make_decoder

pytestmark = pytest.mark.usefixtures("float32")

PAIRS = [*ODD_PAIRS[:4], *ODD_PAIRS[5:], *texts.pairs(5)]

# The layout of the template in the Qwen3-Reranker repositories, shortened.
FLAT = (
    '{%- set task = messages | selectattr("role", "eq", "system") | map(attribute="content") | first'
    ' | default("Judge it.") -%}\n'
    "<|im_start|>system\n{{ task }}<|im_end|>\n<|im_start|>user\n"
    '<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}\n'
    '<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>\n'
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
STRUCTURED = (
    '{{ (messages | selectattr("role", "eq", "document") | first).content[0].text }}\nanswers\n'
    '{{ (messages | selectattr("role", "eq", "query") | first).content[0].text }}\n?\n'
)
TRIMMED = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
# The usual template of a chat model: it says nothing of the roles that it doesn't know.
CHAT = "{% for m in messages if m.role in ('user', 'assistant') %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def save_modular(
    bare: Path,
    folder: Path,
    *,
    task: str = "text-generation",
    no: str | None = "no",
    processing: dict[str, Any] | None = None,
    dense: bool = False,
    **settings: Any,
) -> Path:
    """A checkpoint as sentence-transformers itself makes it of a bare one."""
    import torch
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(bare), transformer_task=task, processing_kwargs=processing)  # type: ignore[arg-type]
    modules: list[Any] = [transformer]
    ids = transformer.tokenizer.convert_tokens_to_ids
    if task == "text-generation":
        modules.append(LogitScore(ids("yes"), ids(no) if no else None))
    if dense:
        torch.manual_seed(3)
        modules.append(Pooling(32, pooling_mode="lasttoken"))
        modules.append(Dense(32, 16, activation_function=torch.nn.GELU()))
        modules.append(Dense(16, 1, activation_function=None, module_output_name="scores"))
    Theirs(modules=modules, device="cpu", **settings).save_pretrained(str(folder), create_model_card=False)
    return folder


def theirs(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **settings: Any) -> Any:
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    return Theirs(str(folder), device="cpu", **settings).predict(pairs, activation_fn=torch.nn.Identity())


def ours(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **settings: Any) -> Any:
    return CrossEncoder(folder, **settings).score(pairs).logits[:, 0]


@pytest.fixture(scope="module")
def logit_score(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logit_score")
    bare = make_decoder(folder / "bare", "qwen3", chat_template=FLAT)
    return save_modular(bare, folder / "modular", processing={"chat_template": {"add_generation_prompt": True}})


def test_logit_score(logit_score: Path) -> None:
    np.testing.assert_allclose(ours(logit_score), theirs(logit_score), atol=1e-4)


def test_predict_and_rank_as_theirs(logit_score: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    other, model = Theirs(str(logit_score), device="cpu"), CrossEncoder(logit_score)
    np.testing.assert_allclose(model.predict(PAIRS), other.predict(PAIRS), atol=1e-5)
    documents = [document for _, document in PAIRS]
    ranked = [[row["corpus_id"] for row in side.rank("who?", documents)] for side in (model, other)]
    assert ranked[0] == ranked[1]
    assert model.num_labels == 1


def test_cut_documents_as_theirs(logit_score: Path) -> None:
    long = [("which one?", text) for text in texts.passages() if len(text) > 1500][:4]
    np.testing.assert_allclose(
        ours(logit_score, long, max_length=128), theirs(logit_score, long, max_length=128), atol=1e-4
    )


@pytest.mark.parametrize(
    ("template", "settings"),
    [
        (FLAT, {"no": None}),
        (FLAT, {"prompts": {"strict": "Be strict?\n"}, "default_prompt_name": "strict"}),
        (STRUCTURED, {}),
        (TRIMMED, {}),
        (None, {}),
        (None, {"prompts": {"strict": "Be strict: "}, "default_prompt_name": "strict"}),
    ],
    ids=["yes-alone", "system-prompt", "structured-document-first", "trimmed", "pair", "pair-with-prompt"],
)
def test_other_logit_scores(tmp_path: Path, template: str | None, settings: dict[str, Any]) -> None:
    bare = make_decoder(tmp_path / "bare", "llama", tokenizer="gemma", chat_template=template)
    folder = save_modular(bare, tmp_path / "modular", **settings)
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-4)


@pytest.mark.parametrize("template", [None, FLAT])
def test_pooling_and_dense(tmp_path: Path, template: str | None) -> None:
    bare = make_decoder(tmp_path / "bare", "qwen2", head="", chat_template=template)
    folder = save_modular(bare, tmp_path / "modular", task="feature-extraction", dense=True)
    if template is None:  # theirs pools the last position only behind a padding on the left
        edit_json(folder / "tokenizer_config.json", padding_side="left")
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-4)


@pytest.mark.parametrize("tokenizer", ["qwen", "gemma"])
@pytest.mark.parametrize("template", [None, FLAT])
@pytest.mark.parametrize("modular", [False, True])
def test_sequence_classifiers(tmp_path: Path, tokenizer: str, template: str | None, modular: bool) -> None:
    folder = make_decoder(
        tmp_path / "bare", "qwen3", head="SequenceClassification", tokenizer=tokenizer, chat_template=template
    )
    if modular:
        folder = save_modular(folder, tmp_path / "modular", task="sequence-classification")
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-4)


def test_sequence_classifier_whose_template_knows_no_pairs(tmp_path: Path) -> None:
    """Its pairs carry the prompt already, as its model card says: they are joined as they are."""
    template = make_decoder(tmp_path / "chat", "qwen3", head="SequenceClassification", chat_template=CHAT)
    plain = make_decoder(tmp_path / "plain", "qwen3", head="SequenceClassification")
    np.testing.assert_allclose(ours(template), theirs(plain), atol=1e-4)


def test_several_labels(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path, "qwen3", head="SequenceClassification", num_labels=3)
    found = CrossEncoder(folder).score(PAIRS).logits
    assert found.shape == (len(PAIRS), 3)
    np.testing.assert_allclose(found, theirs(folder), atol=1e-4)


def test_an_encoder_saved_by_version_6(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save_modular(tiny_bert, tmp_path / "modular", task="sequence-classification")
    assert CrossEncoder(folder).info()["engine"] == "openvino"
    np.testing.assert_allclose(ours(folder, precision="float32"), theirs(folder), atol=1e-4)


# ---- errors ----------------------------------------------------------------------------------------------------------


def load(folder: Path) -> None:
    load_model(folder, device=None, precision="auto", max_length=None, num_threads=None)


def test_unknown_modules_are_named(logit_score: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(logit_score, tmp_path / "copy")
    path = folder / "modules.json"
    modules = json.loads(path.read_text())

    def second(kind: str) -> None:
        path.write_text(json.dumps([modules[0], {**modules[1], "type": kind}]))

    second("sentence_transformers.base.modules.router.Router")
    with pytest.raises(UnsupportedModelError, match=r"the module Router; crossrank knows LogitScore"):
        load(folder)
    second("modeling_mine.Head")
    with pytest.raises(UnsupportedModelError, match=r"'modeling_mine\.Head'.*never runs code"):
        load(folder)
    second("sentence_transformers.base.modules.dense.Dense")
    with pytest.raises(UnsupportedModelError, match=r"Dense behind a Transformer for 'text-generation'"):
        load(folder)
    edit_json(folder / "sentence_bert_config.json", transformer_task="any-to-any")
    with pytest.raises(UnsupportedModelError, match="'any-to-any'"):
        load(folder)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"modules\.json is not a list"):
        load(folder)


def test_an_embedding_model(logit_score: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(logit_score, tmp_path / "copy")
    edit_json(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")
    with pytest.raises(UnsupportedModelError, match=r"makes embeddings, not scores"):
        load(folder)


def test_pooling_other_than_the_last_token(tmp_path: Path) -> None:
    bare = make_decoder(tmp_path / "bare", "qwen2", head="")
    folder = save_modular(bare, tmp_path / "modular", task="feature-extraction", dense=True)
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="mean")
    with pytest.raises(UnsupportedModelError, match=r"Pooling with the mode 'mean' \+ Dense"):
        load(folder)


def test_a_template_that_drops_the_pair(logit_score: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(logit_score, tmp_path / "copy")
    for template in (CHAT, FLAT.replace("content", "content | upper"), "{{ raise_exception('no') }}"):
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(UnsupportedModelError, match=r"chat template of .* once each and unchanged"):
            load(folder)


def test_a_token_outside_the_vocabulary(logit_score: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(logit_score, tmp_path / "copy")
    edit_json(folder / "1_LogitScore" / "config.json", true_token_id=10**6)
    with pytest.raises(CheckpointError, match=r"1000000.*outside the vocabulary"):
        load(folder)


def test_a_logit_score_behind_an_encoder(logit_score: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(logit_score, tmp_path / "copy")
    edit_json(folder / "config.json", model_type="bert")
    with pytest.raises(UnsupportedModelError, match=r"LogitScore behind the encoder 'bert'"):
        load(folder)
