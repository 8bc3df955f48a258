"""Each call of sentence-transformers is tried with both libraries, and docs/migrate.md says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
import texts
from crossrank import CrossEncoder, CrossRankWarning, InputError, ModelNotFoundError

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(5)]
QUERY, DOCUMENTS = PAIRS[0][0], [document for _, document in PAIRS]
PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"

# What is written in code -> the scores it gives with a model of either library.
SAME: dict[str, Callable[[Any, str], Any]] = {
    "CrossEncoder(name, num_labels=1)": lambda kind, name: kind(name, num_labels=1).predict(PAIRS),
    "CrossEncoder(name, max_length=32)": lambda kind, name: kind(name, max_length=32).predict([("a", "b c")]),
    "CrossEncoder(name, model_kwargs={})": lambda kind, name: kind(name, model_kwargs={}).predict(PAIRS),
    "CrossEncoder(name, model_kwargs={'torch_dtype': 'float32'})": lambda kind, name: kind(
        name, model_kwargs={"torch_dtype": "float32"}
    ).predict(PAIRS),
    "CrossEncoder(name, tokenizer_kwargs={})": lambda kind, name: kind(name, tokenizer_kwargs={}).predict(PAIRS),
    "CrossEncoder(name, config_kwargs={})": lambda kind, name: kind(name, config_kwargs={}).predict(PAIRS),
    "CrossEncoder(name, backend='torch')": lambda kind, name: kind(name, backend="torch").predict(PAIRS),
    "CrossEncoder(name, device='cpu')": lambda kind, name: kind(name, device="cpu").predict(PAIRS),
    "CrossEncoder(name, prompts=None)": lambda kind, name: kind(name, prompts=None).predict(PAIRS),
    "model.predict(pairs, prompt=None)": lambda kind, name: kind(name).predict(PAIRS, prompt=None),
    "model.predict(pairs, prompt_name=None)": lambda kind, name: kind(name).predict(PAIRS, prompt_name=None),
    "model.predict(pairs, pool=None)": lambda kind, name: kind(name).predict(PAIRS, pool=None),
    "model.predict(pairs, device='cpu')": lambda kind, name: kind(name).predict(PAIRS, device="cpu"),
    "model.predict(pairs, convert_to_tensor=True)": lambda kind, name: np.asarray(
        kind(name, device="cpu").predict(PAIRS, convert_to_tensor=True)
    ),
    "model.rank(query, documents, prompt=None)": lambda kind, name: scores(
        kind(name).rank(QUERY, DOCUMENTS, prompt=None)
    ),
    "model.max_length = 32": lambda kind, name: with_max_length(kind(name)).predict([("a", "b c")]),
    "model.to('cpu')": lambda kind, name: kind(name).to("cpu").predict(PAIRS),
    "model.eval()": lambda kind, name: kind(name).eval().predict(PAIRS),
    "str(model.device)": lambda kind, name: len(str(kind(name, device="cpu").device)),
    "model.config.num_labels": lambda kind, name: kind(name).config.num_labels,
    "model.config.hidden_size": lambda kind, name: kind(name).config.hidden_size,
    "model.num_labels": lambda kind, name: kind(name).num_labels,
}
# What crossrank refuses -> words of the message that say what to do.
REFUSED: dict[str, tuple[Callable[[CrossEncoder], Any], str]] = {
    "model.model": (lambda model: model.model, "load the folder with sentence-transformers"),
    "model.parameters()": (lambda model: model.parameters(), "runs in OpenVINO"),
    "model.fit(...)": (lambda model: model.fit(), "crossrank train"),
    "model.push_to_hub(...)": (lambda model: model.push_to_hub("x"), "hf upload"),
    "model.to('cuda')": (lambda model: model.to("cuda"), "CrossEncoder(..., device=...)"),
    "model.device = 'cuda'": (lambda model: setattr(model, "device", "cuda"), "to the constructor"),
    "model.predict(pairs, prompt='...')": (lambda model: model.predict(PAIRS, prompt="x"), "before the query yourself"),
    "model.predict(pairs, pool=pool)": (lambda model: model.predict(PAIRS, pool={}), "uses all cores"),
    "CrossEncoder(name, modules=[...])": (lambda model: CrossEncoder(model.name, modules=[1]), "Save the modules"),
    "CrossEncoder(name, model_kwargs={'load_in_8bit': True})": (
        lambda model: CrossEncoder(model.name, model_kwargs={"load_in_8bit": True}),
        "Leave it out",
    ),
}


def scores(rows: list[dict[str, Any]]) -> list[float]:
    return [float(row["score"]) for row in rows]


def with_max_length(model: Any) -> Any:
    model.max_length = 32
    return model


def ours(name: str, **options: Any) -> CrossEncoder:
    return CrossEncoder(name, precision="float32", **options)


def theirs(name: str, **options: Any) -> Any:
    from sentence_transformers import CrossEncoder as Theirs

    return Theirs(name, local_files_only=True, **{"device": "cpu", **options})


@pytest.mark.parametrize("code", SAME)
def test_it_gives_the_same(code: str, tiny_bert: Path) -> None:
    call = SAME[code]
    np.testing.assert_allclose(call(ours, str(tiny_bert)), call(theirs, str(tiny_bert)), atol=1e-5)


@pytest.mark.parametrize("code", REFUSED)
def test_it_is_refused_with_a_remedy(code: str, tiny_bert: Path) -> None:
    call, remedy = REFUSED[code]
    with pytest.raises(InputError) as raised:
        call(CrossEncoder(tiny_bert))
    assert remedy in str(raised.value)
    assert not hasattr(CrossEncoder(tiny_bert), "model")


def table() -> str:
    rows = ["| code for sentence-transformers | here |", "|---|---|"]
    rows += [f"| `{code}` | the same |" for code in SAME]
    rows += [f"| `{code}` | an error that says what to do |" for code in REFUSED]
    return "\n".join(rows)


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), table()


def test_older_spellings(tiny_bert: Path, tmp_path: Path) -> None:
    expected = CrossEncoder(tiny_bert, precision="float32", activation_fn="identity").predict(PAIRS)
    for options in (
        {"default_activation_function": "identity", "model_name": str(tiny_bert)},
        {"model_name_or_path": tiny_bert, "activation_fct": "identity", "automodel_args": None, "cache_dir": tmp_path},
        {"model_name_or_path": tiny_bert, "activation_fn": "identity", "automodel_args": {"dtype": "torch.float32"}},
    ):
        np.testing.assert_array_equal(CrossEncoder(precision="float32", **options).predict(PAIRS), expected)
    assert CrossEncoder(str(tiny_bert), 1, 40).max_length == 40
    assert CrossEncoder(tiny_bert, tokenizer_kwargs={"model_max_length": 40}).max_length == 40
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_lenght'"):
        CrossEncoder(tiny_bert, max_lenght=3)
    with pytest.raises(InputError, match="both given"):
        CrossEncoder(tiny_bert, max_length=30, tokenizer_kwargs={"model_max_length": 40})


def test_activation_and_length_can_be_set(tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert, precision="float32")
    raw = model.score(PAIRS).logits[:, 0]
    import torch

    model.activation_fn = torch.nn.Identity()
    np.testing.assert_array_equal(model.predict(PAIRS), raw)
    model.max_seq_length = 20
    assert (model.max_length, model.score(PAIRS).document_tokens_cut.sum() > 0) == (20, True)
    with pytest.raises(InputError, match="max_length=0"):
        model.max_length = 0
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = model.nothing
    row = model.rank(QUERY, DOCUMENTS, convert_to_tensor=True)[0]
    assert isinstance(row["score"], torch.Tensor)


def test_a_longer_max_length_than_the_models_is_capped(tiny_bert: Path) -> None:
    # LlamaIndex passes 512 whatever the model.
    model = CrossEncoder(tiny_bert, max_length=600)
    with pytest.warns(CrossRankWarning, match="max_length=600 is more than this model's 512"):
        assert model.max_length == 512


def test_saved_files_give_the_same_scores(tiny_bert: Path, tmp_path: Path) -> None:
    model = CrossEncoder(tiny_bert, precision="float32")
    model.save_pretrained(tmp_path / "saved")
    again = CrossEncoder(tmp_path / "saved", precision="float32")
    assert again.identity == model.identity
    np.testing.assert_array_equal(again.predict(PAIRS), model.predict(PAIRS))
    with pytest.raises(ModelNotFoundError):
        CrossEncoder(tmp_path / "elsewhere")
    assert crossrank.CrossEncoder is CrossEncoder
