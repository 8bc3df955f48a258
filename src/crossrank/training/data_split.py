"""Divide data into a training part and a held-out part. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossrank.checkpoint.model_config import ModelConfig, load_config
from crossrank.data.columns import roles_of
from crossrank.data.files import read_judgements, rows_of
from crossrank.data.forms import judgements_of
from crossrank.data.judgements import Group, Judgement, ReadReport, ReadSettings, RowError
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

# Training data: one or more files or folders, rows in memory as dictionaries or judgements, a DataFrame, or a dataset.
Data = Any


@dataclass(frozen=True)
class DataSplit:
    """The training part and the held-out part.

    :param train: What the model learns from, including general pairs.
    :param held_out: What the model does not learn from; empty if there is too little data.
    :param general: How many pairs of ``train`` are general ones.
    :param report: What the check of the data found.
    :param fingerprint: Digest of everything that the result depends on, except the base and the machine.
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
    """Read, check and divide the data.

    :param data: What to train on: a file, a BEIR folder, a
        :class:`~crossrank.data.dataset.Dataset`, a DataFrame, or an iterable of files, dictionaries or judgements. A
        dictionary has the fields of a line in a file.
    :param evaluation: What to evaluate on, in the same forms; if empty, a part of the data is held out.
    :param general: General pairs to mix in, in the same forms.
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
            f"The evaluation data ({named}) has no pairs. Give other data, or leave --eval out to hold out a part "
            "of the training data."
        )
    # Queries are compared by their text.
    not_to_train_on = {same_query(group.query) for group in held_out}
    read = ReadReport()
    judgements = judgements_in(data, reading, read)
    scores = _teacher_scores(teacher_scores) if teacher_scores else {}
    with_scores = (replace(one, teacher=scores[one.pair]) if one.pair in scores else one for one in judgements)
    groups, report = check(with_scores, read, not_to_train_on=not_to_train_on)
    if teacher_scores:
        unmatched = len(scores.keys() - {one.pair for group in groups for one in group.judged})
        report.findings.append(DataIssue("teacher scores of pairs that are not in the data", unmatched, "not used"))
    need_pairs(groups, report)
    unlabelled = next((one for group in groups for one in group.judged if not one.labelled), None)
    if unlabelled and settings.loss != "mse":
        raise InputError(
            f"{unlabelled.place}: it has a teacher score but no label. Only --loss mse can use it. "
            "Add a column 'label', or use --loss mse."
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
    """Return the judgements in any input that :func:`split_data` accepts.

    :raises InputError: If something can't be used.
    """
    is_one = not isinstance(data, Iterable) or isinstance(data, str) or hasattr(data, "columns")
    items = [data] if is_one else list(data)
    judgements = [one for one in items if isinstance(one, Judgement)]
    report.rows += len(judgements)
    yield from judgements
    rows = [one for one in items if isinstance(one, Mapping)]
    sources = [one for one in items if not isinstance(one, (Judgement, Mapping))]
    yield from read_judgements([*sources, rows], reading, report)


def count_long(split: DataSplit, folder: Path, settings: Settings) -> None:
    """Add to the report how many pairs are longer than the model reads, unless it is already there.

    :param folder: The folder of the model.
    :raises ModelError: If its tokenizer can't be read.
    :raises InputError: If the settings ask for more tokens than the model can read.
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
    """Return the most tokens of a pair that the model reads, and that it reads during training.

    For a model like the bundled one, these are tokens of a document alone.

    :raises InputError: If the settings ask for more tokens than the model can read.
    """
    limit, of = config.usable_length, "tokens"
    if config.model_type == "split_bert":
        # The tokens of a pair that SplitBertConfig.cut_pairs_at keeps.
        documents = int(config.need("max_position_embeddings") - config.need("max_query_length")) + 1
        limit, of = min(limit, documents), "tokens of a document"
    full = settings.max_length or limit
    if full > limit:
        raise InputError(f"max_length={full} is more than this model's {limit} {of}. Use at most that.")
    shorter = settings.train_length or full
    if shorter > full:
        raise InputError(f"train_length={shorter} is more than the {full} {of} that the model reads. Use at most that.")
    return full, shorter


def _teacher_scores(path: str) -> dict[tuple[str, str], float]:
    scores: dict[tuple[str, str], float] = {}
    for row in rows_of(path):
        if isinstance(row, RowError):
            raise row
        roles = roles_of(row.fields, {})
        # The columns have no label: what looks like one is the teacher's score.
        column = (roles.get("teacher") or roles.get("label") or [""])[0]
        if "query" not in roles or "document" not in roles or not column:
            raise row.bad("it does not have query, document and teacher_score", "Give these three columns.")
        given = ReadSettings(columns={"teacher": column, "label": ""})
        scores |= {one.pair: one.teacher for one in judgements_of(row, given, ReadReport()) if one.teacher is not None}
    return scores


def _general(
    general: Data, settings: Settings, reading: ReadSettings, train: Sequence[Group], not_these: set[str]
) -> list[Group]:
    """Sample general pairs up to their share, always all pairs of a query."""
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
