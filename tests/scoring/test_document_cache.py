"""States of documents kept in memory: the same scores, in a bound, from many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import texts
from crossrank import CrossEncoder, InputError
from crossrank.scoring.cross_encoder import CHUNK
from crossrank.scoring.long_documents import score_long

PAIRS = texts.pairs(40, queries=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from split_checkpoints import tiny_split

    return tiny_split(tmp_path_factory.mktemp("tiny"))


def model(folder: Path | None, cache: str | int = "16MB", precision: str = "float32") -> CrossEncoder:
    return CrossEncoder(folder, precision=precision, num_threads=1, document_cache=cache)


def test_scores_from_the_cache_are_those_of_a_fresh_model(tiny: Path) -> None:
    kept = model(tiny)
    kept.score(PAIRS[:20])
    # Other queries, another order, and half of the documents new.
    again = [(query, document) for (query, _), (_, document) in zip(PAIRS, PAIRS[::-1], strict=True)]
    result = kept.score(again)
    assert 0 < result.documents_cached < result.documents == len({document for _, document in again})
    np.testing.assert_allclose(result.logits, model(tiny, 0).score(again).logits, rtol=0, atol=1e-5)
    facts = kept.info()["document_cache"]
    assert facts["hits"] == result.documents_cached
    assert 0 < facts["bytes"] <= facts["max_bytes"] == 16_000_000


def test_scores_of_the_bundled_model_from_the_cache() -> None:
    """float32 up to its own rounding, bfloat16 up to what another shape of a batch changes."""
    for precision, tolerance in (("float32", 2e-5), ("bfloat16", 0.1)):
        kept = model(None, precision=precision)
        kept.score(PAIRS)
        result = kept.score(PAIRS[::-1])
        assert result.documents_cached == result.documents
        fresh = model(None, 0, precision).score(PAIRS[::-1]).logits
        np.testing.assert_allclose(result.logits, fresh, rtol=0, atol=tolerance)


def test_a_cache_of_nothing_keeps_nothing(tiny: Path) -> None:
    off = model(tiny, 0)
    off.score(PAIRS)
    assert off.score(PAIRS).documents_cached == 0
    assert off.info()["document_cache"]["bytes"] == 0


def test_the_cache_stays_within_its_bound_and_keeps_what_was_used_last(tiny: Path) -> None:
    small = model(tiny, 60_000)
    small.score(PAIRS)
    facts = small.info()["document_cache"]
    assert 20_000 < facts["bytes"] <= 60_000
    assert facts["documents"] < len({document for _, document in PAIRS})
    small.score(PAIRS[:1])
    assert small.score(PAIRS[:1]).documents_cached == 1


def test_a_call_reads_each_document_once_whatever_the_order(tiny: Path) -> None:
    """Three queries on more documents than one chunk has, query by query, nothing kept."""
    documents = [f"wing number {i} at speed {i * 7}" for i in range(CHUNK)]
    pairs = [(query, document) for query in ("a wing", "its speed", "a number") for document in documents]
    off = model(tiny, 0)
    result = off.score(pairs)
    assert result.documents == len(documents)
    assert off.info()["document_cache"]["misses"] == len(documents)
    alone = off.score(pairs[-2:]).logits
    np.testing.assert_allclose(result.logits[-2:], alone, rtol=0, atol=1e-5)


def test_many_threads_on_one_small_cache(tiny: Path) -> None:
    shared = model(tiny, 30_000)
    expected = model(tiny, 0).score(PAIRS).logits

    def one(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(PAIRS))
        got = shared.score([PAIRS[i] for i in order]).logits
        np.testing.assert_allclose(got, expected[order], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(24)))
    assert shared.info()["document_cache"]["bytes"] <= 30_000


def test_windows_of_long_documents_are_kept_too(tiny: Path) -> None:
    kept = model(tiny)
    long = [(PAIRS[0][0], " ".join(document for _, document in PAIRS))]
    first = score_long(kept, long)
    second = score_long(kept, long)
    assert second.documents_cached == second.documents == first.documents > 1
    np.testing.assert_allclose(second.logits, first.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", ["many", "-1MB", -1, True, 1.5, None])
def test_an_amount_of_memory_that_is_none(value: object) -> None:
    with pytest.raises(InputError, match="document_cache"):
        CrossEncoder(document_cache=value)  # type: ignore[arg-type]


def test_amounts_of_memory() -> None:
    from crossrank.prepared.known_documents import parse_bytes

    amounts = {"256MB": 256_000_000, "1.5 gb": 1_500_000_000, "4k": 4000, 17: 17, "0": 0, "100": 100}
    assert {given: parse_bytes("document_cache", given) for given in amounts} == amounts
