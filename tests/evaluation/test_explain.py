"""Occlusion finds what a score rests on; offsets are those of the text, whatever the text."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import texts
from crossrank import CrossEncoder
from crossrank.errors import InputError
from crossrank.evaluation.bm25_overlap import CorpusTerms, matches
from crossrank.evaluation.explain import Explanation, contrast, explain, explain_pairs
from crossrank.evaluation.spans import LONGEST_SENTENCE, sentences, without, words

# A question and the one sentence that answers it.
PLANTED = (
    ("how do bees make honey", "Worker bees turn nectar into honey by fanning it with their wings until it thickens."),
    (
        "why is the sky blue",
        "Air scatters short blue wavelengths of sunlight far more than red ones, so the sky looks blue.",
    ),
    (
        "what causes tides in the ocean",
        "The pull of the moon on the oceans raises two bulges of water, which we see as tides.",
    ),
    (
        "who painted the Mona Lisa",
        "Leonardo da Vinci painted the Mona Lisa in Florence early in the sixteenth century.",
    ),
    ("how long should I boil eggs", "For a hard yolk, boil eggs for ten minutes and cool them in cold water."),
    ("how do I undo a git commit", "To undo the last commit but keep the changes, run git reset --soft HEAD~1."),
    ("symptoms of iron deficiency", "Iron deficiency often shows itself in tiredness, pale skin and brittle nails."),
    (
        "when did the Berlin wall fall",
        "Crowds crossed the border on 9 November 1989, and the Berlin Wall fell that night.",
    ),
    (
        "how to remove red wine stains from carpet",
        "Blot red wine on a carpet at once and lift the stain with soda water.",
    ),
    ("what is the boiling point of nitrogen", "Liquid nitrogen boils at minus 196 degrees Celsius at normal pressure."),
    (
        "how much water do tomato plants need",
        "Tomato plants want about three centimetres of water a week, given at the root.",
    ),
    ("what does a carburetor do", "The carburetor of an engine mixes petrol with air before it enters the cylinders."),
    ("how old can tortoises get", "Giant tortoises have been known to live for more than 150 years."),
    ("which vitamin prevents scurvy", "Sailors learned that the vitamin C of lemons prevents scurvy."),
    ("how are diamonds formed", "Diamonds form deep in the mantle, where carbon is under enormous heat and pressure."),
    ("refund policy for damaged goods", "Goods that arrive damaged are refunded in full within fourteen days."),
    (
        "how to reset my password",
        "Press 'Forgot password' on the login page and a link to choose a new one is sent to you.",
    ),
    ("what is the speed of sound", "In dry air at 20 degrees sound travels at about 343 metres a second."),
    ("how do vaccines work", "A vaccine shows the immune system a harmless piece of a germ so that it remembers it."),
    (
        "capital of Australia",
        "Canberra was chosen as the capital of Australia because Sydney and Melbourne could not agree.",
    ),
    (
        "why do leaves change colour in autumn",
        "In autumn leaves lose their green chlorophyll and the yellow beneath shows.",
    ),
    (
        "how to tie a bowline knot",
        "For a bowline, pass the rope's end up through the loop, round behind it and down again.",
    ),
    (
        "what is compound interest",
        "With compound interest you earn interest on the interest already added to your savings.",
    ),
    ("distance from the earth to the moon", "The moon circles the earth at a mean distance of 384,400 kilometres."),
)
SHARED = Path(__file__).parents[3] / "shared" / "data"
ANY = st.text(max_size=60) | st.text(alphabet="ab .!?\n 東京。हि'-😀", max_size=60)


@pytest.fixture(scope="module")
def boxed() -> CrossEncoder:
    return CrossEncoder()


@pytest.fixture(scope="module")
def tiny(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(tiny_bert, precision="float32")


# ---- does it find what is there to be found


def _planted(seed: int = 0) -> list[tuple[str, list[str], int]]:
    """Query, sentences of a document, and which of them answers: the others are answers to other questions."""
    chosen = random.Random(seed)
    cases = []
    for query, answer in PLANTED:
        others = chosen.sample([text for _, text in PLANTED if text != answer], 4)
        short = [text for text in texts.passages() if text.endswith(".") and len(text) < 70 and text.count(".") == 1]
        document = [*others, *chosen.sample(short, 2)]
        chosen.shuffle(document)
        place = chosen.randint(0, len(document))
        cases.append((query, [*document[:place], answer, *document[place:]], place))
    return cases


@pytest.mark.parametrize("unit", ["sentence", "word"])
def test_the_planted_sentence_is_on_top(unit: str, boxed: CrossEncoder) -> None:
    cases = _planted()[:10] if unit == "word" else _planted()
    pairs = [(query, " ".join(parts)) for query, parts, _ in cases]
    found = explain_pairs(boxed, pairs, unit=unit)
    hits = 0
    for (_, parts, place), explanation in zip(cases, found, strict=True):
        start = sum(len(part) + 1 for part in parts[:place])
        top = explanation.top(1)[0]
        hits += start <= top.start and top.end <= start + len(parts[place])
    assert hits >= 0.9 * len(cases), f"{hits} of {len(cases)}"


@pytest.mark.shared_data
def test_the_paragraph_with_the_answer_is_on_top_among_others(boxed: CrossEncoder) -> None:
    folder = SHARED / "xquad-en"
    corpus = {row["_id"]: row["text"] for row in map(json.loads, (folder / "corpus.jsonl").open())}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open())}
    judged = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    chosen = random.Random(1)
    pairs, places = [], []
    for query, right, _ in chosen.sample(judged, 20):
        others = chosen.sample(sorted(set(corpus) - {right}), 3)
        # Of each other paragraph the first two sentences: all has to fit into what the model reads.
        parts = [corpus[name][: sentences(corpus[name])[:2][-1][1]] for name in others]
        place = chosen.randint(0, 2)
        parts.insert(place, corpus[right])
        start = sum(len(part) + 1 for part in parts[:place])
        pairs.append((queries[query], " ".join(parts)))
        places.append((start, start + len(corpus[right])))
    found = explain_pairs(boxed, pairs, unit="sentence")
    hits = sum(a <= each.top(1)[0].start < b for (a, b), each in zip(places, found, strict=True))
    assert hits >= 0.9 * len(pairs), f"{hits} of {len(pairs)}"


def test_a_query_word_that_the_document_is_about_weighs_most(boxed: CrossEncoder) -> None:
    found = explain(boxed, "tell me something about tortoises", "Giant tortoises have been known to live for long.")
    assert max(found.query_spans, key=lambda span: span.weight).text == "tortoises"


def test_evidence_that_stands_there_twice_hides_itself(boxed: CrossEncoder) -> None:
    answer = "Canberra is the capital of Australia."
    once = explain(boxed, "capital of Australia", f"Bees make honey. {answer}", unit="sentence")
    twice = explain(boxed, "capital of Australia", f"{answer} Bees make honey. {answer}", unit="sentence")
    assert max(span.weight for span in twice.sentences) < 0.5 * once.top(1)[0].weight


def test_contrast_says_which_words_make_the_difference(boxed: CrossEncoder) -> None:
    query = "capital of Australia"
    found = contrast(boxed, query, "Canberra is the capital.", "Australia is a continent.")
    assert found.margin == found.first.logit - found.second.logit
    weights = {span.text: span.weight for span in found.query_spans}
    assert weights["capital"] > 0 > weights["Australia"]


# ---- weights are what they are said to be


def _check(model: CrossEncoder, found: Explanation) -> None:
    """Weights against the model, pair by pair; offsets against the text."""
    assert found.logit == pytest.approx(_logit(model, found.query, found.document), abs=1e-4)
    for text, spans in (
        (found.query, found.query_spans),
        (found.document, found.sentences),
        (found.document, found.words),
    ):
        assert list(spans) == sorted(spans, key=lambda span: span.start)
        for span in spans:
            assert text[span.start : span.end] == span.text != ""
    for span in found.query_spans[:2]:
        left = without(found.query, span.start, span.end)
        assert span.weight == pytest.approx(found.logit - _logit(model, left, found.document), abs=1e-3)
    for span in (*found.sentences[:2], *found.words[:2]):
        left = without(found.document, span.start, span.end)
        assert span.weight == pytest.approx(found.logit - _logit(model, found.query, left), abs=1e-3)


def _logit(model: CrossEncoder, query: str, document: str) -> float:
    return float(model.score([(query, document)]).logits[0, 0])


@settings(max_examples=25, deadline=None)
@given(ANY, ANY, st.sampled_from(["auto", "word", "sentence"]), st.integers(8, 40))
def test_any_text_and_any_budget(tiny: CrossEncoder, query: str, document: str, unit: str, budget: int) -> None:
    found = explain(tiny, query, document, unit=unit, budget=budget)
    assert found.pairs <= budget
    _check(tiny, found)


@pytest.mark.parametrize("unit", ["auto", "word", "sentence"])
@pytest.mark.parametrize("budget", [8, 50])
def test_a_very_long_text(unit: str, budget: int, tiny: CrossEncoder) -> None:
    document = " ".join(texts.passages() * 3)
    found = explain(tiny, " ".join(texts.passages()[0].split()[:30]), document, unit=unit, budget=budget)
    assert found.pairs <= budget
    assert found.tokens_cut > 1000
    _check(tiny, found)
    rest = (found.sentences or found.words)[-1]
    assert len(document) - rest.end < 3
    assert rest.weight == 0


def test_where_the_start_of_a_long_text_is_thin_nothing_is_overlooked(tiny: CrossEncoder) -> None:
    # White space costs no tokens, so the model reads much further than the mean density says. Then the rest is one
    # span, and its weight is that of all that was read of it.
    document = "One two. " + " " * 60_000 + "Three four. " + "Word " * 8000
    found = explain(tiny, "two", document, unit="sentence")
    assert [span.start for span in found.sentences] == [0, document.index("Three")]
    assert abs(found.sentences[1].weight) > 0.01
    _check(tiny, found)


def test_in_one_batch_or_one_by_one_is_the_same(tiny: CrossEncoder) -> None:
    pairs = texts.pairs(6)
    together = explain_pairs(tiny, pairs, budget=40)
    for pair, found in zip(pairs, together, strict=True):
        alone = explain(tiny, *pair, budget=40)
        assert [(s.start, s.end) for s in alone.words] == [(s.start, s.end) for s in found.words]
        np.testing.assert_allclose([s.weight for s in alone.words], [s.weight for s in found.words], atol=1e-3)


def test_the_raw_logit_whatever_the_activation(tiny: CrossEncoder, tiny_bert: Path) -> None:
    squeezed = CrossEncoder(tiny_bert, precision="float32", activation_fn="sigmoid")
    assert explain(squeezed, "a b", "c d").words[0].weight == pytest.approx(explain(tiny, "a b", "c d").words[0].weight)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"unit": "letter"}, "'letter' is unknown"),
        ({"budget": 3}, "budget=3 is not an integer of at least 8"),
        ({"budget": True}, "budget=True"),
        ({"query": 7}, "7 "),
    ],
)
def test_what_cannot_be_used(arguments: dict[str, object], says: str, tiny: CrossEncoder) -> None:
    with pytest.raises(InputError, match=says):
        explain(tiny, **{"query": "a", "document": "b", **arguments})  # type: ignore[arg-type]


# ---- words and sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't use first-stage 3.14, please!", ["Don't", "use", "first-stage", "3.14", "please"]),
        ("東京タワー is 333 m", ["東", "京", "タ", "ワ", "ー", "is", "333", "m"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("cafe\u0301 C++ 😀", ["cafe\u0301", "C++", "😀"]),
        (" ?! ", ["?!"]),
        (" \n\t", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in words(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("J. S. Bach met Dr. Who, e.g. at No. 3. Then home.", ["J. S. Bach met Dr. Who, e.g. at No. 3.", "Then home."]),
        ("Pi is 3.14 or so. ok", ["Pi is 3.14 or so. ok"]),
        ("犬です。猫です。", ["犬です。", "猫です。"]),
        ("A title\n\nlines that\nare wrapped", ["A title", "lines that\nare wrapped"]),
        ("Things:\n- one\n- two", ["Things:", "- one", "- two"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


@given(ANY)
def test_spans_cover_all_that_is_not_white_or_a_mark(text: str) -> None:
    for found in (words(text), sentences(text)):
        assert all(a < b for a, b in found)
        assert all(before[1] <= after[0] for before, after in pairwise(found))
    covered = Counter(text)
    for a, b in sentences(text):
        covered -= Counter(text[a:b])
    assert not "".join(covered.elements()).strip()


def test_text_without_punctuation_is_cut_into_pieces() -> None:
    text = "word " * 1000
    assert max(len(words(text[a:b])) for a, b in sentences(text)) == LONGEST_SENTENCE


# ---- what BM25 matched


def test_matches_have_the_weights_of_bm25s() -> None:
    import bm25s

    documents, query = list(texts.passages()[:60]), "how to read the file or the stream of a file"
    corpus = CorpusTerms(documents)
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(bm25s.tokenize(documents, stopwords=None, show_progress=False), show_progress=False)
    scores = index.get_scores(bm25s.tokenize([query], stopwords=None, return_ids=False, show_progress=False)[0])
    ours = [sum(match.weight for match in matches(query, document, corpus)) for document in documents]
    np.testing.assert_allclose(ours, scores, atol=1e-4)


def test_matches_say_where() -> None:
    query, document = "The cat and the hat", "A hat. THE Hat!"
    found = {match.term: match for match in matches(query, document)}
    assert set(found) == {"hat", "the"}
    assert [document[a:b] for a, b in found["hat"].in_document] == ["hat", "Hat"]
    assert [query[a:b] for a, b in found["the"].in_query] == ["The", "the"]
    assert found["hat"].weight == found["hat"].count == 2
    assert found["hat"].idf is None


@given(ANY, ANY)
def test_offsets_of_matches_slice_to_the_term(query: str, document: str) -> None:
    for match in matches(query, document, CorpusTerms([document])):
        assert {query[a:b].lower() for a, b in match.in_query} == {match.term}
        assert {document[a:b].lower() for a, b in match.in_document} == {match.term}
