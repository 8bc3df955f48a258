"""The public names, and what they return: the types, shapes and keys of sentence-transformers."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder, CrossRankError, InputError, PairScores

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(9)]
QUERY, DOCUMENTS = PAIRS[0][0], [document for _, document in PAIRS]


@pytest.fixture(scope="module")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("three"), "bert", num_labels=3)


@pytest.fixture(scope="module")
def ours(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(str(tiny_bert), precision="float32")


@pytest.fixture(scope="module")
def theirs(tiny_bert: Path) -> Any:
    from sentence_transformers import CrossEncoder as Theirs

    return Theirs(str(tiny_bert), device="cpu", local_files_only=True)


# ---- the names


def test_all_is_exact() -> None:
    public = {name for name, value in vars(crossrank).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert public - {"annotations"} | {"__version__", *crossrank._LAZY} == set(crossrank.__all__)
    assert sorted(crossrank.__all__, key=lambda name: (name[0] == "_", name)) == crossrank.__all__
    for name in crossrank.__all__:
        if isinstance(value := getattr(crossrank, name), type) and issubclass(value, CrossRankError):
            assert f" {name} " in f" {crossrank.errors.__doc__} ".replace("\n", " ")


def test_what_is_not_needed_for_scoring_is_not_imported() -> None:
    code = "import sys, crossrank; print([name for name in sys.modules if name.startswith('crossrank.ranking')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(crossrank._LAZY) <= set(dir(crossrank))
    with pytest.raises(AttributeError, match="no attribute 'Rerank'"):
        _ = crossrank.Rerank


def test_the_errors_are_also_what_callers_catch_already() -> None:
    assert issubclass(crossrank.InputError, ValueError)
    assert issubclass(crossrank.MissingExtraError, ImportError)
    assert issubclass(crossrank.CrossRankWarning, UserWarning)


# ---- drop-in

MANY = {
    "list of tuples": PAIRS,
    "list of lists": [list(pair) for pair in PAIRS],
    "tuple of tuples": tuple(PAIRS),
    "array": np.array(PAIRS),
    "array of objects": np.array(PAIRS, dtype=object),
    "one in a list": PAIRS[:1],
}
ONE = {"tuple": PAIRS[0], "list": list(PAIRS[0]), "array": np.array(PAIRS[0])}


def _same(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _same(one, other)
        return
    assert (tuple(got.shape), got.dtype) == (tuple(expected.shape), expected.dtype)
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), atol=tolerance)


@pytest.mark.parametrize("inputs", [*MANY.values(), *ONE.values()], ids=[*MANY, *(f"one {kind}" for kind in ONE)])
@pytest.mark.parametrize("how", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_predict_returns_what_theirs_does(inputs: Any, how: dict[str, bool], ours: CrossEncoder, theirs: Any) -> None:
    _same(ours.predict(inputs, **how), theirs.predict(inputs, **how))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("inputs", [PAIRS, PAIRS[0]], ids=["many", "one"])
@pytest.mark.parametrize("how", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_predict_of_three_labels(inputs: Any, softmax: bool, how: dict[str, bool], three_labels: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    theirs = Theirs(str(three_labels), device="cpu", local_files_only=True)
    got = CrossEncoder(three_labels, precision="float32").predict(inputs, apply_softmax=softmax, **how)
    _same(got, theirs.predict(inputs, apply_softmax=softmax, **how))


def test_predict_of_nothing(ours: CrossEncoder, theirs: Any) -> None:
    for nothing in ([], (), np.array([])):
        got = ours.predict(nothing)
        assert isinstance(got, np.ndarray)
        assert got.shape == theirs.predict(list(nothing)).shape == (0,)
    assert ours.predict([], convert_to_tensor=True).shape == theirs.predict([], convert_to_tensor=True).shape
    assert ours.predict([], convert_to_numpy=False) == theirs.predict([], convert_to_numpy=False) == []
    assert ours.rank("a query", []) == theirs.rank("a query", []) == []
    assert ours.score([]).logits.shape == (0, 1)


def test_predict_takes_a_generator(ours: CrossEncoder) -> None:
    np.testing.assert_array_equal(ours.predict(pair for pair in PAIRS), ours.predict(PAIRS))


def test_an_activation_from_torch(ours: CrossEncoder, theirs: Any) -> None:
    import torch

    for activation in (torch.nn.Identity(), torch.nn.Sigmoid(), torch.nn.Tanh(), torch.nn.ReLU(), torch.nn.Softsign()):
        _same(ours.predict(PAIRS, activation_fn=activation), theirs.predict(PAIRS, activation_fn=activation))


def test_activations_of_our_own(tiny_bert: Path, ours: CrossEncoder) -> None:
    logits = ours.score(PAIRS).logits[:, 0].astype(np.float64)
    for given, expected in (
        ("identity", logits),
        ("Sigmoid", 1 / (1 + np.exp(-logits))),
        (np.tanh, np.tanh(logits)),
        (lambda x: -x, -logits),
    ):
        model = CrossEncoder(tiny_bert, precision="float32", activation_fn=given)
        result = model.score(PAIRS)
        np.testing.assert_allclose(result.scores, expected, atol=1e-6)
        assert result.scores.dtype == np.float64
        # A function may turn the order around, and then does so in the ranking.
        assert [row["corpus_id"] for row in model.rank(QUERY, DOCUMENTS)] == _by(model.score(_pairs()).scores)


def _pairs() -> list[tuple[str, str]]:
    return [(QUERY, document) for document in DOCUMENTS]


def _by(scores: np.ndarray) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_k": 99}, {"return_documents": True, "batch_size": 2}])
def test_rank_returns_what_theirs_does(options: dict[str, Any], ours: CrossEncoder, theirs: Any) -> None:
    got, expected = ours.rank(QUERY, DOCUMENTS, **options), theirs.rank(QUERY, DOCUMENTS, **options)
    assert [list(row) for row in got] == [list(row) for row in expected]
    for row, other in zip(got, expected, strict=True):
        assert {key: type(value) for key, value in row.items()} == {key: type(value) for key, value in other.items()}
        assert row["corpus_id"] == other["corpus_id"]
        assert row["score"] == pytest.approx(other["score"], abs=1e-5)
        assert row.get("text") == other.get("text")


def test_rank_takes_what_has_an_order(ours: CrossEncoder) -> None:
    expected = ours.rank(QUERY, DOCUMENTS, return_documents=True)
    for documents in (tuple(DOCUMENTS), np.array(DOCUMENTS), (text for text in DOCUMENTS)):
        assert ours.rank(QUERY, documents, return_documents=True) == expected


def test_older_names_of_arguments(tiny_bert: Path, ours: CrossEncoder) -> None:
    import torch

    raw = ours.predict(PAIRS, activation_fn="identity")
    model = CrossEncoder(tiny_bert, precision="float32", num_labels=1, default_activation_function=torch.nn.Identity())
    np.testing.assert_array_equal(model.predict(PAIRS), raw)
    np.testing.assert_array_equal(ours.predict(PAIRS, activation_fct=torch.nn.Identity(), num_workers=0), raw)
    np.testing.assert_array_equal(ours.predict(sentences=PAIRS), ours.predict(PAIRS))
    rows = ours.rank(QUERY, DOCUMENTS, activation_fct="identity", num_workers=2)
    assert rows == ours.rank(QUERY, DOCUMENTS, activation_fn="identity")


def test_a_label_of_several_is_its_probability(three_labels: Path) -> None:
    together = CrossEncoder(three_labels, precision="float32").predict(PAIRS, apply_softmax=True)
    for label in ("LABEL_2", 2, "2"):
        model = CrossEncoder(three_labels, precision="float32", label=label)
        np.testing.assert_allclose(model.predict(PAIRS), together[:, 2], atol=1e-6)
        assert model.score(PAIRS).relevance is not None
        assert len(model.rank(QUERY, DOCUMENTS)) == len(DOCUMENTS)


# ---- loading


def test_a_model_that_is_not_there_fails_in_the_constructor(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(crossrank.ModelNotFoundError):
        CrossEncoder(tmp_path / "not-there")
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    with pytest.raises(crossrank.CheckpointError, match=r"no model\.safetensors"):
        CrossEncoder(tmp_path)
    model = CrossEncoder(tmp_path / "not-there-yet", lazy=True)
    assert "not loaded" in repr(model)
    with pytest.raises(crossrank.ModelNotFoundError):
        model.load()


def test_it_loads_once_and_says_so(tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert)
    assert model.load() is model
    loaded = model._loaded
    model.predict(PAIRS)
    assert model._loaded is loaded
    assert repr(model) == f"CrossEncoder({str(tiny_bert)!r}, loaded)"
    assert (model.max_length, model.num_labels) == (512, 1)


def test_a_model_without_a_name_is_the_one_in_the_box() -> None:
    rows = CrossEncoder().rank("capital of France", ["Berlin is in Germany.", "Paris is France's capital."])
    assert [row["corpus_id"] for row in rows] == [1, 0]


# ---- threads


def test_many_threads_get_the_scores_that_one_gets(tiny_bert: Path) -> None:
    serial = CrossEncoder(tiny_bert, precision="float32")
    jobs = [texts.pairs(5 + i % 7, seed=i) for i in range(32)]
    expected = [serial.score(job).logits for job in jobs]
    shared = CrossEncoder(tiny_bert, precision="float32")  # not loaded yet: they also meet at the loading
    start = threading.Barrier(8)

    def work(offset: int) -> list[tuple[int, np.ndarray]]:
        start.wait(timeout=60)
        return [(i, shared.score(jobs[i]).logits) for i in range(offset, len(jobs), 8)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            got = dict(pair for pairs in pool.map(work, range(8)) for pair in pairs)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(got) == list(range(len(jobs)))
    for i, logits in got.items():
        np.testing.assert_allclose(logits, expected[i], atol=1e-5)


# ---- the facts

# Words that are one token each.
CATS, DOGS = ["cat"], ["dog"]


def test_what_is_cut_is_counted(tiny_bert: Path) -> None:
    # 16 tokens less three special ones leave 13 for the two texts; a query may have half of that, 6.
    model = CrossEncoder(tiny_bert, max_length=16)
    pairs = [(2, 11), (2, 12), (2, 20), (10, 20), (10, 3), (10, 5), (6, 7), (7, 7), (0, 0), (30, 0)]
    result = model.score([(" ".join(CATS * query), " ".join(DOGS * document)) for query, document in pairs])
    assert isinstance(result, PairScores)
    #                                              The query gives way only to a document that would be cut.
    assert result.query_tokens_cut.tolist() == [0, 0, 0, 4, 0, 2, 0, 1, 0, 17]
    assert result.document_tokens_cut.tolist() == [0, 1, 9, 13, 0, 0, 0, 0, 0, 0]
    assert result.pairs_cut == 6
    assert result.tokens == 16 + 16 + 16 + 16 + 16 + 16 + 16 + 16 + 3 + 16
    assert result.seconds > 0
    assert result.kind == "sigmoid"
    assert (result.logits.shape, result.logits.dtype) == ((10, 1), np.float32)
    np.testing.assert_array_equal(result.relevance, result.logits[:, 0].astype(np.float64))
    assert result.order.tolist() == _by(result.logits[:, 0])


def test_cut_pairs_score_as_what_is_left_of_them(tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert, max_length=16, precision="float32")
    whole = model.score([(" ".join(CATS * 2), " ".join(DOGS * 11))]).logits
    cut = model.score([(" ".join(CATS * 2), " ".join(DOGS * 500) + " end")])
    assert cut.document_tokens_cut.tolist() == [490]
    np.testing.assert_allclose(cut.logits, whole, atol=1e-6)


def test_repeated_pairs_are_scored_once(tiny_bert: Path) -> None:
    model = CrossEncoder(tiny_bert)
    once, often = model.score(PAIRS[:2]), model.score(PAIRS[:2] * 50)
    assert often.tokens == once.tokens
    np.testing.assert_array_equal(often.scores, np.tile(once.scores, 50))


def test_progress_can_be_told_to_a_function(ours: CrossEncoder) -> None:
    told: list[int] = []
    ours.score([*PAIRS, *PAIRS], show_progress_bar=told.append, batch_size=2)
    assert sum(told) == 2 * len(PAIRS)
    assert len(told) > len(PAIRS) // 2


def test_scores_of_several_labels_have_no_order(three_labels: Path) -> None:
    result = CrossEncoder(three_labels).score(PAIRS)
    assert result.scores.shape == (len(PAIRS), 3)
    assert (result.kind, result.relevance) == ("logit", None)
    with pytest.raises(InputError, match=r"scores of 3 labels.*label="):
        _ = result.order
