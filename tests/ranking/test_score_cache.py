"""Scores that are known already: never the wrong one, never more room than allowed."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import texts
from checkpoints import make_checkpoint
from crossrank import (
    CrossEncoder,
    CrossEncoderStage,
    DiskCache,
    InputError,
    MemoryCache,
    ModelRegistry,
    RegistryModel,
    Reranker,
)
from crossrank.ranking.cache.score_cache import CachedScore, key_of

QUERY = texts.pairs(1)[0][0]
TEXTS = [passage[:200] for _, passage in texts.pairs(8)]
odd = st.one_of(
    st.text(st.characters(codec=None), max_size=6), st.sampled_from(["", "a", "ab", "b", "bc", "\x00", "\ud800"])
)
Make = Callable[..., Any]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryCache
    return lambda *limit: DiskCache(tmp_path / "deep" / "scores.sqlite", *limit)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(one=st.tuples(odd, odd, odd), other=st.tuples(odd, odd, odd))
def test_two_pairs_have_one_key_only_if_they_are_one(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_the_border_between_texts_counts() -> None:
    assert len({key_of("m", "a", "bc"), key_of("m", "ab", "c"), key_of("ma", "", "bc"), key_of("", "ma", "bc")}) == 4


@settings(max_examples=100, deadline=None, derandomize=True)
@given(score=st.floats(allow_nan=False), relevance=st.one_of(st.none(), st.floats(allow_nan=False)), cut=st.booleans())
def test_what_is_kept_comes_back_as_it_was(score: float, relevance: float | None, cut: bool) -> None:
    row = CachedScore(score, relevance, "logit", cut, (1, 2), {"reason": "\ud800 ü"})
    assert CachedScore.unpack(row.pack()) == row


def test_known_scores_are_not_scored_again(make: Make) -> None:
    model = CrossEncoder()
    cache = make()
    reranker = Reranker(CrossEncoderStage(model), cache=cache)
    plain = Reranker(CrossEncoderStage(model)).rank(QUERY, TEXTS)
    first = reranker.rank(QUERY, TEXTS[:5])
    second = reranker.rank(QUERY, TEXTS)
    third = reranker.rank(QUERY, TEXTS)
    assert [ranking.cache_hit_rate for ranking in (plain, first, second, third)] == [None, 0.0, 5 / 8, 1.0]
    assert third.tokens == 0
    assert third.documents == second.documents == plain.documents
    assert [ranked.score for ranked in third] == [ranked.score for ranked in second]
    assert [ranked.score for ranked in third] == pytest.approx([ranked.score for ranked in plain], abs=0.02)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.entries) == (13, 8, 8)
    assert reranker.rank("another query", TEXTS).cache_hit_rate == 0.0
    reranker.close()
    reranker.close()


def test_cut_texts_are_told_from_the_cache_too(make: Make) -> None:
    reranker = Reranker(CrossEncoderStage(max_length=16), cache=make())
    assert reranker.rank(QUERY, TEXTS).pairs_cut == reranker.rank(QUERY, TEXTS).pairs_cut > 0


def test_another_model_or_setting_is_another_key(tiny_bert: Path, make: Make) -> None:
    stages = [
        CrossEncoderStage(tiny_bert, precision="float32"),
        CrossEncoderStage(tiny_bert, precision="float32", max_length=32),
        CrossEncoderStage(tiny_bert, precision="float32", activation_fn="identity"),
        CrossEncoderStage(tiny_bert, precision="bfloat16"),
        CrossEncoderStage(),
    ]
    marks = [stage.fingerprint() for stage in stages]
    assert len(set(marks)) == len(stages)
    assert marks[0] == CrossEncoderStage(tiny_bert, precision="float32").fingerprint()
    # Nobody knows what a function does; nothing is kept for it.
    cache = make()
    own = Reranker(CrossEncoderStage(tiny_bert, activation_fn=lambda logits: logits * 2), cache=cache)
    assert own.rank(QUERY, TEXTS).cache_hit_rate is None
    assert cache.stats.entries == 0


def test_a_changed_file_is_another_model(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    before = CrossEncoderStage(folder).fingerprint()
    with (folder / "config.json").open("a") as stream:
        stream.write("\n")
    assert CrossEncoderStage(folder).fingerprint() != before


@pytest.mark.parametrize("name", ["identity", "tanh", "sigmoid"])
def test_scores_of_every_named_activation_are_kept(name: str, tiny_bert: Path) -> None:
    reranker = Reranker(CrossEncoderStage(tiny_bert, activation_fn=name, precision="float32"), cache=MemoryCache())
    first = reranker.rank(QUERY, TEXTS)
    second = reranker.rank(QUERY, TEXTS)
    assert (first.cache_hit_rate, second.cache_hit_rate) == (0.0, 1.0)
    assert [ranked.score for ranked in first] == [ranked.score for ranked in second]


def test_the_fingerprint_is_of_the_model_in_memory(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    stage = CrossEncoderStage(folder)
    before = stage.fingerprint()
    shutil.copy(make_checkpoint(tmp_path / "other", "bert", seed=1) / "model.safetensors", folder / "new")
    (folder / "new").replace(folder / "model.safetensors")
    assert stage.fingerprint() == before
    assert CrossEncoderStage(folder).fingerprint() != before


def test_a_model_that_is_replaced_between_look_up_and_scoring(tiny_bert: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(tiny_bert))
    second = registry.publish(make_checkpoint(tmp_path / "other", "bert", seed=1))
    settings = {"precision": "float32"}
    replace_next = threading.Event()

    class Replacing(CrossEncoderStage):
        def score(self, *given: Any) -> Any:
            if replace_next.is_set():
                registry.switch(second)
            return super().score(*given)

    stage = Replacing(RegistryModel(registry.folder, check_every=0, **settings))
    cache = MemoryCache()
    reranker = Reranker(stage, cache=cache)
    reranker.rank(QUERY, TEXTS[:4])
    replace_next.set()
    # Half of the texts are known from the first version. No ranking mixes the scores of two models.
    ranking = reranker.rank(QUERY, TEXTS)
    expected = CrossEncoder(second.folder, **settings).rank(QUERY, TEXTS)
    assert [ranked.first_stage_position for ranked in ranking] == [row["corpus_id"] for row in expected]
    assert [ranked.score for ranked in ranking] == pytest.approx([row["score"] for row in expected], abs=1e-6)
    assert reranker.rank(QUERY, TEXTS).cache_hit_rate == 0.0
    assert reranker.rank(QUERY, TEXTS).cache_hit_rate == 1.0


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="another program"):
        DiskCache(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["places.sqlite"]


def test_a_copy_of_a_cache(make: Make) -> None:
    cache = make()
    cache.put_many({b"k": b"v"})
    for copied in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert copied.get_many([b"k"]) == ([b"v"] if isinstance(cache, DiskCache) else [None])
        copied.put_many({b"l": b"w"})
        assert copied.get_many([b"l"]) == [b"w"]


def test_room_is_made_for_the_new(make: Make) -> None:
    most = 200_000
    cache = make(most)
    keys = [key_of("m", "q", str(i)) for i in range(5000)]
    for start in range(0, len(keys), 100):
        cache.put_many(dict.fromkeys(keys[start : start + 100], b"x" * 100))
        assert cache.stats.bytes <= most
    assert cache.stats.evictions > 0
    assert cache.stats.entries > 200
    found = cache.get_many(keys)
    assert found[-1] == b"x" * 100
    assert found[0] is None
    assert cache.stats.errors == 0
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="max_bytes="):
            make(wrong)


def test_threads_share_it(make: Make) -> None:
    cache = make()

    def work(offset: int) -> bool:
        for i in range(40):
            key = key_of("m", "q", str(i))
            cache.put_many({key: str(i).encode()})
            if cache.get_many([key]) != [str(i).encode()]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert (cache.stats.entries, cache.stats.errors) == (40, 0)


def _fill(path: str, offset: int) -> int:
    cache = DiskCache(path)
    for i in range(20):
        cache.put_many({key_of("m", str(offset), str(i)): b"1"})
    return cache.stats.errors


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "scores.sqlite")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        errors = pool.starmap(_fill, [(path, offset) for offset in range(3)])
    cache = DiskCache(path)
    # What could not be written while another process wrote is counted, and nothing else is missing.
    assert cache.stats.entries == 60 - sum(errors)
    assert cache.stats.entries > 40


def test_a_store_that_fails_never_fails_a_ranking(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "scores.sqlite")
    reranker = Reranker(cache=cache)
    expected = reranker.rank(QUERY, TEXTS).documents
    threads = threading.active_count()  # other tests' servers may still be there
    other = sqlite3.connect(tmp_path / "scores.sqlite")
    other.execute("DROP TABLE scores")
    other.commit()
    assert reranker.rank(QUERY, TEXTS).documents == expected
    assert cache.stats.errors > 0
    (tmp_path / "notes.txt").write_text("This is no database. " * 50)
    with pytest.raises(InputError, match=r"notes\.txt' can't be used as a score cache"):
        DiskCache(tmp_path / "notes.txt")
    assert threading.active_count() <= threads


def test_damaged_scores_are_made_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "scores.sqlite")
    reranker = Reranker(CrossEncoderStage(CrossEncoder()), cache=cache)
    first = reranker.rank(QUERY, TEXTS)
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE scores SET value = x'00ff'")
    again = reranker.rank(QUERY, TEXTS)
    assert (again.cache_hit_rate, again.documents) == (0.0, first.documents)
    assert reranker.rank(QUERY, TEXTS).cache_hit_rate == 1.0
    cache.close()
