"""The normal form: single judgements while they are read, groups of a query's documents once they are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crossrank.data.text_lines import RowError as RowError


@dataclass(frozen=True)
class Judgement:
    """How relevant a document is to a query.

    :param label: 0 (not at all) to 1.
    :param file: Where it was read.
    :param line: Its line (of Parquet: its row), counted from 1.
    :param teacher: What another model gave this pair, on any scale; ``None`` if there is none.
    :param labelled: Whether somebody gave the label; else only the teacher's score means something.
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
        """What is judged."""
        return self.query, self.document

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
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
        """The others."""
        return [one for one in self.judged if not is_positive(one.label)]

    @property
    def can_rank(self) -> bool:
        """Whether some document should stand above another."""
        return len({one.label for one in self.judged}) > 1


def is_positive(label: float) -> bool:
    """Whether a label counts as relevant where only yes and no are known."""
    return label >= 0.5


def label_of_grade(grade: float, highest: float) -> float:
    """Turn a grade from 0 to ``highest`` into a label from 0 to 1, so that a grade of 1 and more is relevant.

    Grades are TREC's: 0 is not relevant, 1 relevant, more is better. Grade 1 becomes 0.5, the highest becomes 1, and
    those between lie evenly between. Where the highest grade is 1, the label is the grade.
    """
    if highest <= 1 or grade < 1:
        return grade / highest if highest <= 1 else grade / 2
    return 0.5 + 0.5 * (grade - 1) / (highest - 1)


def grouped(judgements: Iterable[Judgement]) -> list[Group]:
    """Bring the judgements of a query together; queries in the order of their first judgement."""
    found: dict[str, list[Judgement]] = {}
    for one in judgements:
        found.setdefault(one.query, []).append(one)
    return [Group(query, tuple(judged)) for query, judged in found.items()]


@dataclass
class ReadReport:
    """What was read, and what was passed over; filled while reading.

    :param rows: Lines and rows that were used.
    :param skipped: Those that could not be used, with ``--skip-bad``.
    :param first_skipped: The first of them, with what is wrong with it.
    :param notes: Counts of other things that were passed over, by what they are.
    """

    rows: int = 0
    skipped: int = 0
    first_skipped: str | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, count: int = 1) -> None:
        """Count something that was passed over."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count


@dataclass(frozen=True)
class Row:
    """A line of a file as fields, before anyone knows what it is."""

    file: str
    line: int
    fields: Mapping[str, object]

    def bad(self, reason: str, remedy: str) -> RowError:
        """Make the error that names this row."""
        return RowError(self.file, self.line, reason, remedy)


@dataclass(frozen=True)
class ReadSettings:
    """How files are read.

    :param split: Of a BEIR folder, which qrels.
    :param max_label: The highest label in the files. If it is above 1, labels are grades: see :func:`label_of_grade`.
    :param skip_bad: Go on at lines that can't be used, and count them.
    :param columns: Role -> column, over the table of common names; roles as in :data:`.columns.ROLES`.
    """

    split: str = "train"
    max_label: float = 1.0
    skip_bad: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
