"""Windows of long documents: whatever the text and the tokenizer, nothing is lost and all of them fit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import texts
from checkpoints import save_tokenizer
from crossrank.tokenization.pair_encoder import Encoder, PairEncoder
from crossrank.tokenization.split_encoder import SplitEncoder
from crossrank.tokenization.tokenizer import load_tokenizer, pair_template
from crossrank.tokenization.windows import Window, covered, cut_documents, locate, window_ranges

few = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KINDS = ["wordpiece", "byte_bpe", "unigram"]
QUERY = "how are values sorted"

ODD = ["", " ", "\x00", "\r\n\t", "\ud800", "\ufeff", "\u0301" * 9, "a\u0308" * 50, "👩\u200d👩\u200d👧", "🇩🇪🇫🇷", "𝔘𝔫𝔦"]
ODD += [
    "x" * 900,
    "漢" * 200,
    "吾輩は猫である。名前はまだ無い。",
    "." * 80,
    "[CLS] [SEP]",
    "ﷺ" * 20,
    "İı ﬁ",
    " " * 50,
    "\n\n",
]
pieces = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=60),
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from([passage[:600] for passage in texts.passages()]),
)
anything = st.lists(pieces, min_size=1, max_size=6).flatmap(
    lambda parts: st.sampled_from(["", " ", ". ", "\n"]).map(lambda between: between.join(parts))
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        save_tokenizer(folder, kind)
        tokenizer = load_tokenizer(folder)
        made[kind] = (tokenizer, pair_template(tokenizer, 0))
    return made


def joint(tokenizers: dict[str, tuple], kind: str, max_length: int) -> PairEncoder:
    return PairEncoder(*tokenizers[kind], max_length, token_types=False)


def lost(encoder: Encoder, query: str, text: str) -> int:
    return int(encoder.encode([(query, text)]).document_cut[0])


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=anything, room=st.integers(1, 60), overlap=st.integers(0, 40))
def test_a_plan_covers_the_text_with_the_overlap_asked_for(
    kind: str, text: str, room: int, overlap: int, tokenizers: dict[str, tuple]
) -> None:
    (located,) = locate(tokenizers[kind][0], [text])
    ranges = window_ranges(located, room, overlap)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(located)
    # Tokens of the same character are never parted, so the room and the overlap count characters' first tokens.
    widest = int(np.unique(located.starts[:-1], return_counts=True)[1].max(initial=1))
    for (first, last), (after, end) in pairwise(ranges):
        assert first < after <= last < end
        if widest == 1:
            assert last - after >= min(overlap, room // 2)
            assert last - after <= min(overlap, room // 2) + room // 8
        if not overlap:
            assert after == last
    assert all(last - first <= room + (2 * widest if widest > 1 else 0) for first, last in ranges)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=anything, query=st.one_of(st.just(QUERY), pieces), length=st.integers(12, 70), overlap=st.integers(0, 20))
def test_windows_cover_every_character_and_fit(
    kind: str, text: str, query: str, length: int, overlap: int, tokenizers: dict[str, tuple]
) -> None:
    encoder = joint(tokenizers, kind, length)
    (cut,) = cut_documents(encoder, [(query, text)], overlap=overlap)
    windows = cut.windows
    assert windows[0].start == 0
    assert windows[-1].end == len(text)
    for one, next_one in pairwise(windows):
        # Between two windows there is nothing but white space.
        assert next_one.start <= one.end or not text[one.end : next_one.start].strip()
        assert one.start < next_one.start
    for window in windows:
        # A character that makes more tokens than there is room for is all that may be cut.
        single = len(text[window.start : window.end].strip()) <= 1 or _one_token(window)
        assert lost(encoder, query, text[window.start : window.end]) == 0 or single
    if lost(encoder, query, text) == 0:
        assert [(window.start, window.end) for window in windows] == [(0, len(text))]
    assert covered(windows) == cut.tokens


def _one_token(window: Window) -> bool:
    return window.last - window.first <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_prose_is_cut_at_sentence_ends(kind: str, tokenizers: dict[str, tuple]) -> None:
    sentences = [f"Sentence {i} says what it has to say, in a few words." for i in range(60)]
    text = " ".join(sentences)
    encoder = joint(tokenizers, kind, 128)
    (cut,) = cut_documents(encoder, [(QUERY, text)], overlap=0)
    assert len(cut.windows) > 5
    # Put together again they are the text, and each begins and ends with a sentence.
    assert " ".join(text[window.start : window.end] for window in cut.windows) == text
    for window in cut.windows:
        assert text[window.start : window.end].startswith("Sentence")
        assert text[window.start : window.end].endswith("words.")


def test_sentences_of_other_scripts_and_lines_count(tokenizers: dict[str, tuple]) -> None:
    encoder = joint(tokenizers, "wordpiece", 64)
    text = "吾輩は猫である。" * 40
    (cut,) = cut_documents(encoder, [("猫", text)], overlap=0)
    assert len(cut.windows) > 3
    assert all(text[window.start : window.end].endswith("。") for window in cut.windows)
    lines = "\n".join(f"key {i} = value {i}" for i in range(99))
    (cut,) = cut_documents(encoder, [("key 7", lines)], overlap=0)
    assert all(lines[window.start : window.end].startswith("key") for window in cut.windows)
    assert all(line in lines.split("\n") for w in cut.windows for line in lines[w.start : w.end].split("\n"))


def test_a_longer_query_leaves_shorter_windows(tokenizers: dict[str, tuple]) -> None:
    encoder = joint(tokenizers, "wordpiece", 64)
    text = " ".join(texts.passages()[:20])
    short, long = cut_documents(encoder, [(QUERY, text), (" ".join([QUERY] * 5), text)], overlap=8)
    assert len(long.windows) > len(short.windows)
    for query, cut in ((QUERY, short), (" ".join([QUERY] * 5), long)):
        assert not any(lost(encoder, query, text[w.start : w.end]) for w in cut.windows)


def test_split_models_have_the_same_windows_for_all_queries(tokenizers: dict[str, tuple]) -> None:
    encoder = SplitEncoder(*tokenizers["wordpiece"], 128, 64)
    text = " ".join(texts.passages()[:20])
    one, other = cut_documents(encoder, [(QUERY, text), (" ".join([QUERY] * 9), text)], overlap=16)
    assert one.windows == other.windows
    assert not any(lost(encoder, QUERY, text[w.start : w.end]) for w in one.windows)


def test_a_text_of_dots_takes_no_longer_than_another(tokenizers: dict[str, tuple]) -> None:
    # Quadratic time would be minutes here.
    for text in ("." * 200_000, " " * 200_000 + "x", "\n" * 200_000, ".'" * 100_000, "。" * 100_000):
        list(locate(tokenizers["wordpiece"][0], [text]))
