"""``crossrank batch INPUT OUTPUT``: score files of any size, in parts that can be resumed."""

from __future__ import annotations

import argparse
import sys

from crossrank.cli.options import Parser, add_scoring_options, model_settings, positive
from crossrank.cli.terminal import complain, remark, to_json

# Finished, but some rows were left out.
INCOMPLETE = 3

DESCRIPTION = "Score files of any size in bounded memory, on this machine or on a Ray cluster."
EPILOG = """\
input:
  Parquet, JSON lines or CSV (the latter two also with .gz): one file, a folder,
  a glob in quotes, or an address such as s3://bucket/folder. A row is a query
  with a document, or a query with a list of documents.

output:
  Parquet with all columns of the input. A pair gets rerank_score. A list gets
  rerank_scores and rerank_ranks (1 is best), in the order of its documents.
  --top-k keeps only the best documents of each list, and rerank_positions says
  where they were in the input. OUTPUT is a folder with several files, or a
  single file if its name ends in .parquet.

  You can stop the command at any time. Run it again, and it continues where it
  stopped. Rows that can't be used go to OUTPUT/_bad, or to OUTPUT.bad.jsonl,
  with the reason.

examples:
  crossrank batch pairs.parquet scored.parquet
  crossrank batch 's3://bucket/found/*.parquet' s3://bucket/ranked --top-k 10
  crossrank batch candidates/ ranked/ --engine ray --workers 8

exit codes:
  0 all rows were scored; 3 finished, but some rows were left out; 1 error
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("input", metavar="INPUT", help="a file, a folder, a glob or a cloud address")
    parser.add_argument("output", metavar="OUTPUT", help="a folder, or a file that ends in .parquet")
    parser.add_argument("--query-column", metavar="NAME", help="column of queries (default: found by its name)")
    parser.add_argument(
        "--documents-column",
        metavar="NAME",
        help="column of documents or lists of documents (default: found by its name)",
    )
    parser.add_argument(
        "--text",
        metavar="FIELD",
        help="for documents with several fields: the field to score, or a template such as '{title}: {text}'",
    )
    parser.add_argument("--top-k", type=positive, metavar="K", help="keep only the best K documents of each list")
    parser.add_argument("--pipeline", metavar="FILE", help="rank with the pipeline of a TOML file instead of one model")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where to run (default: local, in this process)"
    )
    ray = parser.add_argument_group("with --engine ray")
    ray.add_argument(
        "--address",
        metavar="ADDRESS",
        help="address of a running cluster, or auto (default: start one on this machine)",
    )
    ray.add_argument(
        "--workers", type=positive, metavar="N", help="maximum number of processes (default: as many as fit)"
    )
    ray.add_argument("--cpus-per-worker", type=float, default=1.0, metavar="N", help="cores per process (default: 1)")
    ray.add_argument(
        "--gpus-per-worker", type=float, default=0.0, metavar="N", help="GPUs per process, such as 0.5 (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_scoring_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.batch import BatchJob, RankBatch
    from crossrank.progress import progress_of

    settings = model_settings(args)
    if args.precision == "auto":
        del settings["precision"]  # the default, so that --pipeline without --precision is not an error
    engine = None
    if args.engine == "ray":
        from crossrank.integrations.ray_data import ray_engine

        engine = ray_engine(
            address=args.address, workers=args.workers, cpus=args.cpus_per_worker, gpus=args.gpus_per_worker
        )
    rank = RankBatch(
        args.model,
        pipeline=args.pipeline,
        query=args.query_column,
        documents=args.documents_column,
        text=args.text,
        top_k=args.top_k,
        **settings,
    )
    job = BatchJob(args.input, args.output, rank)
    try:
        with progress_of(job.weight, None, unit="B") as advance:
            summary = job.run(advance=advance, engine=engine)
    except KeyboardInterrupt:
        complain("note", "stopped. Finished parts are kept. Run the same command again to continue.")
        raise
    for name in summary.redone:
        complain("warning", f"{name} was missing or damaged and was done again.")
    if args.json:
        print(to_json(summary.to_dict()))
    else:
        sys.stderr.write(
            f"{summary.rows} rows, {summary.pairs} pairs ({summary.cut} cut) in {summary.seconds:.1f} s of scoring, "
            f"{summary.pairs_per_second:.0f} pairs/s. Parts: {summary.parts}, finished earlier: {summary.resumed}.\n"
        )
    if args.prepared:
        remark(f"prepared: {summary.documents_prepared} of {summary.documents}")
    if summary.bad:
        complain("warning", f"{summary.bad} rows were left out; {summary.bad_rows} says why.")
        return INCOMPLETE
    return 0
