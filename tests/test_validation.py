"""Every check of an argument accepts what it should, in a plain type, and names what it refuses."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossrank import validation as v
from crossrank.errors import InputError


@pytest.mark.parametrize("value", [1, np.int64(7), np.uint8(3)])
def test_positive_integers(value: Any) -> None:
    checked = v.check_positive_integer("n", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, -1, True, np.bool_(True), 1.0, "1", None, np.array(1), math.nan])
def test_what_is_no_positive_integer(value: Any) -> None:
    with pytest.raises(InputError, match=r"^n=.* is not a positive integer\. Leave it out\.$"):
        v.check_positive_integer("n", value, "Leave it out.")
    assert not v.is_positive_integer(value)


def test_a_missing_value_is_fine_where_it_has_a_meaning() -> None:
    assert v.check_optional_integer("n", None) is None
    assert v.check_top_k(None) is None
    assert v.check_batch_size(None) is None
    assert v.check_threshold(None) is None
    v.check_counts(a=None, b=2)
    with pytest.raises(InputError, match="b=0"):
        v.check_counts(a=1, b=0)


def test_integers_from_zero() -> None:
    assert v.check_not_negative_integer("overlap", 0) == 0
    for value in (-1, False, 1.5, None):
        with pytest.raises(InputError, match="overlap="):
            v.check_not_negative_integer("overlap", value)


@pytest.mark.parametrize("value", [0, -3.5, np.float32(0.25), np.int32(2)])
def test_finite_numbers(value: Any) -> None:
    assert v.check_threshold(value) == float(value)
    assert type(v.check_threshold(value)) is float


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400, True, "0.5", Decimal("0.5"), 1j, np.bool_(False)]
)
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"threshold=.* is not a finite number\. Leave it out"):
        v.check_threshold(value)


def test_ranges_of_numbers_and_seconds() -> None:
    assert v.check_number("weight", 1, low=0, high=1) == 1.0
    with pytest.raises(InputError, match=r"weight=1\.5 is not a finite number from 0 to 1"):
        v.check_number("weight", 1.5, low=0, high=1)
    with pytest.raises(InputError, match="of 0 or more"):
        v.check_number("weight", -1, low=0)
    assert v.check_seconds("timeout", 0.5) == 0.5
    assert v.check_seconds("check_every", 0, zero=True) == 0.0
    for value in (0, -1, math.inf, "3", True):
        with pytest.raises(InputError, match=r"timeout=.*above 0"):
            v.check_seconds("timeout", value)


def test_names() -> None:
    assert v.check_choice("role", "query", ("query", "document")) == "query"
    with pytest.raises(InputError, match=r"role='x' is not known: give one of query, document\."):
        v.check_choice("role", "x", ("query", "document"))
    with pytest.raises(InputError, match=r"no setting 'b'\. Its settings: a, c\."):
        v.check_settings_names("long_documents", {"a": 1, "b": 2}, ["a", "c"])
    assert v.check_model_name(Path("x")) == Path("x")
    with pytest.raises(InputError, match="model_name_or_path=3"):
        v.check_model_name(3)
    with pytest.raises(InputError, match="revision=3"):
        v.check_revision(3)


def test_urls() -> None:
    assert v.check_url("http://localhost:8000/v1", "x") == "http://localhost:8000/v1"
    for wrong in ("localhost:8000", "ftp://a", "http://[", 3, "http://"):
        with pytest.raises(InputError, match="not an address"):
            v.check_url(wrong, "https://api.example.com/v1")
    with pytest.raises(InputError, match="api_key=") as raised:
        v.check_url("https://me:secret@example.com", "x")
    assert "secret" not in str(raised.value)


def test_texts_documents_and_pairs() -> None:
    assert v.check_pairs(np.array([["a", "b"]])) == [("a", "b")]
    assert v.check_documents(x for x in ("a", "b")) == ["a", "b"]
    for pairs, place in (
        (["ab"], r"pairs\[0\]"),
        ([("a", "b"), ("a", 1)], r"pairs\[1\]\[1\]"),
        ("ab", "pairs is 'ab'"),
    ):
        with pytest.raises(InputError, match=place):
            v.check_pairs(pairs)
    with pytest.raises(InputError, match=r"documents\[1\] is None \(NoneType\)"):
        v.check_documents(["a", None])
    with pytest.raises(InputError, match="pass \\[document\\]"):
        v.check_documents("a")
    assert v.is_single_pair(("a", "b"))
    assert v.is_single_pair(np.array(["a", "b"]))
    assert not v.is_single_pair([("a", "b")])
    assert not v.is_single_pair([])


def test_a_long_value_is_shortened() -> None:
    assert v.shown("x" * 500) == "'" + "x" * 59 + "... (str)"
