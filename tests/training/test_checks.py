"""The look at the data: counted by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.data.judgements import Group, Judgement, ReadReport, grouped
from crossrank.errors import InputError
from crossrank.training import loss_inputs
from crossrank.training.checks import check, need_both_classes, split_by_query
from crossrank.training.settings import Settings


def judged(*triples: tuple[str, str, float]) -> list[Judgement]:
    return [Judgement(query, text, label, "f", i) for i, (query, text, label) in enumerate(triples, 1)]


def test_every_kind_of_trouble_is_counted_and_dealt_with() -> None:
    given_ = judged(
        ("q", "a", 1),
        ("q", "a", 1),  # again
        ("q", "b", 0),
        ("q", "b", 0.5),  # another label: the mean is a quarter
        ("q", "c", 1),
        ("q", "c", 0),  # undecided
        ("q", "e", 1),
        ("q", "e", 1),
        ("q", "e", 0),  # two to one
        ("q", " ", 1),  # empty
        ("", "x", 1),
        (" Held  OUT ", "d", 1),
    )
    groups, report = check(given_, ReadReport(rows=12), not_to_train_on={"held out"})
    [group] = groups
    assert [(one.document, one.label) for one in group.judged] == [("a", 1), ("b", 0.25), ("e", pytest.approx(2 / 3))]
    counts = [one.count for one in report.findings]
    assert counts == [2, 1, 2, 1, 1, 0]
    assert report.findings[0].examples == ("f, line 10", "f, line 11")
    assert (report.rows, report.pairs, report.queries, report.positives, report.negatives) == (12, 3, 1, 2, 1)
    assert report.queries_that_rank == 1
    assert json.loads(json.dumps(report.as_dict()))["findings"][3]["count"] == 1


@pytest.mark.parametrize(("label", "said"), [(1, "All 2 pairs are positive.*crossrank mine"), (0, "are negative")])
def test_one_class_is_an_error(label: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        need_both_classes(grouped(judged(("q", "a", label), ("r", "b", label))), "bce")


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=200), st.integers(0, 5))
def test_the_split_is_by_query_and_does_not_depend_on_the_order(queries: list[str], seed: int) -> None:
    groups = grouped(judged(*[(query, "a", 1) for query in queries]))
    train, held = split_by_query(groups, 0.3, seed)
    assert {g.query for g in train} | {g.query for g in held} == set(queries)
    assert not {" ".join(g.query.split()).casefold() for g in train} & {
        " ".join(g.query.split()).casefold() for g in held
    }
    again, _ = split_by_query(list(reversed(groups)), 0.3, seed)
    assert {g.query for g in again} == {g.query for g in train}


def test_the_split_has_about_its_share_and_changes_with_the_seed() -> None:
    groups = grouped(judged(*[(f"query {i}", "a", 1) for i in range(2000)]))
    held = [split_by_query(groups, 0.15, seed)[1] for seed in (0, 1)]
    assert all(240 < len(one) < 360 for one in held)
    assert {g.query for g in held[0]} != {g.query for g in held[1]}


# ---- rows of the losses


GROUPS: list[Group] = grouped(
    [
        Judgement("q", "p1", 1, teacher=9.0),
        Judgement("q", "p2", 1, teacher=7.0),
        *[Judgement("q", f"n{i}", 0, teacher=float(i)) for i in range(5)],
        Judgement("only positives", "p", 1, teacher=1.0),
    ]
)


def test_lists_keep_every_document_and_rank() -> None:
    made = loss_inputs.lists(GROUPS, Settings(list_size=4))
    assert made.data["query"] == ["q", "q"]
    assert sorted(itertools.chain(*made.data["documents"])) == ["n0", "n1", "n2", "n3", "n4", "p1", "p2"]
    assert all(len(documents) <= 4 for documents in made.data["documents"])
    assert all(sorted(set(labels)) == [0, 1] for labels in made.data["labels"])
    assert sum(made.left_out.values()) == 1


def test_margins_are_the_teachers() -> None:
    made = loss_inputs.margins(GROUPS, Settings(loss="margin-mse", negatives=2))
    teacher = {one.document: one.teacher for one in GROUPS[0].judged}
    assert set(made.data["negative"]) == {"n0", "n1", "n2", "n3", "n4"}
    assert set(made.data["positive"]) == {"p1", "p2"}
    for positive, negative, label in zip(*(made.data[name] for name in ("positive", "negative", "label")), strict=True):
        assert label == teacher[positive] - teacher[negative]
    with pytest.raises(InputError, match=r"f, line 1: .*teacher"):
        loss_inputs.margins(grouped(judged(("q", "a", 1), ("q", "b", 0))), Settings(loss="margin-mse"))


def test_a_query_without_negatives_has_its_positive_in_their_place() -> None:
    assert list(loss_inputs.triplets(grouped(judged(("q", "a", 1))), Settings()).data) == ["query", "positive"]
    some = grouped([*judged(("q", "a", 1), ("q", "b", 0)), *judged(("alone", "c", 1))])
    made = loss_inputs.triplets(some, Settings(negatives=2)).data
    assert list(zip(*made.values(), strict=True)) == [("q", "a", "b", "b"), ("alone", "c", "c", "c")]


@pytest.mark.parametrize(("most", "expected"), [(1, 5), (2, 3), (3, 2), (9, 2)])
def test_every_positive_and_every_negative_is_in_a_triplet(most: int, expected: int) -> None:
    made = loss_inputs.triplets(GROUPS[:1], Settings(negatives=most))
    assert len(made.data["query"]) == expected
    assert made.rows == 2  # an epoch: each positive once
    assert set(made.data["positive"]) == {"p1", "p2"}
    negatives = {one for i in range(most) for one in made.data[f"negative_{i + 1}"]}
    assert negatives == {"n0", "n1", "n2", "n3", "n4"}


def test_settings_are_checked() -> None:
    for wrong in ({"epochs": 0}, {"average_with_base": 2}, {"freeze": "all"}, {"batch_size": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Settings(**wrong)  # type: ignore[arg-type]
    assert dict(Settings(seed=3).changed()) == {"seed": 3}


def test_unreadable_folder(tmp_path: Path) -> None:
    from crossrank.data.files import read_judgements
    from crossrank.data.judgements import ReadSettings

    with pytest.raises(InputError, match=r"has no qrels/train\.tsv"):
        list(read_judgements([str(tmp_path)], ReadSettings(), ReadReport()))
