"""Judgements of query-document pairs, and groups of them by query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crossrank.data.text_lines import RowError as RowError


@dataclass(frozen=True)
class Judgement:
    """How relevant a document is to a query.

    :param label: 0 (not at all) to 1.
    :param file: The file it was read from.
    :param line: Its line, or row in Parquet, counted from 1.
    :param teacher: The score of another model for this pair, on any scale; ``None`` if there is none.
    :param labelled: Whether the label was given. If not, only the teacher score has a meaning.
    """

    query: str
    document: str
    label: float
    file: str = ""
    line: int = 0
    teacher: float | None = None
    labelled: bool = True

    @property
    def pair(self) -> tuple[str, str]:
        """Query and document."""
        return self.query, self.document

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class Group:
    """The judged documents of one query, in the order in which they were read."""

    query: str
    judged: tuple[Judgement, ...]

    @property
    def positives(self) -> list[Judgement]:
        """Documents with a label of at least a half."""
        return [one for one in self.judged if is_positive(one.label)]

    @property
    def negatives(self) -> list[Judgement]:
        """Documents with a label below a half."""
        return [one for one in self.judged if not is_positive(one.label)]

    @property
    def can_rank(self) -> bool:
        """Whether there are different labels, so that one document should be ranked above another."""
        return len({one.label for one in self.judged}) > 1


def is_positive(label: float) -> bool:
    """Whether a label counts as relevant where relevance is binary."""
    return label >= 0.5


def label_of_grade(grade: float, highest: float) -> float:
    """Turn a grade from 0 to ``highest`` into a label from 0 to 1, so that a grade of 1 and more is relevant.

    Grades are TREC's: 0 is not relevant, 1 relevant, more is better. Grade 1 becomes 0.5, the highest becomes 1,
    and the grades between are spaced evenly. If the highest grade is 1, the label is the grade.
    """
    if highest <= 1 or grade < 1:
        return grade / highest if highest <= 1 else grade / 2
    return 0.5 + 0.5 * (grade - 1) / (highest - 1)


def grouped(judgements: Iterable[Judgement]) -> list[Group]:
    """Group judgements by query, in the order of each query's first judgement."""
    found: dict[str, list[Judgement]] = {}
    for one in judgements:
        found.setdefault(one.query, []).append(one)
    return [Group(query, tuple(judged)) for query, judged in found.items()]


@dataclass
class ReadReport:
    """What was read and what was ignored; filled while reading.

    :param rows: Number of rows that were used.
    :param skipped: Number of rows that could not be used, with ``--skip-bad``.
    :param first_skipped: The first of them, and what is wrong with it.
    :param notes: What else was ignored -> how often.
    """

    rows: int = 0
    skipped: int = 0
    first_skipped: str | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, count: int = 1) -> None:
        """Count something that was ignored."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count


@dataclass(frozen=True)
class Row:
    """The fields of a row, before they are interpreted."""

    file: str
    line: int
    fields: Mapping[str, object]

    def bad(self, reason: str, remedy: str) -> RowError:
        """Make an error about this row."""
        return RowError(self.file, self.line, reason, remedy)


@dataclass(frozen=True)
class ReadSettings:
    """How files are read.

    :param split: Which qrels of a BEIR folder to read.
    :param max_label: The highest label in the files. If it is above 1, labels are grades: see :func:`label_of_grade`.
    :param skip_bad: Skip lines that can't be used, and count them.
    :param columns: Role -> column, which overrides the common names; for the roles see :data:`.columns.ROLES`.
    """

    split: str = "train"
    max_label: float = 1.0
    skip_bad: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
