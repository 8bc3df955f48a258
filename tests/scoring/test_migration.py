"""Calls of sentence-transformers are tried with both libraries, and docs/migrate.md lists what becomes of each."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import datasets
import joblib
import numpy as np
import pandas as pd
import pytest
import torch

import texts
from crossrank import CrossEncoder, CrossRankWarning, InputError, ModelNotFoundError
from crossrank.errors import CheckpointError
from scoring import calls

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(5)]
QUERY, DOCUMENTS = PAIRS[0][0], [document for _, document in PAIRS]
PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"

SAME = [call for group in calls.SAME.values() for call in group.split("\n") if call]
REFUSED = [
    (call, remedy)
    for group in calls.REFUSED.values()
    for remedy, lines in group.items()
    for call in lines.split("\n")
    if call
]
# Not tried with sentence-transformers: they compile, train, publish, start processes or need a GPU.
NOT_TRIED = ("cuda", "compile", "start_multi_process_pool", "push_to_hub", "save_to_hub", "loader", "evaluator")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """sentence-transformers warns of older names."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def ours(*arguments: Any, **options: Any) -> CrossEncoder:
    return CrossEncoder(*arguments, **{"precision": "float32", **options})


def theirs(*arguments: Any, **options: Any) -> Any:
    from sentence_transformers import CrossEncoder as Theirs

    if len(arguments) < 5:
        options = {"device": "cpu", **options}
    return Theirs(*arguments, **{"local_files_only": True, **options})


@cache
def loaded(kind: Callable[..., Any], name: str) -> Any:
    return kind(name)


def run(call: str, kind: Callable[..., Any], name: Path, folder: Path) -> Any:
    """The value of a call. A model that it changes is its own."""
    names: dict[str, Any] = {
        "CrossEncoder": kind, "name": str(name), "folder": str(folder / kind.__name__),
        "pairs": PAIRS, "query": QUERY, "queries": [query for query, _ in PAIRS], "documents": DOCUMENTS,
        "loader": [], "evaluator": None,
        "torch": torch, "np": np, "pd": pd, "datasets": datasets,
        "copy": copy, "pickle": pickle, "cloudpickle": cloudpickle, "joblib": joblib,
    }  # fmt: skip
    Path(names["folder"]).mkdir(parents=True)
    changes = " = " in call or any(word in call for word in ("half", "float", "double", "train", "grad", "compile"))
    names["model"] = kind(str(name)) if changes else loaded(kind, str(name))
    *before, last = call.split("; ")
    for statement in before:
        exec(statement, names)
    if " = " in last:
        return exec(last, names)
    return eval(last, names)


def plain(value: Any) -> Any:
    """Rows of a ranking as a dictionary of lists, whose floats are compared closely."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key: [row[key] for row in value] for key in value[0]}
    return {"value": value}


@pytest.mark.parametrize("call", SAME)
def test_it_gives_the_same(call: str, tiny_bert: Path, tmp_path: Path) -> None:
    got, expected = (run(call, kind, tiny_bert, tmp_path) for kind in (ours, theirs))
    assert type(got) is type(expected)
    assert plain(got).keys() == plain(expected).keys()
    for key, wanted in plain(expected).items():
        found = plain(got)[key]
        if np.asarray(wanted).dtype.kind != "f":
            assert np.array_equal(found, wanted) if isinstance(wanted, np.ndarray) else found == wanted
            continue
        assert np.shape(found) == np.shape(wanted)
        if np.size(wanted) and hasattr(wanted, "dtype"):
            assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("call", [call for call in calls.ROUNDED.split("\n") if call])
def test_it_gives_the_same_but_for_rounding(call: str, tiny_bert: Path, tmp_path: Path) -> None:
    got, expected = (run(call, kind, tiny_bert, tmp_path) for kind in (ours, theirs))
    assert (type(got), got.dtype) == (type(expected), expected.dtype)
    np.testing.assert_allclose(got, expected, atol=0.02)


@pytest.mark.parametrize("call", [call for call in calls.NO_EFFECT.split("\n") if call])
def test_it_has_no_effect(call: str, tiny_bert: Path, tmp_path: Path) -> None:
    np.testing.assert_array_equal(run(call, ours, tiny_bert, tmp_path), loaded(ours, str(tiny_bert)).predict(PAIRS))


@pytest.mark.parametrize(("call", "remedy"), REFUSED)
def test_it_is_refused_with_a_remedy(call: str, remedy: str, tiny_bert: Path, tmp_path: Path) -> None:
    if not any(word in call for word in NOT_TRIED):
        run(call, theirs, tiny_bert, tmp_path)
    if call.startswith("CrossEncoder(modules="):
        call = "CrossEncoder(modules=[torch.nn.Identity()])"
    elif "pool=" in call:
        call = "model.predict(pairs, pool={})"
    with pytest.raises(InputError) as raised:
        run(call, ours, tiny_bert, tmp_path / "ours")
    assert remedy in str(raised.value)


def test_there_is_a_word_for_each_of_their_attributes(tiny_bert: Path) -> None:
    model = loaded(ours, str(tiny_bert))
    other = loaded(theirs, str(tiny_bert))
    for name in sorted(set(dir(other)) - set(dir(model))):
        if not name.startswith("_"):
            assert not hasattr(model, name)
            with pytest.raises(InputError, match=rf"CrossEncoder has no attribute '{name}'\. [A-Z].*\.$"):
                getattr(model, name)
    for name in sorted(
        set(vars(other)) | {name for name in dir(type(other)) if isinstance(getattr(type(other), name), property)}
    ):
        if not name.startswith("_") and name not in CrossEncoder._SETTABLE:
            with pytest.raises(InputError, match=rf"{name} can't be set to None: it would have no effect"):
                setattr(model, name, None)


def lists() -> str:
    """The lists of docs/migrate.md."""

    def block(lines: str) -> str:
        return f"```text\n{lines.strip()}\n```"

    parts = ["## The same result"]
    for group, lines in calls.SAME.items():
        parts += [f"### {group}", block(lines)]
    parts += [
        "### The same except for rounding",
        "crossrank has no float16 and uses its default precision instead.",
        block(calls.ROUNDED),
    ]
    parts += ["### Accepted, without effect", "The engine is OpenVINO for all of these.", block(calls.NO_EFFECT)]
    parts += ["## Refused", "Each of these raises an error that says what to do instead."]
    for group, remedies in calls.REFUSED.items():
        rows = [f"| `{call}` | {remedy} |" for remedy, lines in remedies.items() for call in lines.split("\n") if call]
        parts += [f"### {group}", "\n".join(["| Call | The error says |", "|---|---|", *rows])]
    return "\n\n".join(parts)


def test_the_page_has_the_lists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    others = [call for call in (calls.ROUNDED + calls.NO_EFFECT).split("\n") if call]
    count = len({*SAME, *others, *(call for call, _ in REFUSED)})
    assert count >= 135
    assert f"This page lists {count} calls." in page
    assert lists() in page, lists()


def test_older_spellings(tiny_bert: Path) -> None:
    assert CrossEncoder(str(tiny_bert), 1, 40).max_length == 40
    assert CrossEncoder(tiny_bert, tokenizer_kwargs={"model_max_length": 40}).max_length == 40
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_lenght'"):
        CrossEncoder(tiny_bert, max_lenght=3)
    with pytest.raises(InputError, match="both given"):
        CrossEncoder(tiny_bert, max_length=30, tokenizer_kwargs={"model_max_length": 40})
    # Before version 6, the batch size stood where the prompt's name is now.
    with pytest.raises(InputError, match=r"prompt_name=32 has no effect here.*such as batch_size=32"):
        CrossEncoder(tiny_bert).predict(PAIRS, 32)


def test_activation_and_length_can_be_set(tiny_bert: Path) -> None:
    model = ours(tiny_bert)
    raw = model.score(PAIRS).logits[:, 0]
    model.activation_fn = torch.nn.Identity()
    np.testing.assert_array_equal(model.predict(PAIRS), raw)
    model.max_seq_length = 20
    assert (model.max_length, model.score(PAIRS).document_tokens_cut.sum() > 0) == (20, True)
    with pytest.raises(InputError, match="max_length=0"):
        model.max_length = 0
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = model.nothing


def test_a_longer_max_length_than_the_models_is_capped(tiny_bert: Path) -> None:
    # LlamaIndex passes 512 whatever the model.
    model = CrossEncoder(tiny_bert, max_length=600)
    with pytest.warns(CrossRankWarning, match="max_length=600 is more than this model's 512"):
        assert model.max_length == 512


def test_a_missing_model_fails_in_the_constructor(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        CrossEncoder(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        CrossEncoder(tmp_path / "empty")


def test_saved_files_give_the_same_scores(tiny_bert: Path, tmp_path: Path) -> None:
    model = ours(tiny_bert)
    model.save_pretrained(tmp_path / "saved")
    again = ours(tmp_path / "saved")
    assert again.identity == model.identity
    np.testing.assert_array_equal(again.predict(PAIRS), model.predict(PAIRS))
