"""Data -> what is trained on and what is held out; needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossrank.checkpoint.config import ModelConfig, load_config
from crossrank.data.columns import roles_of
from crossrank.data.dataset import Dataset
from crossrank.data.files import read_judgements, rows_of
from crossrank.data.forms import judgements_of
from crossrank.data.judgements import Group, Judgement, ReadReport, ReadSettings, Row, RowError, label_of_grade
from crossrank.errors import InputError
from crossrank.tokenization.tokenizer import load_tokenizer
from crossrank.training.checks import (
    CUT,
    DataIssue,
    DataReport,
    check,
    count_cut,
    need_both_classes,
    need_pairs,
    same_query,
    split_by_query,
)
from crossrank.training.losses import LOSSES
from crossrank.training.settings import Settings

# What training data may be: a file or a folder, or several; rows as dictionaries or judgements, in memory; a table of
# pandas or polars; a test collection.
Data = Any


@dataclass(frozen=True)
class DataSplit:
    """What is trained on and what is held out.

    :param train: What the model learns from, general pairs included.
    :param held_out: What it does not; empty if there is too little data.
    :param general: How many pairs of ``train`` are general ones.
    :param report: What the check of the data found.
    :param fingerprint: Of all that the result depends on but the base and the machine.
    """

    train: list[Group]
    held_out: list[Group]
    general: int
    report: DataReport
    fingerprint: str


def split_data(
    data: Data,
    settings: Settings,
    *,
    evaluation: Data = (),
    general: Data = (),
    teacher_scores: str | None = None,
    reading: ReadSettings | None = None,
    evaluation_split: str = "test",
) -> DataSplit:
    """Read the data, check it, and divide it.

    :param data: What to train on: a file, a folder in BEIR's layout, a
        :class:`~crossrank.data.dataset.Dataset`, a DataFrame, or an iterable of files, dictionaries or judgements. A
        dictionary has the fields of a line in a file.
    :param evaluation: What to evaluate on, likewise; empty to hold out a part of the data.
    :param general: General pairs to mix in, likewise.
    :param teacher_scores: A file with ``query``, ``document`` and ``teacher_score`` (or ``score``).
    :param evaluation_split: Which qrels of folders in ``evaluation``.
    :raises InputError: If the data can't be used, or has nothing that the loss can learn from.
    """
    reading, both_classes = reading or ReadSettings(), LOSSES[settings.loss].both_classes
    read = ReadReport()
    held_out, _ = check(judgements_in(evaluation, replace(reading, split=evaluation_split), read), read)
    to_evaluate = bool(held_out)
    if not to_evaluate and not (isinstance(evaluation, tuple | list) and not evaluation):
        named = (
            ", ".join(one for one in evaluation if isinstance(one, str)) if isinstance(evaluation, list) else "given"
        )
        raise InputError(
            f"The evaluation data ({named}) has no pairs. Give other data, or leave --eval out: a part of the "
            "training data is held out then."
        )
    # Queries are compared by their text.
    not_to_train_on = {same_query(group.query) for group in held_out}
    read = ReadReport()
    judgements = judgements_in(data, reading, read)
    scores = _teacher_scores(teacher_scores) if teacher_scores else {}
    groups, report = check(_with_scores(judgements, scores), read, not_to_train_on=not_to_train_on)
    if teacher_scores:
        unmatched = len(scores.keys() - {one.pair for group in groups for one in group.judged})
        report.findings.append(DataIssue("teacher scores of pairs that are not in the data", unmatched, "not used"))
    need_pairs(groups, report)
    unlabelled = next((one for group in groups for one in group.judged if not one.labelled), None)
    if unlabelled and settings.loss != "mse":
        raise InputError(
            f"{unlabelled.place}: it has a teacher's score and no label, from which only --loss mse learns. "
            "Add a column 'label', or take --loss mse."
        )
    if both_classes:
        need_both_classes(groups, settings.loss)
    train = groups
    if not to_evaluate:
        train, held_out = split_by_query(groups, settings.held_out, settings.seed)
        what = f"of {len(groups)} queries held out, to decide when to stop and to measure the result"
        if len(held_out) < settings.least_held_out or not train:
            train, held_out = groups, []
            few = f"{settings.held_out:.0%} of them are fewer than {settings.least_held_out}"
            what = f"of {len(groups)} queries held out, because {few}"
        report.findings.append(DataIssue(what, len(held_out), "not trained on"))
        if both_classes:
            need_both_classes(train, settings.loss)
    mixed = _general(general, settings, reading, train, not_to_train_on | {same_query(g.query) for g in held_out})
    count = sum(len(group.judged) for group in mixed)
    if mixed:
        report.findings.append(DataIssue("general pairs", count, "mixed in"))
    train = [*train, *mixed]
    return DataSplit(train, held_out, count, report, _fingerprint(train, held_out, settings))


def judgements_in(data: Data, reading: ReadSettings, report: ReadReport) -> Iterator[Judgement]:
    """Judgements in whatever :func:`split_data` takes.

    :raises InputError: If something can't be used.
    """
    if isinstance(data, (str, os.PathLike)):
        yield from read_judgements([os.fspath(data)], reading, report)
        return
    if isinstance(data, Dataset):
        highest = max(max(judged.values()) for judged in data.qrels.values())
        for query, judged in data.qrels.items():
            for document, grade in judged.items():
                if document in data.corpus.index:
                    report.rows += 1
                    text = data.corpus.text(data.corpus.index[document])
                    yield Judgement(
                        data.queries[query], text, label_of_grade(max(0, grade), max(highest, 1)), data.name
                    )
        return
    if hasattr(data, "to_dicts"):  # polars
        data = data.to_dicts()
    elif hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        records = data.to_dict("records")
        data = [{key: None if value != value else value for key, value in row.items()} for row in records]  # NaN
    for number, one in enumerate(data, 1):
        if isinstance(one, (str, os.PathLike)):
            yield from read_judgements([os.fspath(one)], reading, report)
            continue
        report.rows += 1
        yield from [one] if isinstance(one, Judgement) else judgements_of(Row("data", number, one), reading, report)


def count_long(split: DataSplit, folder: Path, settings: Settings) -> None:
    """Add to the report how many pairs are longer than a model reads, unless it says so already.

    :param folder: The model's.
    :raises ModelError: If its tokenizer can't be read.
    :raises InputError: If it can't read as much as the settings ask for.
    """
    if any(one.done == CUT for one in split.report.findings):
        return
    tokenizer, config = load_tokenizer(folder), load_config(folder)
    _, most = lengths(config, settings)
    what = "documents" if config.model_type == "split_bert" else "pairs"

    def counts(pairs: list[tuple[str, str]]) -> list[int]:
        texts = pairs if what == "pairs" else [document for _, document in pairs]
        return [len(one.ids) for one in tokenizer.encode_batch(texts)]

    count_cut(split.report, split.train, counts, most, what)


def lengths(config: ModelConfig, settings: Settings) -> tuple[int, int]:
    """The most tokens of a pair that a model reads, and that it reads while it learns.

    Of a document by itself, for a model like the bundled one.

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
    general: Data, settings: Settings, reading: ReadSettings, train: Sequence[Group], not_these: set[str]
) -> list[Group]:
    """Sample general pairs, whole queries of them, up to their share."""
    read = ReadReport()
    groups, _ = check(judgements_in(general, reading, read), read, not_to_train_on=not_these)
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
