"""Bi-encoders on our own graphs against sentence-transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import texts
from bodies import minilm, tiny_body
from checkpoints import edit_config, make_checkpoint
from crossrank.errors import CheckpointError, CrossRankWarning, InputError, UnsupportedModelError
from crossrank.scoring.bi_encoder import BiEncoder

SAMPLE = [*texts.passages()[:40], "a", "", "naïve Ünïcode 漢字", texts.passages()[3], " leading space"]


def peer(folder: Path, sentences: list[str], **options: object) -> NDArray[np.float32]:
    """What sentence-transformers makes of texts, in float32, with each vector's length 1."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(sentences, normalize_embeddings=True, show_progress_bar=False, **options))


def tiny(folder: Path, model_type: str, **options: object) -> Path:
    """A bare body of an architecture, saved by transformers as one."""
    from transformers import AutoModel

    make_checkpoint(folder, model_type, **options)
    body = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    body.save_pretrained(folder)
    return folder


def with_modules(folder: Path, pooling: dict[str, object], *others: str, **settings: object) -> Path:
    """The files that sentence-transformers writes beside a body."""
    kinds = ["Transformer", "Pooling", *others]
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def test_minilm_is_the_same_as_sentence_transformers() -> None:
    ours = BiEncoder(minilm(), precision="float32").encode(SAMPLE)
    assert ours.dtype == np.float32
    assert ours.shape == (len(SAMPLE), 384)
    assert np.abs(ours - peer(minilm(), SAMPLE)).max() <= 1e-5


@pytest.mark.parametrize(
    ("model_type", "tokenizer"),
    [
        ("bert", "wordpiece"),
        ("electra", "wordpiece"),
        ("distilbert", "wordpiece"),
        ("modernbert", "wordpiece"),
        ("deberta-v2", "wordpiece"),
        ("roberta", "byte_bpe"),
        ("xlm-roberta", "unigram"),
    ],
)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_architectures(tmp_path: Path, model_type: str, tokenizer: str, pooling: str) -> None:
    folder = tiny(tmp_path, model_type, tokenizer=tokenizer)
    old = {"word_embedding_dimension": 32, f"pooling_mode_{pooling}_token{'s' if pooling == 'mean' else ''}": True}
    with_modules(folder, {**old, **({"pooling_mode_mean_tokens": False} if pooling == "cls" else {})})
    ours = BiEncoder(folder, precision="float32").encode(SAMPLE)
    assert np.abs(ours - peer(folder, SAMPLE)).max() <= 1e-5


def test_saved_by_sentence_transformers_itself(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    body = Transformer(str(tiny_body(tmp_path / "body")), max_seq_length=48)
    SentenceTransformer(modules=[body, Pooling(32, pooling_mode="cls"), Normalize()], device="cpu").save(
        str(tmp_path / "saved")
    )
    model = BiEncoder(tmp_path / "saved", precision="float32")
    assert np.abs(model.encode(SAMPLE) - peer(tmp_path / "saved", SAMPLE)).max() <= 1e-5
    assert model.info()["pooling"] == "cls"
    assert model.info()["max_length"] == 48


def test_without_modules_the_mean(tmp_path: Path) -> None:
    folder = tiny_body(tmp_path)
    ours = BiEncoder(folder, precision="float32").encode(SAMPLE)
    # sentence-transformers, too, takes the mean where a checkpoint says nothing.
    assert np.abs(ours - peer(folder, SAMPLE)).max() <= 1e-5


def test_a_body_saved_with_a_head_for_words(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    tiny_body(tmp_path / "body")
    AutoModelForMaskedLM.from_pretrained(tmp_path / "body").save_pretrained(tmp_path / "words")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "words" / file).write_text((tmp_path / "body" / file).read_text())
    bare, words = (BiEncoder(tmp_path / name, precision="float32").encode(SAMPLE) for name in ("body", "words"))
    assert np.abs(bare - words).max() <= 1e-6


def test_prompts_of_query_and_document(tmp_path: Path) -> None:
    prompts = {"query": "Represent this question: ", "passage": "passage: "}
    folder = with_modules(tiny_body(tmp_path), {"pooling_mode": "mean"}, prompts=prompts)
    model = BiEncoder(folder, precision="float32")
    query, documents = SAMPLE[5][:40], SAMPLE[:8]
    left, right = peer(folder, [query], prompt_name="query"), peer(folder, documents, prompt_name="passage")
    assert np.abs(model.cosine(query, documents) - (right @ left[0])).max() <= 1e-5
    assert np.abs(model.encode(documents) - peer(folder, documents)).max() <= 1e-5


def test_default_prompt_and_lower_case(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "roberta", tokenizer="byte_bpe")
    with_modules(folder, {"pooling_mode": "mean"}, prompts={"text": "Text: "}, default_prompt_name="text")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": True}))
    ours = BiEncoder(folder, precision="float32").encode(SAMPLE)
    assert np.abs(ours - peer(folder, SAMPLE)).max() <= 1e-5


def test_vectors_depend_on_nothing_but_the_text() -> None:
    model = BiEncoder(minilm(), precision="float32")
    together = model.encode(SAMPLE)
    alone = np.concatenate([model.encode([text]) for text in SAMPLE[:10]])
    assert np.abs(together[:10] - alone).max() <= 1e-6
    assert np.abs(model.encode(SAMPLE[::-1])[::-1] - together).max() <= 1e-6
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)


def test_equal_texts_are_embedded_once_and_cuts_are_told() -> None:
    model = BiEncoder(minilm(), max_length=32)
    once, thrice = (model.embed([text for text in SAMPLE[:5] for _ in range(n)]) for n in (1, 3))
    assert once.tokens == thrice.tokens
    assert np.array_equal(np.repeat(once.vectors, 3, axis=0), thrice.vectors)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    whole = [len(tokenizer(text, truncation=False)["input_ids"]) for text in SAMPLE[:5]]
    assert once.tokens_cut.tolist() == [max(0, length - 32) for length in whole]


def test_nothing_to_embed() -> None:
    assert BiEncoder(minilm()).encode([]).shape == (0, 384)


def test_many_threads_load_once_and_agree() -> None:
    model = BiEncoder(minilm(), precision="float32")
    alone = BiEncoder(minilm(), precision="float32").encode(SAMPLE[:6])
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(lambda _: model.encode(SAMPLE[:6]), range(8)):
            assert np.abs(vectors - alone).max() <= 1e-6


@pytest.mark.parametrize(
    ("others", "pooling", "named"),
    [
        (["Dense"], {"pooling_mode": "mean"}, "Dense"),
        (["WeightedLayerPooling"], {"pooling_mode": "mean"}, "WeightedLayerPooling"),
        ([], {"pooling_mode": "lasttoken"}, "lasttoken"),
        ([], {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls"),
        ([], {"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
    ],
)
def test_modules_that_are_not_known_are_named(
    tmp_path: Path, others: list[str], pooling: dict[str, object], named: str
) -> None:
    folder = with_modules(tiny_body(tmp_path), pooling, *others)
    with pytest.raises(UnsupportedModelError, match=named):
        BiEncoder(folder).load()


def test_a_cross_encoder_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"not a bi-encoder.*CrossEncoder"):
        BiEncoder(tiny_bert).load()
    from crossrank.checkpoint.source import BUNDLED

    with pytest.raises(UnsupportedModelError, match="not a bi-encoder"):
        BiEncoder(BUNDLED).load()
    folder = with_modules(tiny_body(tmp_path), {"pooling_mode": "mean"}, model_type="CrossEncoder")
    with pytest.raises(UnsupportedModelError, match="not a bi-encoder"):
        BiEncoder(folder).load()


def test_bad_input(tmp_path: Path) -> None:
    model = BiEncoder(minilm())
    with pytest.raises(InputError, match=r"documents\[1\]"):
        model.encode(["a", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="role='passage'"):
        model.encode(["a"], role="passage")
    with pytest.raises(InputError, match="name_or_folder"):
        BiEncoder(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_length=2 is too short"):
        BiEncoder(minilm(), max_length=2).load()
    with pytest.warns(CrossRankWarning, match="256 tokens"):
        assert BiEncoder(minilm(), max_length=257).info()["max_length"] == 256
    folder = tiny_body(tmp_path / "mpnet")
    edit_config(folder, model_type="mpnet")
    with pytest.raises(UnsupportedModelError, match="mpnet"):
        BiEncoder(folder).load()
    folder = with_modules(tiny_body(tmp_path / "damaged"), {"pooling_mode": "mean"})
    (folder / "modules.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        BiEncoder(folder).load()


def test_without_torch() -> None:
    code = (
        "import sys; from crossrank.scoring.bi_encoder import BiEncoder; "
        f"print(BiEncoder({str(minilm())!r}).encode(['a']).shape); print({{'torch'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 384)\nset()"
