"""Files that an evaluation writes: runs, values per query, the report."""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cli.output_files import check_output
from crossrank.errors import InputError
from crossrank.evaluation.result import Evaluation
from crossrank.evaluation.score_store import slug
from crossrank.optional import require

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

# Pairs to score for explaining one document in a report, which explains up to sixteen documents per dataset.
EXPLAINED = 96


def check_outputs(args: argparse.Namespace, inputs: Sequence[str | None]) -> None:
    """Check that everything can be written, before anything is scored.

    :param inputs: Files and folders that the command reads.
    :raises InputError: If a file's ending or folder is wrong, it is an input, or a package is missing.
    """
    if args.per_query:
        path = Path(args.per_query)
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(f"--per-query {args.per_query}: the name must end in .csv or .parquet.")
        if path.suffix == ".parquet":
            _pyarrow()
    for name in filter(None, (args.per_query, args.report)):
        check_output(name, inputs)
    if out := getattr(args, "run_out", None):
        _check_run_out(Path(out), args, inputs)


def _check_run_out(out: Path, args: argparse.Namespace, inputs: Sequence[str | None]) -> None:
    if _is_file(out):
        if len(args.model or [None]) > 1 or len(args.datasets) > 1:
            raise InputError(f"--run-out {out}: one file can't contain several runs. Give a folder.")
        folder = next(folder for folder in out.resolve().parents if folder.exists())  # missing ones are made
        check_output(out if out.exists() else folder / "run", inputs)
        return
    if args.run and out.resolve() in Path(args.run).resolve().parents:
        raise InputError(
            f"--run-out {out} is the folder of --run {args.run}, which could be overwritten. Name another folder."
        )
    check_output(next(folder for folder in (out / "run").resolve().parents if folder.exists()) / "run", inputs)


def write_runs(made: Path, out: Path, evaluations: Sequence[Evaluation]) -> None:
    """Copy the runs to ``DIR/system.run``, or with several datasets to ``DIR/dataset/system.run``.

    If ``out`` is a file, it gets the run of the reranker.
    """
    for evaluation in evaluations:
        folder = made / slug(evaluation.dataset)
        if _is_file(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"{slug(evaluation.systems[-1].name)}.run", out)
        else:
            target = out if len(evaluations) == 1 else out / slug(evaluation.dataset)
            shutil.copytree(folder, target, dirs_exist_ok=True)


def write_per_query(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write a row for each query and system, as CSV or Parquet.

    :raises MissingExtraError: If it is Parquet and pyarrow is not installed.
    """
    rows = [row for evaluation in evaluations for row in evaluation.per_query()]
    if path.suffix == ".parquet":
        pyarrow = _pyarrow()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_report(path: Path, evaluations: Sequence[Evaluation], models: Sequence[CrossEncoder] = ()) -> None:
    """Write the report.

    :param models: The rerankers in the order of the evaluations, to explain their top documents.
    """
    from crossrank.evaluation.explain import explain_pairs
    from crossrank.evaluation.report import write_report as write

    names = [one.name for one in evaluations[0].systems if one.kind == "cross-encoder"]
    explainers = {
        name: partial(explain_pairs, model, budget=EXPLAINED) for name, model in zip(names, models, strict=False)
    }
    write(evaluations, path, explanations=explainers)


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.suffix in (".run", ".trec", ".txt", ".tsv") and not path.is_dir())


def _pyarrow() -> Any:
    require("pyarrow.parquet", extra="parquet", purpose="--per-query with .parquet (a .csv file needs nothing)")
    return require("pyarrow", extra="parquet", purpose="Parquet")
