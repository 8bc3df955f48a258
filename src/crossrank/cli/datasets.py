"""The data that ``evaluate`` and ``calibrate`` read: datasets by name, or TREC files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import positive
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.data.dataset import Dataset


def add_data_options(group: Any) -> None:
    """Add the options for what is read besides the name of a dataset."""
    group.add_argument(
        "--split", default="test", metavar="NAME", help="read judgements from qrels/NAME.tsv (default: test)"
    )
    group.add_argument("--depth", type=positive, default=100, metavar="N", help="candidates per query (default: 100)")
    group.add_argument(
        "--run", metavar="FILE", help="candidates, as a TREC run (default: those of the dataset, else BM25's)"
    )
    group.add_argument("--qrels", metavar="FILE", help="instead of DATASET: judgements, in TREC format")
    group.add_argument("--topics", metavar="FILE", help="with --qrels: queries, as JSON lines or id, tab, text")
    group.add_argument("--corpus", metavar="FILE", help="with --qrels: documents, in the same formats")


def open_datasets(names: Sequence[str], args: argparse.Namespace) -> list[Dataset]:
    """Open the named datasets, or the one of ``--qrels``.

    :raises InputError: If there is none, or both, or one can't be used.
    """
    from crossrank.data.open_dataset import open_dataset, read_trec

    if not args.qrels:
        if not names:
            raise InputError("There is no dataset. Give a folder or a file, or --qrels, --topics and --corpus.")
        return [open_dataset(name, split=args.split, run=args.run) for name in names]
    if names:
        raise InputError(f"Give either DATASET ({names[0]}) or --qrels with --topics and --corpus.")
    if not args.topics or not args.corpus:
        raise InputError("--qrels needs --topics and --corpus: files with the texts of queries and documents.")
    return [read_trec(qrels=args.qrels, queries=args.topics, corpus=args.corpus, run=args.run)]
