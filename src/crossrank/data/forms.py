"""Turn rows into judgements, depending on their columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossrank.data import feedback
from crossrank.data.columns import ROLES, form_of, roles_of
from crossrank.data.judgements import Judgement, ReadReport, ReadSettings, Row, RowError, label_of_grade
from crossrank.data.text_lines import TEXT_FIELDS
from crossrank.validation import encodable

_REMEDY_COLUMNS = "Rename the columns, or give their roles: --columns query=...,document=...,label=..."


@dataclass(frozen=True)
class Feedback:
    """A ranking that was shown, and what users did.

    :param shown: The texts, from the top.
    :param said: ``[shown]``, labels from judgements, stars and votes; ``None`` for documents without one.
    :param by_clicks: ``[shown]``, labels from clicks, see :func:`.feedback.labels_of_clicks`; ``None`` if clicks were
        not recorded.
    :param teachers: ``[shown]``, scores of a teacher.
    """

    query: str
    shown: tuple[str, ...]
    said: list[float | None]
    by_clicks: list[float | None] | None
    teachers: list[float | None]

    @property
    def places(self) -> tuple[int, ...]:
        """The positions that were clicked, from 1."""
        return tuple(place for place, label in enumerate(self.by_clicks or (), start=1) if label == 1)


def roles_in(row: Row, settings: ReadSettings) -> dict[str, list[str]]:
    """Find the columns of each role that have a value in this row."""
    return roles_of([name for name, value in row.fields.items() if value is not None], settings.columns)


def judgements_of(row: Row, settings: ReadSettings, report: ReadReport) -> list[Judgement]:
    """Give the judgements in a row.

    :raises RowError: If it can't be used.
    """
    roles = roles_in(row, settings)
    form = form_of(roles)
    if form is None:
        present = [repr(name) for name, value in row.fields.items() if value is not None][:12]
        known = "; ".join(f"{role}: {', '.join(names[:4])}" for role, names in list(ROLES.items())[:5])
        raise row.bad(
            f"its columns ({', '.join(present) or 'none'}) match no known form",
            "The known forms are: query, document and label; query and positive(s) with or without negative(s); "
            f"query, documents and label, stars, votes or clicked. Known names: {known}. {_REMEDY_COLUMNS}",
        )
    return list(_READERS[form](row, roles, settings, report))


def _pairs(row: Row, roles: Mapping[str, list[str]], settings: ReadSettings, _: ReadReport) -> Iterator[Judgement]:
    query, document = _text(row, roles["query"][0]), _text(row, roles["document"][0])
    teacher = _teacher(row, row.fields[roles["teacher"][0]]) if "teacher" in roles else None
    labelled = "label" in roles
    label = _label(row, row.fields[roles["label"][0]], settings.max_label) if labelled else 0.5
    yield Judgement(query, document, label, row.file, row.line, teacher, labelled)


def _triplets(row: Row, roles: Mapping[str, list[str]], _: ReadSettings, __: ReadReport) -> Iterator[Judgement]:
    query = _text(row, roles["query"][0])
    documents = [
        (text, label)
        for role, label in (("positive", 1.0), ("negative", 0.0))
        for column in roles.get(role, ())
        for text in _texts(row, column)
    ]
    teachers: Sequence[float | None] = [None] * len(documents)
    if "teacher" in roles:
        given = row.fields[roles["teacher"][0]]
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(values) != len(documents):
            raise row.bad(
                f"it has {len(values)} teacher scores for {len(documents)} documents",
                "Give one for each document: first the positives, then the negatives.",
            )
        teachers = [_teacher(row, value) for value in values]
    for (text, label), teacher in zip(documents, teachers, strict=True):
        yield Judgement(query, text, label, row.file, row.line, teacher)


def _feedback(
    row: Row, roles: Mapping[str, list[str]], settings: ReadSettings, report: ReadReport
) -> Iterator[Judgement]:
    found = feedback_of(row, roles, settings)
    by_clicks = found.by_clicks or [None] * len(found.shown)
    report.note(
        "rankings without a click (they give no labels)", int(found.by_clicks is not None and not any(by_clicks))
    )
    # Explicit judgements override clicks.
    labels = [clicked if said is None else said for said, clicked in zip(found.said, by_clicks, strict=True)]
    report.note("shown documents without a judgement", sum(label is None for label in labels))
    for text, label, teacher in zip(found.shown, labels, found.teachers, strict=True):
        if label is not None:
            yield Judgement(found.query, text, label, row.file, row.line, teacher)


def feedback_of(row: Row, roles: Mapping[str, list[str]], settings: ReadSettings) -> Feedback:
    """Read a row of feedback.

    :raises RowError: If it can't be used.
    """
    query, column = _text(row, roles["query"][0]), roles["documents"][0]
    shown = row.fields[column]
    if not isinstance(shown, (list, tuple)) or not shown:
        raise row.bad(f"its {column!r} is {_short(shown)}, not a list", "Give the shown documents as a list.")
    texts = tuple(_text_in(row, item, f"{column}[{i}]") for i, item in enumerate(shown))
    said: list[float | None] = [None] * len(texts)
    try:
        clicks = _clicked(shown, row.fields[roles["clicked"][0]] if "clicked" in roles else None)
        by_clicks = None if clicks is None else feedback.labels_of_clicks(len(texts), clicks)
        # From the weakest signal to the strongest.
        for role, key, read in (
            ("votes", "vote", feedback.label_of_vote),
            ("stars", "stars", feedback.label_of_stars),
            ("label", "label", lambda value: _label(row, value, settings.max_label)),
        ):
            for i, value in enumerate(_each(row, roles, role, key, shown)):
                if value is not None:
                    said[i] = read(value)
    except RowError:
        raise
    except ValueError as error:
        raise row.bad(str(error), "docs/training.md describes feedback files.") from error
    given = _each(row, roles, "teacher", "teacher_score", shown)
    return Feedback(query, texts, said, by_clicks, [None if one is None else _teacher(row, one) for one in given])


def _each(row: Row, roles: Mapping[str, list[str]], role: str, key: str, shown: Sequence[object]) -> list[object]:
    """Give a value for each shown document, from the list in the row or from the documents themselves."""
    inside = [item.get(key) if isinstance(item, Mapping) else None for item in shown]
    if role not in roles:
        return inside
    given = row.fields[roles[role][0]]
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(values) != len(shown):
        raise row.bad(
            f"it has {len(values)} {roles[role][0]} for {len(shown)} documents",
            "Give one for each document, with null for a missing value.",
        )
    return [old if value is None else value for value, old in zip(values, inside, strict=True)]


def _clicked(shown: Sequence[object], given: object) -> list[object] | None:
    """Give the clicked positions; ``None`` if clicks were not recorded."""
    if given is not None:
        return list(given) if isinstance(given, (list, tuple)) else [given]
    marks = [item.get("clicked") if isinstance(item, Mapping) else None for item in shown]
    if all(mark is None for mark in marks):
        return None
    return [place for place, mark in enumerate(marks, 1) if mark]


_Reader = Callable[[Row, Mapping[str, list[str]], ReadSettings, ReadReport], Iterator[Judgement]]
_READERS: Mapping[str, _Reader] = {"pairs": _pairs, "triplets": _triplets, "feedback": _feedback}


# ---- values


def _text(row: Row, column: str) -> str:
    return _text_in(row, row.fields[column], column)


def _texts(row: Row, column: str) -> list[str]:
    value = row.fields[column]
    items = value if isinstance(value, (list, tuple)) else [value]
    return [
        _text_in(row, item, f"{column}[{i}]" if isinstance(value, list) else column) for i, item in enumerate(items)
    ]


def _text_in(row: Row, value: object, what: str) -> str:
    if isinstance(value, Mapping):
        title, text = value.get("title"), next((value[key] for key in TEXT_FIELDS if key in value), None)
        value = f"{title} {text}" if isinstance(title, str) and title and isinstance(text, str) else text
    if not isinstance(value, str):
        raise row.bad(
            f"its {what!r} is {_short(value)}, not a string", "Give a string, or an object with a field 'text'."
        )
    return encodable(value)


def _number(row: Row, value: object, what: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise row.bad(f"its {what} is {_short(value)}, not a number", "Give a finite number.")
    return number


def _teacher(row: Row, value: object) -> float:
    return _number(row, value, "teacher score")


def _label(row: Row, value: object, most: float) -> float:
    number = _number(row, value, "label")
    if not 0 <= number <= most:
        raise row.bad(
            f"its label is {number:g}, outside 0 to {most:g}",
            "Labels range from 0 to 1. For grades such as 0 to 3, give --max-label 3. "
            "Put the scores of a model into the column 'teacher_score'.",
        )
    return label_of_grade(number, most)


def _short(value: object, most: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."
