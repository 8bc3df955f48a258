"""Check training data before it is used: find problems, count them, and handle them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from crossrank.data.judgements import Group, Judgement, ReadReport, grouped, is_positive
from crossrank.errors import InputError

EXAMPLES = 3
CUT = "documents cut at the end"


@dataclass(frozen=True)
class DataIssue:
    """One kind of problem in the data: what was found, how often, how it was handled, and where the first ones are."""

    what: str
    count: int
    done: str
    examples: tuple[str, ...] = ()


@dataclass
class DataReport:
    """The contents of the data, and the problems found. ``findings`` lists every check, even if it found nothing."""

    rows: int = 0
    pairs: int = 0
    queries: int = 0
    positives: int = 0
    negatives: int = 0
    queries_that_rank: int = 0
    teacher_scores: int = 0
    findings: list[DataIssue] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def check(
    judgements: Iterable[Judgement], read: ReadReport, *, not_to_train_on: Collection[str] = ()
) -> tuple[list[Group], DataReport]:
    """Clean judgements and group them by query.

    :param not_to_train_on: Queries of the evaluation data, see :func:`same_query`.
    :returns: The groups that are left, and what was found.
    """
    report = DataReport()
    seen: dict[tuple[str, str], list[Judgement]] = {}
    empty: list[str] = []
    shared: list[str] = []
    shared_queries: set[str] = set()
    for one in judgements:
        if not one.query.strip() or not one.document.strip():
            empty.append(one.place)
        elif same_query(one.query) in not_to_train_on:
            shared.append(one.place)
            shared_queries.add(same_query(one.query))
        else:
            seen.setdefault(one.pair, []).append(one)
    kept, repeated, averaged, undecided = _settled(seen.values())
    groups = grouped(kept)
    report.rows, report.pairs, report.queries = read.rows, len(kept), len(groups)
    report.positives = sum(is_positive(one.label) for one in kept)
    report.negatives = len(kept) - report.positives
    report.queries_that_rank = sum(group.can_rank for group in groups)
    report.teacher_scores = sum(one.teacher is not None for one in kept)
    also = f"pairs of {len(shared_queries)} queries that are also in the evaluation data"
    for what, places, done in (
        ("empty query or document", empty, "left out"),
        ("the same pair again, with the same label", repeated, "the first is kept"),
        ("the same pair with different labels", averaged, "labels averaged"),
        ("the same pair as often relevant as not", undecided, "left out"),
        (also, shared, "left out of training"),
    ):
        report.findings.append(DataIssue(what, len(places), done, tuple(places[:EXAMPLES])))
    first = (read.first_skipped,) if read.first_skipped else ()
    report.findings.append(DataIssue("lines that can't be used", read.skipped, "left out (--skip-bad)", first))
    report.findings += [DataIssue(what, count, "left out") for what, count in sorted(read.notes.items())]
    return groups, report


def _settled(
    occurrences: Iterable[list[Judgement]],
) -> tuple[list[Judgement], list[str], list[str], list[str]]:
    """Return one judgement for each pair, and the places of the repeated, averaged and undecided ones.

    The labels of a pair are averaged. If some are above a half and some below, and the mean is a half, the pair is
    left out.
    """
    kept, repeated, averaged, undecided = [], [], [], []
    for found in occurrences:
        labels = {one.label for one in found}
        if len(labels) == 1:
            kept.append(found[0])
            repeated += [one.place for one in found[1:]]
            continue
        mean = sum(one.label for one in found) / len(found)
        if abs(mean - 0.5) < 1e-9 and min(labels) < 0.5 < max(labels):
            undecided.append(found[-1].place)
        else:
            kept.append(replace(found[0], label=mean))
            averaged.append(found[-1].place)
    return kept, repeated, averaged, undecided


def same_query(query: str) -> str:
    """Normalize a query: two queries are the same if they differ only in case and white space."""
    return " ".join(query.split()).casefold()


def digest_of_query(query: str) -> str:
    """Return the digest of a query that a model stores if it was trained on the query, see :func:`same_query`."""
    return hashlib.blake2b(same_query(query).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def count_cut(report: DataReport, groups: Sequence[Group], lengths: Callable[[Any], Any], most: int, what: str) -> None:
    """Add the number of pairs that are longer than the model reads.

    :param lengths: From pairs to their numbers of tokens, including special ones.
    :param most: The most tokens that the model reads.
    :param what: What is cut: ``"pairs"``, or ``"documents"`` if the model reads query and document separately.
    """
    judged = [one for group in groups for one in group.judged]
    cut: list[str] = []
    for start in range(0, len(judged), 1024):
        part = judged[start : start + 1024]
        found = zip(part, lengths([one.pair for one in part]), strict=True)
        cut += [one.place for one, length in found if length > most]
    share = f" ({len(cut) / len(judged):.0%})" if judged else ""
    report.findings.append(DataIssue(f"{what} of more than {most} tokens{share}", len(cut), CUT, tuple(cut[:EXAMPLES])))


def split_by_query(groups: Sequence[Group], share: float, seed: int) -> tuple[list[Group], list[Group]]:
    """Divide groups into a training and a held-out part, see :func:`is_held_out`."""
    train: list[Group] = []
    held: list[Group] = []
    for group in groups:
        (held if is_held_out(group.query, share, seed) else train).append(group)
    return train, held


def is_held_out(query: str, share: float, seed: int) -> bool:
    """Whether a query is in the held-out part, which depends only on the query and the seed, see :func:`same_query`."""
    digest = hashlib.blake2b(f"{seed}\n{same_query(query)}".encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64 < share


def need_pairs(groups: Sequence[Group], report: DataReport) -> None:
    """Refuse data without a usable pair, and say why pairs were left out.

    :raises InputError: If there are no pairs.
    """
    if not groups:
        lost = "; ".join(f"{one.count} {one.what}" for one in report.findings if one.count) or "there were none"
        raise InputError(f"No pairs are left to train on: {lost}. Give more data.")


def need_both_classes(groups: Sequence[Group], loss: str) -> None:
    """Refuse data with only positives or only negatives.

    :raises InputError: If there are no positives or no negatives.
    """
    classes = Counter(is_positive(one.label) for group in groups for one in group.judged)
    if len(classes) == 2:
        return
    there, lacking = ("positive", "negative") if classes[True] else ("negative", "positive")
    remedy = (
        "Mine negatives: crossrank mine DATA --corpus CORPUS -o triplets.jsonl; or use --loss mnrl, which uses "
        "the other documents of a batch."
        if there == "positive"
        else "Add pairs with a label of 0.5 or more."
    )
    raise InputError(
        f"All {sum(classes.values())} pairs are {there} and none is {lacking}: with --loss {loss} a model would learn "
        f"to give every pair the same score. {remedy}"
    )
