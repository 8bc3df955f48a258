"""learn(): train a better model on feedback, or report why not. A scheduler can call it.

A digest of its text decides whether a query is held out or used for training, in this round and all later ones. A
model stores the digests of its training queries, so that they are not used to decide about its successor. Training
starts from the version in use, with all feedback, old and new.

In every round a candidate may look better by chance. So all rounds against one version in use share the budget
``alpha``: the k-th round may use ``alpha / (k * (k + 1))`` of it (alpha spending: K. K. G. Lan, D. L.
DeMets, Discrete sequential boundaries for clinical trials, Biometrika 1983; the shares add up to ``alpha``). The
probability that a version is ever replaced by one that is not better is at most ``alpha``, in any number of rounds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crossrank.atomic_write import write_atomically
from crossrank.checkpoint.locks import FileLock
from crossrank.checkpoint.model_registry import DECISIONS, ModelRegistry
from crossrank.data.dataset import Dataset
from crossrank.data.files import Source, judged_rows
from crossrank.data.judgements import Judgement, ReadReport, ReadSettings, Row
from crossrank.data.open_dataset import open_dataset
from crossrank.errors import InputError
from crossrank.training.checks import digest_of_query, is_held_out, same_query
from crossrank.training.decision import Budget, Criteria, Decision, fewest_queries
from crossrank.training.held_out_feedback import ETA, Held, as_dataset, query_of
from crossrank.training.promotion import BUNDLED, promote
from crossrank.training.saving import queries_learnt
from crossrank.training.settings import Settings

STATE, LOCK, WORK = "learned.json", "learn.lock", ".learn"
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PROMOTED, REFUSED, NOTHING, DRY = "promoted", "not promoted", "nothing to do", "dry run"
# Seed of the split into training and held-out queries. It differs from the trainer's, which splits the first part
# again.
_SEED = 7919


@dataclass(frozen=True)
class Rules:
    """When to train, and which queries to decide on.

    :param min_judgements: Do nothing with fewer new judgements than this.
    :param eval_share: Share of the queries to decide on, except those that the version in use was trained on.
    :param eta: How fast attention decreases with the position, see :mod:`crossrank.training.held_out_feedback`.
    :raises InputError: If a value is out of range.
    """

    min_judgements: int = 100
    eval_share: float = 0.2
    eta: float = ETA

    def __post_init__(self) -> None:
        if not 0.01 <= self.eval_share <= 0.9:
            raise InputError(f"eval_share={self.eval_share!r} is outside 0.01 to 0.9. Give a share of the queries.")
        if self.min_judgements < 1:
            raise InputError(f"min_judgements={self.min_judgements!r} is below 1. Give a positive number.")


@dataclass(frozen=True)
class Outcome:
    """The result of a round.

    :param state: ``"promoted"``, ``"not promoted"``, ``"nothing to do"`` or ``"dry run"``.
    :param reasons: Why, in sentences.
    :param rows: Lines of feedback; ``new_rows`` of them are new since the last round. The same for ``judgements``.
    :param train_queries: Queries to train on.
    :param decided_on: Held-out queries on which two models can differ; ``by_clicks`` of them are judged by clicks.
    :param notes: What was ignored -> how often.
    :param version: The version in use at the end.
    :param eta: How fast attention decreases with the position, as assumed for clicks.
    """

    state: str
    reasons: tuple[str, ...]
    files: int
    rows: int
    new_rows: int
    judgements: int
    new_judgements: int
    train_queries: int
    decided_on: int
    by_clicks: int
    notes: Mapping[str, int]
    version: str | None
    eta: float
    decision: Decision | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


@dataclass
class _Read:
    """The feedback in a folder."""

    files: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    new_rows: int = 0
    judgements: int = 0
    new_judgements: int = 0
    train: list[Judgement] = field(default_factory=list)
    held: Held = field(default_factory=Held)
    report: ReadReport = field(default_factory=ReadReport)


def learn(
    feedback: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    registry: ModelRegistry,
    *,
    base: str | None = None,
    rules: Rules | None = None,
    training: Settings | None = None,
    criteria: Criteria | None = None,
    guard: str | os.PathLike[str] | Dataset = BUNDLED,
    data: str | os.PathLike[str] | None = None,
    general: Sequence[str] = (),
    reading: ReadSettings | None = None,
    settings: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int, dict[str, float]], object] | None = None,
    tell: Callable[[str], object] = lambda message: None,
) -> Outcome:
    """Read feedback, train a candidate, compare it, and promote it if it is better.

    :param feedback: A folder of files as ``crossrank train`` reads them, one file, or rows with the same fields.
    :param base: The model to start from while the registry is empty; ``None`` for the bundled model.
    :param guard: As :func:`crossrank.training.promotion.promote` takes it.
    :param data: Decide on this dataset instead of held-out feedback; all other queries are then used for training.
    :param general: Files of general pairs to mix in.
    :param settings: How models run when they are compared.
    :param dry_run: Only read and count.
    :param tell: Called with a sentence that the user should read.
    :raises InputError: If something can't be used.
    :raises CrossRankError: If another process is learning in this registry, or the version in use changed.
    :raises OSError: If the disk is full. The version in use stays in use.
    """
    rules, training, criteria = rules or Rules(), training or Settings(), criteria or Criteria()
    # Before anything is created: check that there is feedback and that the registry is valid.
    sources = _sources(feedback)
    registry.current()
    if not dry_run:
        registry.folder.mkdir(parents=True, exist_ok=True)
    with nullcontext() if dry_run else FileLock(registry.folder / LOCK, "learn") as lock:
        if lock is not None and lock.left_by:
            tell(f"An earlier {lock.left_by} was interrupted; its files are removed")
        state = _State(registry.folder / STATE)
        in_use = registry.current()
        budget = Budget(criteria.alpha, state.rounds.get(in_use.name if in_use else "", 0) + 1)
        criteria = replace(criteria, alpha=budget.this_round)
        trusted = open_dataset(os.fspath(data)) if data is not None else None
        learnt = queries_learnt(in_use.folder) if in_use is not None else set()
        read = _read(sources, state, rules, reading or ReadSettings(), trusted, learnt)
        held = as_dataset(read.held, Path("feedback"), eta=rules.eta) if trusted is None else None
        dataset = trusted if held is None else held.dataset
        decision: Decision | None = None
        why = _why_not(read, dataset, rules, criteria, trusted is not None)
        reasons: tuple[str, ...]
        if dry_run:
            name, reasons = DRY, (why or "Everything is ready: a model would be trained and compared.",)
        elif why is not None or dataset is None:
            name, reasons = NOTHING, (why or "",)
        else:
            # Here, because counting feedback needs no torch.
            from crossrank.training.trainer import train

            work = registry.folder / WORK
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                start = in_use.folder if in_use is not None else base
                result = train(
                    read.train, work / "candidate", training, base=start, general=general, progress=progress, tell=tell
                )
                tell(f"Trained {result.steps} steps in {result.seconds:.0f} s; comparing the candidate")
                # Before the comparison: an interrupted one has already used the held-out queries.
                state.spend(in_use.name if in_use is not None else "")
                decision = promote(
                    result.output,
                    data=dataset,
                    against=None if in_use is not None else base,
                    guard=guard,
                    registry=registry,
                    criteria=criteria,
                    weights=held.weights if held is not None else None,
                    settings=settings,
                    budget=budget,
                )
                file = f"{decision.time.replace(':', '').partition('+')[0]}-{decision.candidate['sha256'][:8]}.json"
                decision.write(registry.folder / DECISIONS / file)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            state.keep(read.rows)
            name, reasons = (PROMOTED if decision.promoted else REFUSED), (*decision.reasons, str(budget))
        in_use = registry.current()
        skipped = {"lines that can't be used": read.report.skipped} if read.report.skipped else {}
        return Outcome(
            state=name,
            reasons=reasons,
            files=read.files,
            rows=read.rows.total(),
            new_rows=read.new_rows,
            judgements=read.judgements,
            new_judgements=read.new_judgements,
            train_queries=len({same_query(one.query) for one in read.train}),
            decided_on=len(dataset.queries) if dataset is not None else 0,
            by_clicks=0 if held is None else held.clicked,
            notes={**read.report.notes, **skipped},
            version=in_use.name if in_use else None,
            eta=rules.eta,
            decision=decision,
        )


def _read(
    sources: Sequence[Source],
    state: _State,
    rules: Rules,
    reading: ReadSettings,
    trusted: Dataset | None,
    learnt: set[str],
) -> _Read:
    read = _Read()
    left = Counter(state.rows)
    not_to_train_on = {same_query(text) for text in trusted.queries.values()} if trusted is not None else set()
    for source in sources:
        read.files += 1
        for row, found in judged_rows(source, reading, read.report):
            digest = _digest(row)
            read.rows[digest] += 1
            read.judgements += len(found)
            if left[digest]:
                left[digest] -= 1
            else:
                read.new_rows += 1
                read.new_judgements += len(found)
            query = found[0].query if found else query_of(row, reading)
            held_out = trusted is None and is_held_out(query, rules.eval_share, _SEED)
            if held_out and digest_of_query(query) not in learnt:
                read.held.add(row, reading)
            elif same_query(query) in not_to_train_on:
                read.report.note("rows of queries that the decision is made on (not trained on)")
            else:
                read.train += found
    return read


def _why_not(read: _Read, dataset: Dataset | None, rules: Rules, criteria: Criteria, trusted: bool) -> str | None:
    """Return a sentence that says why there is nothing to do, or ``None`` if there is something."""
    if read.new_judgements < rules.min_judgements:
        return (
            f"{read.new_judgements} new judgements of {read.judgements} are fewer than {rules.min_judgements}. "
            "--min-judgements sets the limit."
        )
    if not read.train:
        return "No judgements are left to train on: all queries are held out."
    fewest, there = fewest_queries(criteria.alpha), len(dataset.queries) if dataset is not None else 0
    if there < fewest:
        where = "the data to decide on" if trusted else "the held-out feedback"
        more = "" if trusted else " Collect more feedback, or give judged queries with --data."
        return (
            f"{there} queries of {where} have documents with different labels, but at least {fewest} are needed to "
            f"show a difference (p below {criteria.alpha:.2g}).{more}"
        )
    return None


def _sources(feedback: str | os.PathLike[str] | Sequence[Mapping[str, Any]]) -> list[Source]:
    if not isinstance(feedback, (str, os.PathLike)):
        return [feedback] if feedback else []
    path = Path(feedback)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise InputError(f"There is no folder {str(path)!r} (seen from {str(Path.cwd())!r}). Check the path.")
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in found if file.name.lower().removesuffix(".gz").endswith(ENDINGS)]
    if not files:
        raise InputError(f"{str(path)!r} has no file of feedback. Known endings: {', '.join(ENDINGS)}, also with .gz.")
    return list(map(str, files))


def _digest(row: Row) -> str:
    text = json.dumps(row.fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _State:
    """Which rows were used, and how many rounds were run against each version (``""``: before the first)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        if path.is_file():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                self.rows, self.rounds = Counter(known["rows"]), Counter(known.get("rounds", {}))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{str(path)!r} is damaged ({error}). Delete it; all feedback then counts as new."
                ) from error

    def spend(self, version: str) -> None:
        """Count a round against a version."""
        self.rounds[version] += 1
        self.keep(self.rows)

    def keep(self, rows: Counter[str]) -> None:
        """Write which rows were used, completely or not at all."""
        self.rows = rows
        with write_atomically(self.path) as stream:
            json.dump({"rows": dict(rows), "rounds": dict(self.rounds)}, stream)
