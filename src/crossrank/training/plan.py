"""From files to what is trained on and what is held out; needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossrank.checkpoint.config import ModelConfig, load_config
from crossrank.data.columns import roles_of
from crossrank.data.files import read_judgements, rows_of
from crossrank.data.judgements import Group, Judgement, ReadReport, ReadSettings, RowError
from crossrank.errors import InputError
from crossrank.tokenization.tokenizer import load_tokenizer
from crossrank.training.checks import (
    CUT,
    DataReport,
    Finding,
    check,
    count_cut,
    need_both_classes,
    need_pairs,
    same_query,
    split_by_query,
)
from crossrank.training.losses import find_loss
from crossrank.training.settings import Settings


@dataclass(frozen=True)
class Sources:
    """Where the data is.

    :param data: Files and folders to train on.
    :param evaluation: Files and folders to evaluate on; empty if a part of the data is to be held out.
    :param general: Files and folders of general pairs to mix in.
    :param teacher_scores: A file with ``query``, ``document`` and ``teacher_score`` (or ``score``).
    :param evaluation_split: Of BEIR folders in ``evaluation``, which qrels.
    """

    data: Sequence[str]
    evaluation: Sequence[str] = ()
    general: Sequence[str] = ()
    teacher_scores: str | None = None
    evaluation_split: str = "test"


@dataclass(frozen=True)
class Plan:
    """What a run works with.

    :param train: What is learnt from, general pairs included.
    :param held_out: What is not; empty if there is too little data.
    :param general: How many pairs of ``train`` are general ones.
    :param report: What the look at the data found.
    :param fingerprint: Of all that the result depends on but the base and the machine.
    """

    train: list[Group]
    held_out: list[Group]
    general: int
    report: DataReport
    fingerprint: str


def make_plan(sources: Sources, settings: Settings, reading: ReadSettings) -> Plan:
    """Read the data, look at it, and divide it.

    :raises InputError: If it can't be used, or has nothing that the loss can learn from.
    """
    loss = find_loss(settings.loss)
    held_out: list[Group] = []
    if sources.evaluation:
        read = ReadReport()
        of_evaluation = replace(reading, split=sources.evaluation_split)
        held_out, _ = check(read_judgements(sources.evaluation, of_evaluation, read), read)
        if not held_out:
            raise InputError(
                f"No pairs are in the evaluation data ({', '.join(sources.evaluation)}). Give others, or leave --eval "
                "out: a part of the data is held out then."
            )
    # The held-out queries are known by their text, and so are those of the evaluation data.
    not_to_train_on = {same_query(group.query) for group in held_out}
    read = ReadReport()
    judgements = read_judgements(sources.data, reading, read)
    unmatched = 0
    if sources.teacher_scores:
        scores = _teacher_scores(sources.teacher_scores)
        judgements = _with_scores(judgements, scores)
    groups, report = check(judgements, read, not_to_train_on=not_to_train_on)
    if sources.teacher_scores:
        there = {one.pair for group in groups for one in group.judged}
        unmatched = len(scores.keys() - there)
        report.findings.append(Finding("teacher scores of pairs that are not in the data", unmatched, "not used"))
    need_pairs(groups, report)
    if loss.both_classes:
        need_both_classes(groups, settings.loss)
    unlabelled = next((one for group in groups for one in group.judged if not one.labelled), None)
    if unlabelled and settings.loss != "mse":
        raise InputError(
            f"{unlabelled.place}: it has a teacher's score and no label, from which only --loss mse learns. "
            "Add a column 'label', or take --loss mse."
        )
    train = groups
    if not sources.evaluation:
        train, held_out = split_by_query(groups, settings.held_out, settings.seed)
        if len(held_out) < settings.least_held_out or not train:
            train, held_out = groups, []
        what = f"of {len(groups)} queries held out, to decide when to stop and to measure the result"
        if not held_out:
            few = f"{settings.held_out:.0%} of them are fewer than {settings.least_held_out}"
            what = f"of {len(groups)} queries held out, because {few}"
        report.findings.append(Finding(what, len(held_out), "not trained on"))
        if loss.both_classes:
            need_both_classes(train, settings.loss)
    general = _general(sources, settings, reading, train, not_to_train_on | {same_query(g.query) for g in held_out})
    mixed = sum(len(group.judged) for group in general)
    if sources.general:
        report.findings.append(Finding("general pairs", mixed, "mixed in"))
    train = [*train, *general]
    return Plan(train, held_out, mixed, report, _fingerprint(train, held_out, settings))


def count_long(plan: Plan, folder: Path, settings: Settings) -> None:
    """Add to the report how many pairs are longer than a model reads, unless it says so already.

    :param folder: The model's.
    :raises ModelError: If its tokenizer can't be read.
    :raises InputError: If it can't read as much as the settings ask for.
    """
    if any(one.done == CUT for one in plan.report.findings):
        return
    tokenizer, config = load_tokenizer(folder), load_config(folder)
    _, most = lengths(config, settings)
    what = "documents" if config.model_type == "split_bert" else "pairs"

    def counts(pairs: list[tuple[str, str]]) -> list[int]:
        texts = pairs if what == "pairs" else [document for _, document in pairs]
        return [len(one.ids) for one in tokenizer.encode_batch(texts)]

    count_cut(plan.report, plan.train, counts, most, what)


def lengths(config: ModelConfig, settings: Settings) -> tuple[int, int]:
    """The most tokens of a pair that a model reads, and that it reads while it learns.

    Of a document by itself, for a model as in the box.

    :raises InputError: If it can't read what the settings ask for.
    """
    limit, of = config.usable_length, "tokens"
    if config.model_type == "split_bert":
        # What SplitBertConfig.cut_pairs_at leaves of a pair.
        documents = int(config.need("max_position_embeddings") - config.need("max_query_length")) + 1
        limit, of = min(limit, documents), "tokens of a document"
    full = settings.max_length or limit
    if full > limit:
        raise InputError(f"max_length={full} is more than this model's {limit} {of}. Take at most that.")
    shorter = settings.train_length or full
    if shorter > full:
        raise InputError(
            f"train_length={shorter} is more than the {full} {of} that the model reads. Take at most that."
        )
    return full, shorter


def _teacher_scores(path: str) -> dict[tuple[str, str], float]:
    scores: dict[tuple[str, str], float] = {}
    for row in rows_of(path):
        if isinstance(row, RowError):
            raise row
        roles = roles_of(row.fields, {})
        column = (roles.get("teacher") or roles.get("label") or [""])[0]
        value = row.fields.get(column)
        if "query" not in roles or "document" not in roles or not column:
            raise row.bad("it has not query, document and teacher_score", "Give these three columns.")
        try:
            score = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise row.bad(f"its {column!r} is {value!r}, not a number", "Give a score for each pair.")
        scores[str(row.fields[roles["query"][0]]), str(row.fields[roles["document"][0]])] = score
    return scores


def _with_scores(judgements: Iterator[Judgement], scores: dict[tuple[str, str], float]) -> Iterator[Judgement]:
    for one in judgements:
        yield replace(one, teacher=scores[one.pair]) if one.pair in scores else one


def _general(
    sources: Sources, settings: Settings, reading: ReadSettings, train: Sequence[Group], not_these: set[str]
) -> list[Group]:
    """Draw general pairs, whole queries of them, up to their share."""
    if not sources.general:
        return []
    read = ReadReport()
    groups, _ = check(read_judgements(sources.general, reading, read), read, not_to_train_on=not_these)
    random.Random(f"{settings.seed}\ngeneral").shuffle(groups)
    wanted = settings.mix_share * sum(len(group.judged) for group in train)
    drawn: list[Group] = []
    count = 0
    for group in groups:
        if count >= wanted:
            break
        drawn.append(group)
        count += len(group.judged)
    return drawn


def _fingerprint(train: Sequence[Group], held_out: Sequence[Group], settings: Settings) -> str:
    digest = hashlib.sha256(json.dumps(settings.as_dict(), sort_keys=True).encode())
    for groups in (train, held_out):
        for group in groups:
            for one in group.judged:
                digest.update(json.dumps([one.query, one.document, one.label, one.teacher]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
