"""Prepared documents: the same scores as without, by text and by id, and bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

import texts
from crossrank import (
    Context,
    CrossEncoder,
    CrossEncoderStage,
    CrossRankError,
    FirstStage,
    InputError,
    MemoryCache,
    Reranker,
    StageScores,
)
from crossrank.errors import PreparedError
from crossrank.prepared.documents import PreparedDocuments

PAIRS = texts.pairs(40, queries=4)
QUERY = PAIRS[0][0]
DOCUMENTS = dict(zip((f"d{i}" for i in range(40)), dict.fromkeys(document for _, document in PAIRS), strict=False))


def prepare(folder: Path, model: Path | None, **settings: Any) -> PreparedDocuments:
    settings = {"precision": "float32", "num_threads": 1, **settings}
    return PreparedDocuments(folder, model, **settings)


def encoder(model: Path | None, prepared: Path | PreparedDocuments | None, **settings: Any) -> CrossEncoder:
    settings = {"precision": "float32", "num_threads": 1, "document_cache": 0, **settings}
    return CrossEncoder(model, prepared=prepared, **settings)


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "prepared"
    added = prepare(folder, tiny).add(DOCUMENTS, DOCUMENTS.values())
    assert (added.read, added.unchanged) == (len(DOCUMENTS), 0)
    return folder


def plain(model: Path | None, pairs: list[tuple[str, str]]) -> Any:
    return encoder(model, None).score(pairs).logits


@pytest.mark.parametrize(("storage", "tolerance"), [("float16", 0.02), ("int8", 0.15), ("int4", 3.0)])
def test_scores_are_those_of_the_texts(tiny: Path, tmp_path: Path, storage: str, tolerance: float) -> None:
    prepare(tmp_path / "p", tiny, storage=storage).add(DOCUMENTS, DOCUMENTS.values())
    result = encoder(tiny, tmp_path / "p").score(PAIRS)
    assert result.documents == result.documents_prepared == len(DOCUMENTS)
    expected = plain(tiny, PAIRS)
    assert expected.std() > 1
    np.testing.assert_allclose(result.logits, expected, rtol=0, atol=tolerance)


def test_the_bundled_model_ranks_as_without(tmp_path: Path) -> None:
    """On real texts; docs/prepared.md has the collections."""
    prepare(tmp_path / "p", None).add(DOCUMENTS, DOCUMENTS.values())
    stats = PreparedDocuments(tmp_path / "p").stats()
    assert stats["bytes"] == 390 * stats["tokens"]
    crossed = [(query, document) for query in dict.fromkeys(q for q, _ in PAIRS) for document in DOCUMENTS.values()]
    got = encoder(None, tmp_path / "p").score(crossed).logits.reshape(-1, len(DOCUMENTS))
    expected = plain(None, crossed).reshape(-1, len(DOCUMENTS))
    assert np.mean([kendalltau(a, b).statistic for a, b in zip(got, expected, strict=True)]) > 0.99


def test_what_is_not_there_is_read_and_counted(folder: Path, tiny: Path) -> None:
    some = [(QUERY, text) for text in [*list(DOCUMENTS.values())[:3], "a text that nobody has prepared"]]
    model = encoder(tiny, folder, document_cache="1MB")
    result = model.score(some)
    assert (result.documents, result.documents_prepared, result.documents_cached) == (4, 3, 0)
    assert model.score(some).documents_cached == 1
    np.testing.assert_allclose(result.logits, plain(tiny, some), rtol=0, atol=0.15)


def test_by_id_as_by_text(folder: Path, tiny: Path) -> None:
    model = encoder(tiny, folder)
    ids = list(DOCUMENTS)[::-1]
    by_id = model.rank_ids(QUERY, ids, top_k=5)
    by_text = model.rank(QUERY, [DOCUMENTS[i] for i in ids], top_k=5)
    assert [row["id"] for row in by_id] == [ids[row["corpus_id"]] for row in by_text]
    np.testing.assert_allclose([r["score"] for r in by_id], [r["score"] for r in by_text], rtol=0, atol=1e-6)
    with pytest.raises(PreparedError, match=r"The id 'nowhere' is not among the 40 documents"):
        model.rank_ids(QUERY, ["d0", "nowhere"])
    with pytest.raises(InputError, match="prepared"):
        encoder(tiny, None).rank_ids(QUERY, ["d0"])


def test_a_pipeline_ranks_documents_that_have_only_an_id(folder: Path, tiny: Path) -> None:
    model = encoder(tiny, folder)
    cache = MemoryCache()
    stages = [FirstStage(keep=30), CrossEncoderStage(model, keep=10), FirstStage(weight=0.0)]
    reranker = Reranker(stages, cache=cache)
    by_text = reranker.rank(QUERY, [{"text": text, "score": -i} for i, text in enumerate(DOCUMENTS.values())])
    # Texts under some ids, so that ids and texts are mixed; ids that are the text of another document.
    documents = [
        {"_id": i, "score": -n} | ({"text": DOCUMENTS[i]} if n % 3 == 0 else {}) for n, i in enumerate(DOCUMENTS)
    ]
    by_id = reranker.rank(QUERY, documents)
    assert [row.first_stage_position for row in by_id] == [row.first_stage_position for row in by_text]
    np.testing.assert_allclose([r.score for r in by_id], [r.score for r in by_text], rtol=0, atol=1e-5)
    assert by_id[0].document in documents
    assert "prepared: 30 of 30" in by_id.stages[1].notes
    limited = reranker.rank(QUERY, documents, deadline=60)
    assert [row.first_stage_position for row in limited] == [row.first_stage_position for row in by_id]
    with pytest.raises(PreparedError, match="The id 'nowhere' is not among"):
        Reranker(model).rank(QUERY, [{"id": "d0"}, {"id": "nowhere"}])


def test_scores_of_ids_are_not_kept_as_scores_of_texts(tiny: Path, tmp_path: Path) -> None:
    documents = prepare(tmp_path / "p", tiny)
    documents.add(["wing"], ["flow over a swept wing at high speed"])
    reranker = Reranker(encoder(tiny, documents), cache=MemoryCache())
    by_id, by_text = (reranker.rank(QUERY, [given])[0].score for given in ({"id": "wing"}, "wing"))
    assert by_id == pytest.approx(float(encoder(tiny, documents).score_ids(QUERY, ["wing"]).scores[0]))
    assert by_text == pytest.approx(float(encoder(tiny, documents).score([(QUERY, "wing")]).scores[0]))
    assert by_id != pytest.approx(by_text)


def test_a_stage_that_needs_texts_gets_no_ids(folder: Path, tiny: Path) -> None:
    class Longest:
        name, keep, threshold = "longest", None, None

        def warm_up(self) -> None: ...

        def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
            return StageScores(np.array([len(text) for text in documents], np.float64), kind="length")

    long = CrossEncoderStage(encoder(tiny, folder), long_documents="max")
    for stages in ([CrossEncoderStage(encoder(tiny, folder)), Longest()], long, encoder(tiny, None)):
        with pytest.raises(InputError, match=r"documents\[0\] .* has no text"):
            Reranker(stages).rank(QUERY, [{"id": "d0"}])


def test_only_what_is_new_or_changed_is_read(tiny: Path, tmp_path: Path) -> None:
    documents = prepare(tmp_path / "p", tiny)
    assert len(documents) == 0
    documents.add(["a", "b", "c"], ["one", "two", "three"])
    added = documents.add(["a", "b", "c", "d"], ["one", "changed", "three", "four"])
    assert (added.read, added.unchanged, len(documents)) == (2, 2, 4)
    assert documents.remove(["a", "nowhere"]) == 1
    assert documents.prune(["b", "c"]) == 1
    assert len(documents) == documents.stats()["documents"] == 2
    model = encoder(tiny, documents)
    pairs = [(QUERY, text) for text in ("one", "two", "three", "four", "changed")]
    result = model.score(pairs)
    assert result.documents_prepared == 2
    np.testing.assert_allclose(result.logits, plain(tiny, pairs), rtol=0, atol=0.15)


def test_space_is_given_back(tiny: Path, tmp_path: Path) -> None:
    documents = prepare(tmp_path / "p", tiny)
    documents.add(DOCUMENTS, DOCUMENTS.values())
    before = encoder(tiny, documents).score([(QUERY, DOCUMENTS["d39"])]).logits
    documents.remove(list(DOCUMENTS)[:30])
    assert documents.stats()["bytes_unused"] > documents.stats()["bytes"]
    documents.compact()
    assert documents.stats()["bytes_unused"] == 0
    assert len(documents) == 10
    assert len(list((tmp_path / "p").glob("segment-*"))) == 1
    after = encoder(tiny, documents).score([(QUERY, DOCUMENTS["d39"])])
    assert after.documents_prepared == 1
    np.testing.assert_array_equal(after.logits, before)


def test_one_text_under_two_ids_is_stored_once(tiny: Path, tmp_path: Path) -> None:
    documents = prepare(tmp_path / "p", tiny)
    documents.add(["a"], ["the same text"])
    size = documents.stats()["bytes"]
    documents.add(["b", "c"], ["the same text", "the same text"])
    assert documents.stats()["bytes"] == size
    documents.remove(["a"])
    documents.compact()
    assert documents.stats()["bytes"] == size
    scores = encoder(tiny, documents).score_ids(QUERY, ["b", "c"]).scores
    assert scores[0] == scores[1]


def test_a_reader_sees_one_state_until_it_asks_again(tiny: Path, tmp_path: Path) -> None:
    writer = prepare(tmp_path / "p", tiny)
    writer.add(["a", "b"], ["one", "two"])
    reader = PreparedDocuments(tmp_path / "p")
    writer.add(["c"], ["three"])
    writer.remove(["a"])
    writer.compact()
    assert len(reader) == 2
    assert reader.find("one") is not None
    assert reader.find("three") is None
    reader.refresh()
    assert len(reader) == 2
    assert reader.find("one") is None
    assert reader.find("three") is not None


# ---- bound to the model --------------------------------------------------------------------------------------------


def test_another_model_precision_or_length_is_refused(folder: Path, tiny: Path, other: Path) -> None:
    with pytest.raises(PreparedError, match=r"another model .*crossrank prepare"):
        encoder(other, folder).load()
    with pytest.raises(PreparedError, match=r"precision=float32.*--precision float32"):
        encoder(tiny, folder, precision="bfloat16").load()
    with pytest.raises(PreparedError, match=r"max_length=512.*--max-length 512"):
        encoder(tiny, folder, max_length=128).load()
    with pytest.raises(PreparedError, match="another model"):
        prepare(folder, other).add(["x"], ["y"])
    with pytest.raises(PreparedError, match="stored as int8"):
        prepare(folder, tiny, storage="float16")


def test_a_changed_tokenizer_is_another_model(folder: Path, tiny: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    encoder(copy, folder).load()
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": False}))
    with pytest.raises(PreparedError, match="another model"):
        encoder(copy, folder).load()


def test_a_joint_model_has_no_use_for_it(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads query and document together"):
        encoder(tiny_bert, folder).load()
    with pytest.raises(InputError, match="reads query and document together"):
        prepare(tmp_path / "p", tiny_bert).add(["a"], ["b"])
    assert not (tmp_path / "p").exists()


def test_a_folder_without_documents(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(PreparedError, match="crossrank prepare"):
        CrossEncoder(tiny, prepared=tmp_path)
    with pytest.raises(InputError, match="prepared=3"):
        CrossEncoder(tiny, prepared=3)  # type: ignore[arg-type]


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "contents", "names"),
    [
        (["a", "a"], ["one", "two"], r"ids\[1\] is 'a'.*another text"),
        (["a", 7], ["one", "two"], r"ids\[1\] is 7"),
        (["a", ""], ["one", "two"], r"ids\[1\] is ''"),
        (["a", None], ["one", "two"], r"ids\[1\] is None"),
        (["a\ud800"], ["one"], r"ids\[0\].*surrogate"),
        (["a", "b"], ["one", 2], r"texts\[1\] is 2"),
        (["a", "b"], ["one", None], r"texts\[1\] is None"),
        (["a", "b"], ["one"], "2 ids and 1 texts"),
        ("ab", ["one", "two"], "lists of strings"),
    ],
)
def test_bad_documents_are_named_and_nothing_is_added(
    tiny: Path, tmp_path: Path, ids: Any, contents: Any, names: str
) -> None:
    documents = prepare(tmp_path / "p", tiny)
    with pytest.raises(InputError, match=names):
        documents.add(ids, contents)
    assert len(documents) == 0


def test_strange_but_sound_documents(tiny: Path, tmp_path: Path) -> None:
    """Empty texts, a long id, the same document twice, ids and texts that only normalise alike, half surrogates."""
    strange = {
        "empty": "",
        "space": " ",
        "x" * 10_000: "an id of ten thousand characters",
        "caf\u00e9": "caf\u00e9",
        "cafe\u0301": "cafe\u0301",
        "'; DROP TABLE documents; --": "quotes",
        "\0": "a zero",
        "half": "half \ud800 of a pair",
        "long": "word " * 5000,
    }
    documents = prepare(tmp_path / "p", tiny)
    added = documents.add([*strange, "empty"], [*strange.values(), ""])
    assert added.read == len(documents) == len(strange)
    model = encoder(tiny, PreparedDocuments(tmp_path / "p"))
    pairs = [(QUERY, text) for text in strange.values()]
    result = model.score(pairs)
    fresh = encoder(tiny, None).score(pairs)
    assert result.documents_prepared == len(strange)
    np.testing.assert_allclose(result.logits, fresh.logits, rtol=0, atol=0.2)
    np.testing.assert_array_equal(result.document_tokens_cut, fresh.document_tokens_cut)
    assert result.document_tokens_cut[-1] > 4000
    by_id = model.score_ids(QUERY, list(strange))
    np.testing.assert_allclose(by_id.logits, result.logits, rtol=0, atol=1e-5)
    assert issubclass(PreparedError, CrossRankError)
