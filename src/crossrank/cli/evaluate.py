"""``crossrank evaluate DATASET...``: measure how much models improve the ranking of a test collection."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cli.datasets import add_data_options, open_datasets
from crossrank.cli.options import Parser, add_model_options, open_model, positive
from crossrank.cli.terminal import complain, remark_prepared, to_json
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.data.dataset import Dataset
    from crossrank.evaluation.result import Evaluation

WORK = "crossrank-work"

DESCRIPTION = """\
Measure how much models improve the rankings of a test collection: nDCG and
other measures with confidence intervals and significance tests."""
EPILOG = """\
datasets:
  - A folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv, and
    optionally candidates.tsv (query-id, corpus-id, rank, score).
  - A file of judged pairs, as for 'crossrank train': CSV, TSV, Parquet, or JSON
    lines such as {"query", "positives", "negatives"}.
  - A dataset on the Hugging Face hub, such as scifact.
  - TREC files, without DATASET: --qrels, --topics, --corpus and --run.
  Without candidates, BM25 searches the documents for them.

output:
  Tables and a summary in words; with --json one object per dataset.
  docs/evaluation.md describes every field, measure and test.

examples:
  crossrank evaluate data/scifact
  crossrank evaluate data/* --model ./mine --model owner/another --json
  crossrank evaluate pairs.jsonl --queries 200 --report report.html
  crossrank evaluate --qrels a.qrels --topics a.tsv --corpus a.jsonl --run a.run
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "datasets", metavar="DATASET", nargs="*", help="a folder, a file or a name on the hub (see below)"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="a reranker to measure; can be repeated (default: the bundled model)",
    )
    parser.add_argument(
        "--bi-encoder", metavar="NAME", help="also measure ranking by this bi-encoder's cosine similarity"
    )
    add_measure_options(parser)
    group = parser.add_argument_group("data")
    group.add_argument("--queries", type=positive, metavar="N", help="sample N queries at random (default: all)")
    group.add_argument("--first-stage", metavar="NAME", help="what to call the candidates' original order in tables")
    add_data_options(group)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON, one object per dataset")
    group.add_argument("--run-out", metavar="PATH", help="write TREC runs to a folder, or one model's run to a file")
    add_file_options(group)
    group.add_argument("--resume", action="store_true", help="continue an interrupted evaluation")
    group.add_argument(
        "--work", metavar="FOLDER", help=f"folder for intermediate scores (default: {WORK}, deleted at the end)"
    )
    add_model_options(parser)


def add_measure_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for measures and for the seed of random samples."""
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="NAME",
        help="measures, named as in ir-measures; the first is the main one (default: nDCG@10 MRR@10 Hit@1 Hit@3 Hit@10 "
        "MAP R@100)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of samples and tests (default: 0)"
    )


def add_file_options(parser: Any) -> None:
    """Add the options for files that an evaluation writes."""
    parser.add_argument("--per-query", metavar="FILE", help="write the values of each query, as .csv or .parquet")
    parser.add_argument("--report", metavar="FILE.html", help="write a report to open in a browser")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.cli.evaluation_files import check_outputs, write_per_query, write_report, write_runs
    from crossrank.cli.tables import write_evaluation, write_summary
    from crossrank.evaluation.evaluate_models import evaluate
    from crossrank.evaluation.measures import DEFAULT, parse
    from crossrank.evaluation.score_store import slug

    check_outputs(args, [*args.datasets, args.run, args.qrels, args.topics, args.corpus])
    measures = args.measures or DEFAULT
    parse(measures)  # fail on a misspelt name before anything is scored
    datasets = _open(args)
    models = [open_model(argparse.Namespace(**{**vars(args), "model": name})) for name in args.model or [None]]
    bi_encoder = None
    if args.bi_encoder is not None:
        from crossrank.scoring.bi_encoder import BiEncoder

        bi_encoder = BiEncoder(args.bi_encoder, num_threads=args.num_threads)
    work = Path(args.work or WORK)
    evaluations: list[Evaluation] = []
    try:
        for number, dataset in enumerate(datasets):
            evaluation = evaluate(
                dataset,
                models,
                bi_encoder=bi_encoder,
                measures=measures,
                depth=args.depth,
                seed=args.seed,
                work=work,
                resume=args.resume,
                runs=work / "runs" / slug(dataset.name) if args.run_out else None,
            )
            evaluations.append(evaluation)
            if args.json:
                print(to_json(evaluation.to_dict()))
            else:
                print(end="\n\n" if number else "")
                write_evaluation(evaluation)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if work.is_dir():
            complain(
                "interrupted", f"The scores so far are kept in {work}. Continue with the same command and --resume."
            )
        raise
    for model in models:
        remark_prepared(model)
    if len(evaluations) > 1 and not args.json:
        print("\n")
        write_summary(evaluations)
    if args.run_out:
        write_runs(work / "runs", Path(args.run_out), evaluations)
    if args.per_query:
        write_per_query(Path(args.per_query), evaluations)
    if args.report:
        write_report(Path(args.report), evaluations, models)
    if args.work is None:
        _remove_work(work, evaluations)
    return 0


def _remove_work(work: Path, evaluations: list[Evaluation]) -> None:
    """Remove the files of this command, but not those that an interrupted one left for --resume."""
    from crossrank.evaluation.systems import work_path

    shutil.rmtree(work / "runs", ignore_errors=True)
    for evaluation in evaluations:
        for system in evaluation.systems:
            work_path(work, evaluation.dataset, system.name).unlink(missing_ok=True)
    with suppress(OSError):  # other files stay
        work.rmdir()


def _open(args: argparse.Namespace) -> list[Dataset]:
    datasets = open_datasets(args.datasets, args)
    if args.first_stage:
        datasets = [replace(one, first_stage=args.first_stage) if one.candidates else one for one in datasets]
    names = [one.name for one in datasets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two datasets are called {twice!r}, so their results would be mixed up. Rename one.")
    return [one if args.queries is None else one.sample(args.queries, args.seed) for one in datasets]
