"""Long documents in windows: against windows scored one by one, and against what the short text scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.long_documents import make, rank_hidden, rank_short

import texts
from checkpoints import make_checkpoint
from crossrank.errors import InputError
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.aggregation import aggregate, spread
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import STRATEGIES, LongDocuments, score_long

QUERY = "how are values sorted"
LONG = [" ".join(texts.passages()[i : i + 5]) for i in range(0, 20, 5)]
SHORT = [passage[:200] for passage in texts.passages()[60:66]]
PAIRS = [(QUERY, text) for pair in zip(LONG, SHORT, strict=False) for text in pair]
LOW = {"max_length": 96, "precision": "float32"}


@pytest.fixture(scope="module")
def joint(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(tiny_bert, **LOW)


@pytest.fixture(scope="module")
def box() -> CrossEncoder:
    return CrossEncoder(**LOW)


@pytest.fixture(params=["joint", "box"])
def model(request: pytest.FixtureRequest) -> CrossEncoder:
    return request.getfixturevalue(request.param)


def by_hand(model: CrossEncoder, text: str, overlap: int = 64) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The windows of a document, each scored alone."""
    from crossrank.tokenization.windows import cut_documents

    (cut,) = cut_documents(model._load().encoder, [(QUERY, text)], overlap=overlap, size=256)
    spans = [(window.start, window.end) for window in cut.windows]
    one_by_one = [model.score([(QUERY, text[start:end])]) for start, end in spans]
    assert not any(result.pairs_cut for result in one_by_one)
    return spans, np.array([result.logits[0, 0] for result in one_by_one], np.float64)


def test_max_is_the_best_of_the_windows_scored_by_hand(model: CrossEncoder) -> None:
    got = score_long(model, PAIRS, LongDocuments(max_windows=None))
    for i, (_, text) in enumerate(PAIRS):
        spans, logits = by_hand(model, text)
        assert got.windows[i] == len(spans)
        assert got.logits[i, 0] == pytest.approx(logits.max(), abs=1e-5)
        assert logits[spans.index(got.passages[i])] == pytest.approx(logits.max(), abs=1e-5)
    assert max(got.windows) > 5
    assert got.pairs_cut == 0
    assert not got.windows_left_out.any()


def test_the_mean_of_the_best_by_hand(model: CrossEncoder) -> None:
    got = score_long(model, PAIRS, LongDocuments("mean_top_k", top_k=2, max_windows=None))
    for i, (_, text) in enumerate(PAIRS):
        _, logits = by_hand(model, text)
        mean = np.sort(logits)[::-1][:2].mean()
        assert got.logits[i, 0] == pytest.approx(mean, abs=1e-5)
        assert got.scores[i] == pytest.approx(1 / (1 + np.exp(-mean)), abs=1e-5)


def test_first_is_the_first_window_by_hand(model: CrossEncoder) -> None:
    got = score_long(model, PAIRS, LongDocuments("first", max_windows=None))
    for i, (_, text) in enumerate(PAIRS):
        spans, logits = by_hand(model, text)
        assert got.logits[i, 0] == pytest.approx(logits[0], abs=1e-5)
        assert got.passages[i] == spans[0]
        assert got.windows_left_out[i] == len(spans) - 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_short_documents_score_exactly_as_without(strategy: str, model: CrossEncoder) -> None:
    pairs = [(QUERY, text) for text in SHORT] + [(QUERY, ""), (QUERY, " \ud800 ")]
    plain = model.score(pairs)
    got = score_long(model, pairs, strategy)
    assert np.array_equal(got.logits, plain.logits)
    assert np.array_equal(got.scores, plain.scores)
    assert got.tokens == plain.tokens
    assert list(got.windows) == [1] * len(pairs)
    assert got.passages == [(0, len(text)) for _, text in pairs]


def test_truncate_is_what_score_does_and_says_where_it_ends(model: CrossEncoder) -> None:
    plain, got = model.score(PAIRS), score_long(model, PAIRS, "truncate")
    assert np.array_equal(got.logits, plain.logits)
    assert np.array_equal(got.document_tokens_cut, plain.document_tokens_cut)
    # The passage is all that was read: alone it has the same score, and nothing of it is cut.
    read = [(QUERY, text[start:end]) for (_, text), (start, end) in zip(PAIRS, got.passages, strict=True)]
    again = model.score(read)
    assert again.pairs_cut == 0
    assert np.abs(again.logits - plain.logits).max() <= 1e-5


def test_of_many_windows_some_are_read_and_the_others_told(model: CrossEncoder) -> None:
    whole = score_long(model, PAIRS, LongDocuments(overlap=0, max_windows=None))
    got = score_long(model, PAIRS, LongDocuments(overlap=0, max_windows=3))
    assert list(got.windows) == [min(3, count) for count in whole.windows]
    assert np.array_equal(got.windows + got.windows_left_out, whole.windows)
    assert np.array_equal(got.document_tokens_cut > 0, got.windows_left_out > 0)
    assert not whole.document_tokens_cut.any()
    assert got.tokens < whole.tokens


def test_evenly_spread() -> None:
    assert list(spread(9, 3)) == [0, 4, 8]
    assert list(spread(10, 4)) == [0, 3, 6, 9]
    assert list(spread(5, 1)) == [0]
    assert list(spread(3, 7)) == [0, 1, 2]


def test_aggregated_by_hand() -> None:
    logits = np.array([[1.0], [4.0], [2.0], [4.0]], np.float32)
    relevance = logits[:, 0].astype(np.float64)
    expected = {"truncate": 1.0, "first": 1.0, "max": 4.0, "mean_top_k": 10 / 3}
    for strategy, value in expected.items():
        got, best = aggregate(strategy, logits, relevance, 3)
        assert got[0] == pytest.approx(value)
        assert best == 1  # of equal ones the first


def test_a_document_counts_no_matter_its_company(model: CrossEncoder) -> None:
    together = score_long(model, PAIRS).logits
    alone = np.concatenate([score_long(model, [pair]).logits for pair in PAIRS])
    assert np.abs(together - alone).max() <= 1e-5


def test_windows_that_queries_share_are_read_once(box: CrossEncoder) -> None:
    one = score_long(box, [(QUERY, LONG[0])])
    two = score_long(box, [(QUERY, LONG[0]), (QUERY, LONG[0])])
    assert two.tokens == one.tokens
    assert np.array_equal(two.logits[0], two.logits[1])


def test_a_label_of_several(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "bert", num_labels=3)
    with pytest.raises(InputError, match="3 labels"):
        score_long(CrossEncoder(folder, **LOW), PAIRS)
    got = score_long(CrossEncoder(folder, label=2, **LOW), PAIRS[:1])
    assert got.logits.shape == (1, 3)
    assert got.scores[0] == pytest.approx(np.exp(got.logits[0, 2]) / np.exp(got.logits[0]).sum())


def test_nothing_in_nothing_out(box: CrossEncoder) -> None:
    for strategy in STRATEGIES:
        got = score_long(box, [], strategy)
        assert len(got.scores) == len(got.windows) == len(got.passages) == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strategy": "best"}, "truncate, first, max, mean_top_k"),
        ({"strategy": None}, "is not known"),
        ({"overlap": -1}, "overlap=-1"),
        ({"window": 0}, "window=0"),
        ({"max_windows": True}, "max_windows=True"),
        ({"top_k": None}, "top_k=None"),
    ],
)
def test_what_cannot_be_used(settings: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        LongDocuments(**settings)


def test_a_stage_reads_windows_and_names_passages(box: CrossEncoder) -> None:
    settings = LongDocuments("max", overlap=16, max_windows=4)
    ranking = Reranker([CrossEncoderStage(box, long_documents=settings)]).rank(QUERY, LONG + SHORT)
    direct = score_long(box, [(QUERY, text) for text in LONG + SHORT], settings)
    assert [row.first_stage_position for row in ranking] == list(direct.order)
    assert [row.passage for row in ranking] == [direct.passages[i] for i in direct.order]
    assert [row.score for row in ranking] == pytest.approx(list(direct.scores[direct.order]), abs=1e-5)
    cut = int((direct.windows_left_out > 0).sum())
    some = "1 document" if cut == 1 else f"{cut} documents"
    assert f"{direct.windows_left_out.sum()} windows of {some} were not read" in ranking.stages[0].notes[0]
    by_name = CrossEncoderStage(box, long_documents={"strategy": "max", "overlap": 16, "max_windows": 4})
    assert by_name.long_documents == settings
    assert by_name.fingerprint() != CrossEncoderStage(box).fingerprint()
    with pytest.raises(InputError, match="no setting 'overlaps'"):
        CrossEncoderStage(box, long_documents={"overlaps": 16})


def test_a_deadline_holds_with_windows(box: CrossEncoder) -> None:
    reranker = Reranker([CrossEncoderStage(box, long_documents="max")], deadline=0.5)
    reranker.warm_up()
    ranking = reranker.rank(QUERY, LONG * 100)
    assert ranking.degraded
    assert len(ranking) == 100 * len(LONG)


@pytest.mark.shared_data
def test_windows_regain_what_truncation_loses() -> None:
    # Small, and windows of half the length, to be quick.
    collection = make("xquad-en", 4, 4, words=250)
    model = CrossEncoder(max_length=160)
    short = rank_short(model, collection)
    truncated = rank_hidden(model, collection, LongDocuments("truncate"))
    best = rank_hidden(model, collection, LongDocuments("max"))
    assert short - truncated["ndcg"] > 0.15
    assert short - best["ndcg"] < 0.2 * (short - truncated["ndcg"])
    assert best["passage_found"] > 0.8
