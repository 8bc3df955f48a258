"""promote(): replace the model in use by a candidate only if the candidate is significantly better.

Both models rank the same documents for the same held-out queries. The candidate must be better there, and must not lose
more than a margin on a guard set of general queries. :mod:`crossrank.training.decision` has the formulas.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.checkpoint.model_registry import ModelRegistry, Version, digest_of
from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.data.dataset import Dataset
from crossrank.data.open_dataset import open_dataset
from crossrank.errors import CrossRankWarning, InputError
from crossrank.evaluation.evaluate_models import evaluate
from crossrank.evaluation.result import PairedComparison
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.training.checks import digest_of_query
from crossrank.training.decision import Budget, Criteria, Decision, compare_models, detectable, judge
from crossrank.training.guard_set import load_guard
from crossrank.training.saving import queries_learnt

BUNDLED, NONE = "bundled", "none"


def promote(
    candidate: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset,
    against: str | os.PathLike[str] | None = None,
    guard: str | os.PathLike[str] | Dataset = BUNDLED,
    registry: ModelRegistry | None = None,
    criteria: Criteria | None = None,
    split: str = "test",
    weights: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    decision_file: Path | None = None,
    show_progress: bool | None = None,
) -> Decision:
    """Decide whether a candidate is better than the model in use. With a registry, put it into use if it is.

    :param candidate: A checkpoint's folder.
    :param data: Held-out queries that the candidate was not trained on: anything that
        :func:`crossrank.data.open_dataset.open_dataset` reads, or a dataset.
    :param against: A name on the hub or a folder; by default the registry's version in use, else the bundled model.
    :param guard: General queries: ``"bundled"`` for those that come with crossrank, ``"none"``, or a dataset.
    :param registry: Where a better candidate becomes the version in use. In an empty registry ``against`` becomes the
        first version, so that there is a version to roll back to.
    :param split: The split of ``data`` and ``guard``, if they are folders.
    :param weights: Query -> how much it counts in ``data``.
    :param settings: How both models run, as :class:`~crossrank.scoring.cross_encoder.CrossEncoder` takes it.
    :param budget: If several rounds share one alpha: the share of this round, for the report. ``criteria`` has it too.
    :param decision_file: Where to write the decision as JSON. Until then the scores are kept in the same folder, so
        that an interrupted comparison can continue.
    :raises InputError: If something can't be used.
    :raises ModelError: If a model can't be loaded.
    :raises OSError: If the disk is full. The version in use stays in use.
    :raises CrossRankError: If the version in use changed in the meantime.
    """
    criteria = criteria or Criteria()
    if decision_file is not None:
        _check_decision_file(decision_file)
    in_use = registry.current() if registry is not None else None
    old, new = _models(candidate, against, in_use)
    held_out = data if isinstance(data, Dataset) else open_dataset(os.fspath(data), split=split)
    general = guard if isinstance(guard, Dataset) else _guard(guard, split)
    learnt = queries_learnt(new.folder)
    trained_on = sum(digest_of_query(text) in learnt for text in held_out.queries.values())
    if trained_on:
        warnings.warn(
            f"The candidate was trained on {trained_on} of the {len(held_out.queries)} queries of {held_out.name}, so "
            "it looks better than it is. Decide on queries that it was not trained on.",
            CrossRankWarning,
            stacklevel=2,
        )
    models = tuple(CrossEncoder(files.folder, **(settings or {})) for files in (old, new))
    scores = decision_file.with_name(f".{decision_file.name}.scores") if decision_file is not None else None
    on_data = _compare(held_out, models, criteria, weights, scores, show_progress)
    on_guard = _compare(general, models, criteria, None, scores, show_progress) if general is not None else None
    promoted, reasons, needed = judge(on_data, on_guard, criteria)
    decision = Decision(
        promoted=promoted,
        reasons=reasons,
        data=on_data,
        guard=on_guard,
        queries_needed=needed,
        detectable=detectable(on_data, criteria),
        criteria=criteria,
        candidate=_facts(new),
        against=_facts(old),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        left_out=held_out.left_out,
        trained_on=trained_on,
        budget=budget,
    )
    if promoted and registry is not None:
        if in_use is None:
            in_use = registry.switch(registry.publish(old.folder))
        version = registry.publish(new.folder)
        decision = replace(decision, version=version.name)
    # Before the switch: if it can't be written, the version in use stays.
    if decision_file is not None and scores is not None:
        decision.write(decision_file)
        shutil.rmtree(scores, ignore_errors=True)
    if promoted and registry is not None:
        try:
            registry.switch(version, instead_of=in_use, record={"decision": decision.as_dict()})
        except BaseException:
            if decision_file is not None:
                decision_file.unlink(missing_ok=True)  # because the promotion that it describes did not happen
            raise
    return decision


def _models(
    candidate: str | os.PathLike[str], against: str | os.PathLike[str] | None, in_use: Version | None
) -> tuple[ModelFiles, ModelFiles]:
    new = resolve(Path(candidate))
    if in_use is None:
        return resolve(against), new
    if against is not None and resolve(against).folder.resolve() != in_use.folder.resolve():
        raise InputError(
            f"against={os.fspath(against)!r} is not the version in use in {str(in_use.folder.parent.parent)!r}, "
            f"which is {in_use.name}. A candidate must be better than that version; leave --against out."
        )
    return ModelFiles(in_use.folder, in_use.name, in_use.name), new


def _guard(guard: str | os.PathLike[str], split: str) -> Dataset | None:
    if guard == NONE:
        return None
    return load_guard() if guard == BUNDLED else open_dataset(os.fspath(guard), split=split)


def _compare(
    dataset: Dataset,
    models: tuple[CrossEncoder, ...],
    criteria: Criteria,
    weights: Mapping[str, float] | None,
    scores: Path | None,
    show_progress: bool | None,
) -> PairedComparison:
    # Other models or other data get another folder and start from the beginning.
    key = hashlib.sha256(f"{dataset.fingerprint()} {criteria.depth}".encode())
    for model in models:
        key.update(json.dumps(model.info(), default=str).encode())
    found = evaluate(
        dataset,
        models,
        work=scores / key.hexdigest()[:16] if scores is not None else None,
        resume=scores is not None,
        measures=[criteria.measure],
        depth=criteria.depth,
        seed=criteria.seed,
        show_progress=show_progress,
    )
    # The first stage comes first.
    before, after = (system.values[found.measures[0]] for system in found.systems[1:])
    counting = None if weights is None else np.array([weights[query] for query in found.queries])
    return compare_models(found.dataset, before, after, criteria, counting)


def _check_decision_file(file: Path) -> None:
    """Refuse to overwrite anything but an earlier decision."""
    if not file.exists():
        return
    try:
        old = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict) or "promoted" not in old:
        raise InputError(f"{str(file)!r} exists and is not a decision. Name another file for the decision.")


def _facts(files: ModelFiles) -> dict[str, Any]:
    return {"name": files.name, "revision": files.revision, "sha256": digest_of(files.folder)}
