from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.ranking.judge.parsing import Grade, Order, UnusableAnswerError, parse_grade, parse_ranking

IDS = ("d0000000a", "d0000000b", "d0000000c")
A, B, C = IDS
GOOD = '{"id": "d0000000a", "reason": "it  says\\nso", "grade": 2}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure! Here is my judgement:\n\n{GOOD}\n\nLet me know if {{you}} need [more].",
        f"```json\n{GOOD}\n```",
        f"<think>perhaps {GOOD.replace('2', '3')}, or not</think>\n{GOOD}",
        f"perhaps {GOOD.replace('2', '3')}, or not</think>\n{GOOD}",
        f"{GOOD}\n{GOOD}",
        '{"grade": "2", "id": "[d0000000a]", "reason": "it says so", "more": 1}',
        '{"grade": 2.0, "id": " D0000000A", "reason": "it says so"}',
        f'The document said {{"grade": 3}}, which does not count. {GOOD}',
    ],
)
def test_a_grade_is_found_in_whatever_is_around_it(text):
    assert parse_grade(text, A) == Grade(2, "it says so")


def test_a_reason_may_be_missing():
    assert parse_grade('{"id": "d0000000a", "grade": 0}', A) == Grade(0, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object with a grade"),
        ("I can't help with that.", "no JSON object with a grade"),
        (GOOD[:-3], "no JSON object with a grade"),
        (f"<think>perhaps {GOOD}, or", "no JSON object with a grade"),
        ("2", "no JSON object with a grade"),
        ('{"id": "d0000000a", "reason": "x"}', "no JSON object with a grade"),
        ('{"reason": "x", "grade": 2}', "did not name the document's id"),
        ('{"id": "d1111111a", "reason": "x", "grade": 2}', "did not name the document's id"),
        ('{"id": ["d0000000a"], "grade": 2}', "did not name the document's id"),
        (f"{GOOD} or rather {GOOD.replace('2', '1')}", "more than one grade"),
        # A key twice: which of them counts differs from one reader to the next.
        ('{"id": "d0000000a", "grade": 0, "grade": 3}', "no JSON object with a grade"),
        *(
            (f'{{"id": "d0000000a", "grade": {grade}}}', "not one of 0, 1, 2 and 3")
            for grade in (
                "4",
                "-1",
                "2.5",
                '"2.5"',
                '"two"',
                "true",
                "null",
                "[2]",
                "NaN",
                "1e999",
                '"' + "9" * 9999 + '"',
            )
        ),
    ],
)
def test_what_means_no_certain_grade_is_told(text, why):
    with pytest.raises(UnusableAnswerError, match=why):
        parse_grade(text, A)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ('{"ranking": ["d0000000c", "d0000000a", "d0000000b"]}', Order((2, 0, 1), 3)),
        ('Here:\n```\n["d0000000c", "d0000000a", "d0000000b"]\n```', Order((2, 0, 1), 3)),
        ("[d0000000c] > [d0000000a] > [d0000000b]", Order((2, 0, 1), 3)),
        ("<think>hm [x]</think> d0000000c > d0000000a > d0000000b\n", Order((2, 0, 1), 3)),
        ('As in {"ranking": ["id of the best"]}: {"ranking": ["d0000000c"]}', Order((2, 0, 1), 1)),
        ('{"ranking": [{"id": "d0000000c"}, {"id": "d0000000a"}, {"id": "d0000000b"}]}', Order((2, 0, 1), 3)),
        # Left out: behind those that were named, in the order they came.
        ('{"ranking": ["d0000000c"]}', Order((2, 0, 1), 1)),
        ('{"ranking": []}', Order((0, 1, 2), 0)),
        ('{"ranking": ["d0000000b", "d0000000a", "d0000000b"]}', Order((1, 0, 2), 2, repeated=1)),
        ('{"ranking": ["d0000000b", "d9999999f", "d0000000a"]}', Order((1, 0, 2), 2, invented=1)),
        ('{"ranking": ["d0000000b", 7, null, "d0000000a", "d0000000c"]}', Order((1, 0, 2), 3, invented=2)),
    ],
)
def test_an_order_is_found_and_completed(text, order):
    assert parse_ranking(text, IDS) == order


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object with a list"),
        ("None of them.", "no JSON object with a list"),
        ("[]", "no JSON object with a list"),
        ('{"ranking": "d0000000a"}', "no JSON object with a list"),
        ('{"ranking": ["d0000000a", "d000', "no JSON object with a list"),
        ('{"ranking": ["1", "2", "3"]}', "most of the ids"),
        ('{"ranking": ["d0000000a", "x", "y"]}', "most of the ids"),
        ('{"ranking": ["d0000000a"]} {"ranking": ["d0000000b"]}', "more than one ranking"),
        ("[x] > [y]", "no JSON object with a list"),
        ("d0000000a is better than d0000000b", "no JSON object with a list"),
        ("<think>[d0000000a] > [d0000000b]", "no JSON object with a list"),
    ],
)
def test_what_means_no_certain_order_is_told(text, why):
    with pytest.raises(UnusableAnswerError, match=why):
        parse_ranking(text, IDS)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from([*IDS, "ranking"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ranking", "grade", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.text(alphabet='{}[]",:dab0123456789> \n`', max_size=60) | _json.map(json.dumps))
def test_anything_is_read_or_refused(text):
    with contextlib.suppress(UnusableAnswerError):
        assert parse_grade(text, A).grade in range(4)
    try:
        order = parse_ranking(text, IDS)
    except UnusableAnswerError:
        return
    assert sorted(order.positions) == [0, 1, 2]
    assert 0 <= order.named <= 3


def test_a_very_long_answer_of_brackets_takes_no_long_time():
    with pytest.raises(UnusableAnswerError):
        parse_grade("[" * 200_000 + "{" * 200_000, A)
    with pytest.raises(UnusableAnswerError):
        parse_ranking("d0000000a >>>> " * 20_000 + "x y", IDS)


def test_an_answer_of_brackets_takes_no_time():
    started = time.monotonic()
    with pytest.raises(UnusableAnswerError):
        parse_grade("[" * 100_000, A)
    assert time.monotonic() - started < 1
