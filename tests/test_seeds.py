"""Inference code that people wrote for sentence-transformers, run with its import changed, and run as it was.

Both runs see the same small checkpoint under the names that the code asks for, and leave the same values behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import crossrank
from seeds.snippets import indent, snippets

SEEDS = Path(__file__).parents[2] / "shared" / "seeds"
FOUND = sorted(SEEDS.glob("*.txt"))

DOCUMENTS = [
    "Expenses up to $500 need no approval.",
    "La spondilolistesi è lo scivolamento di una vertebra.",
    "The cafeteria opens at eight.",
    "",
    "Reimbursement is limited to what was spent, and to 500 dollars a month without a manager's approval. " * 20,
]


class Judge:
    """The stage that a document leaves out: it keeps the longest."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def rank(self, query: str, documents: list[Any]) -> list[Any]:
        return sorted(documents, key=lambda document: -len(document.page_content))[: self.top_k]


@dataclass(frozen=True)
class Seed:
    """What one document needs and does.

    :param names: What its code uses and never defines.
    :param snippets: How many there are.
    :param result: What the reader would look at in the end, from the names that the code left.
    """

    names: dict[str, Any]
    snippets: int
    result: Callable[[dict[str, Any]], Any]


def _chunks() -> list[Any]:
    return [SimpleNamespace(content=text, page_content=text) for text in DOCUMENTS]


def _use_card(left: dict[str, Any]) -> Any:
    return left["scores"], left["ranks"]


def _use_rerankers(left: dict[str, Any]) -> Any:
    alone = left["CrossEncoderReRanker"](top_k=3).rank("reimbursement limit", _chunks())
    judged = left["HybridReRanker"](top_k=2).rank("reimbursement limit", _chunks())
    assert [chunk.page_content for chunk in judged] == [DOCUMENTS[4], DOCUMENTS[1]]
    return [score for _, score in alone]


def _use_reference(left: dict[str, Any]) -> Any:
    assert not left["logger"].errors
    lazy = left["Retriever"]()
    assert lazy.model is lazy.model
    reranked = [sorted(row) for row in left["reranked"]]
    return left["score"], left["scores"], left["rerank_scores"], reranked, lazy.model.predict(left["pairs"])


def _use_guide(left: dict[str, Any]) -> Any:
    rerank = left["rerank_documents"]
    rows = rerank("reimbursement limit", _chunks(), left["reranker"], batch_size=2, top_k=3)
    return left["score"], left["scores"], [score for _, score in rows]


USES = {
    "000": Seed({}, 1, _use_card),
    "001": Seed({"ReRanker": Judge}, 2, _use_rerankers),
    "002": Seed(
        {
            **{f"doc{i}": DOCUMENTS[i] for i in (1, 2, 3)},
            **{"q": "reimbursement limit", "documents": DOCUMENTS, "results": [{"original_score": 0.5}]},
        },
        8,
        _use_reference,
    ),
    "003": Seed({"retrieved_chunks": _chunks()}, 2, _use_guide),
}


@pytest.fixture
def names(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the checkpoint where the names of models point to; both libraries take a folder before the hub."""
    for name in ("cross_encoder_model_id", "cross-encoder/ms-marco-MiniLM-L-6-v2", "..."):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tiny_bert, target_is_directory=True)
    monkeypatch.chdir(tmp_path)


def _run(document: str, library: str, given: dict[str, Any]) -> dict[str, Any]:
    errors: list[str] = []
    left = {"logger": SimpleNamespace(error=errors.append, errors=errors), **given, "__name__": "seed"}
    for number, code in enumerate(snippets(document, library), start=1):
        exec(compile(code, f"snippet {number}", "exec"), left)
    return left


@pytest.mark.shared_data
@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name[:3])
def test_a_seeds_code_runs_as_with_sentence_transformers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = USES[path.name[:3]]
    document = path.read_text(encoding="utf-8")
    assert len(snippets(document)) == seed.snippets
    ours = _run(document, "crossrank", seed.names)
    printed = capsys.readouterr().out
    theirs = _run(document, "sentence_transformers", seed.names)
    assert issubclass(ours.get("CrossEncoder", crossrank.CrossEncoder), crossrank.CrossEncoder)
    assert not issubclass(theirs.get("CrossEncoder", object), crossrank.CrossEncoder)
    assert printed == capsys.readouterr().out
    _same(seed.result(ours), seed.result(theirs))


def _same(ours: Any, theirs: Any) -> None:
    """Same types, shapes and keys all the way down; scores as near as bfloat16 comes."""
    assert type(ours) is type(theirs)
    if isinstance(ours, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if isinstance(ours, (np.ndarray, np.floating, float)):
        np.testing.assert_allclose(ours, theirs, atol=0.05)
    elif isinstance(ours, dict):
        assert set(ours) == set(theirs)
        _same([ours[key] for key in ours if key != "corpus_id"], [theirs[key] for key in ours if key != "corpus_id"])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            _same(one, other)
    else:
        assert ours == theirs


@pytest.mark.shared_data
@pytest.mark.usefixtures("names")
def test_the_fallback_of_a_seed_catches_our_errors() -> None:
    document = next(path for path in FOUND if path.name.startswith("002")).read_text(encoding="utf-8")
    left = _run(document, "crossrank", USES["002"].names)
    left["pairs"] = [("a query", None)]
    exec(snippets(document)[-1], left)
    assert left["scores"] == [0.5]
    assert left["logger"].errors == [
        "Re-ranking failed: pairs[0][1] is None (NoneType), not a string. Pass the text itself, or str(...) of it."
    ]


@pytest.mark.shared_data
def test_every_seed_is_run() -> None:
    assert [path.name[:3] for path in FOUND] == sorted(USES)


# ---- the repairs


def test_fences_are_taken_in_order_and_repaired() -> None:
    imports = "from sentence_transformers import CrossEncoder\n"
    document = f"```bash\npip\n```\n```python\nx[^4_1]\n```\ntext[^4_2]\n```python\n{imports}```\n"
    assert snippets(document) == ["x[1]\n", "from crossrank import CrossEncoder\n"]
    assert snippets(document, "sentence_transformers")[1] == imports


def test_indentation_is_put_back() -> None:
    flat = ["def f(x):", '"""', "Args:", '"""', "for i in x:", "g(", "i)", "# after", "y = [", "1]", "return y", "f(1)"]
    assert indent(flat) == [
        "def f(x):",
        '    """',
        "    Args:",
        '    """',
        "    for i in x:",
        "        g(",
        "        i)",
        "    # after",
        "    y = [",
        "    1]",
        "    return y",
        "f(1)",
    ]


def test_code_without_a_fence_ends_where_it_is_no_python_any_more() -> None:
    document = "Some words.\nfrom os import path\nx = [\n1]\nThe list is used below.\nfrom here on it is text.\n"
    assert snippets(document) == ["from os import path\nx = [\n1]\n"]
