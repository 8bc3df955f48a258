"""``crossrank calibrate DATASET -o FILE``: turn scores into probabilities, and find a threshold."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from crossrank.cli.datasets import add_data_options, open_datasets
from crossrank.cli.options import MODEL, Parser, add_model_options, open_model, positive
from crossrank.cli.terminal import complain, remark, remark_prepared, to_json

if TYPE_CHECKING:
    from crossrank.evaluation.calibration.curves import ReliabilityPoint
    from crossrank.scoring.calibration import Calibration, Threshold

_WIDTH = 40

DESCRIPTION = """\
Turn a model's scores into probabilities of relevance, using judged pairs, and
find a threshold."""
EPILOG = """\
datasets:
  As for 'crossrank evaluate'. Only judged candidates count. Candidates without
  a judgement are left out; with --assume-irrelevant they count as irrelevant,
  which is right if the judges marked every relevant document.

output:
  Expected calibration error, Brier score and log loss, before calibration (the
  sigmoid of the raw score) and after it (on held-out queries), a reliability
  diagram, and the threshold. With --json, one object. A calibration works only
  with the model and precision that it was made for.

examples:
  crossrank calibrate data/wikiqa -o c.json
  crossrank calibrate mine.jsonl --target-precision 0.9 -o c.json
  crossrank calibrate --qrels a.qrels --topics a.tsv --corpus a.jsonl -o c.json
  crossrank rerank "refund policy" faq.txt --calibration c.json --threshold 0.7
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="judged data, as for 'crossrank evaluate'")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write the calibration")
    parser.add_argument("--model", metavar="NAME", help=MODEL)
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--target-precision",
        type=_share,
        metavar="P",
        help="find a threshold: of the documents above it, this share is relevant",
    )
    target.add_argument(
        "--target-recall",
        type=_share,
        metavar="R",
        help="find a threshold: of the relevant documents, this share is above it",
    )
    parser.add_argument(
        "--confidence", type=_share, default=0.95, metavar="C", help="confidence in the threshold (default: 0.95)"
    )
    parser.add_argument(
        "--assume-irrelevant", action="store_true", help="count candidates without a judgement as irrelevant"
    )
    parser.add_argument(
        "--method",
        choices=("platt", "isotonic"),
        help="how to fit the curve (default: the better of the two on held-out queries)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="maximum pairs to score at once")
    add_data_options(parser.add_argument_group("data"))
    add_model_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.cli.output_files import check_output
    from crossrank.evaluation.calibration.fit import calibrate

    check_output(args.output, [args.dataset, args.run, args.qrels, args.topics, args.corpus])
    [dataset] = open_datasets([args.dataset] if args.dataset else [], args)
    if dataset.candidates is None:
        dataset = dataset.with_bm25(args.depth)
    model = open_model(args)
    calibration, fitted, unmet = calibrate(
        model,
        dataset,
        depth=args.depth,
        assume_irrelevant=args.assume_irrelevant,
        target_precision=args.target_precision,
        target_recall=args.target_recall,
        confidence=args.confidence,
        method=args.method,
        batch_size=args.batch_size,
    )
    calibration.save(args.output)
    if args.json:
        points = {"before": fitted.reliability_before, "after": fitted.reliability_after}
        rows = {name: [point._asdict() for point in found] for name, found in points.items()}
        print(to_json({**calibration.to_dict(), "reliability": rows, "left_out": dict(dataset.left_out)}))
    else:
        _write(calibration, fitted.reliability_after)
    remark_prepared(model)
    for what, count in dataset.left_out.items():
        remark(f"{count} {what}")
    if unmet is not None:
        complain("error", f"{unmet} {args.output} has the calibration without a threshold.")
    return int(unmet is not None)


def _write(calibration: Calibration, points: tuple[ReliabilityPoint, ...]) -> None:
    c = calibration
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in c.log_losses.items())
    print(f"{c.binding.model} on {c.dataset}: {c.method} (held-out log loss: {losses})")
    print(
        f"{c.pairs} pairs of {c.queries} queries, {c.relevant} relevant; "
        f"{c.unjudged} candidates without a judgement: {c.unjudged_as if c.unjudged else 'none'}"
    )
    print(f"\n{'':30}{'before':>10}{'after':>10}")
    for name, key in (("expected calibration error", "ece"), ("Brier score", "brier"), ("log loss", "log_loss")):
        print(f"{name:30}{getattr(c.before, key):10.4f}{getattr(c.after, key):10.4f}")
    print("\npredicted  relevant     pairs   # relevant, | predicted")
    for point in points:
        bar = list(("#" * round(point.observed * _WIDTH)).ljust(_WIDTH + 1))
        bar[round(point.predicted * _WIDTH)] = "|"
        print(f"{point.predicted:9.3f} {point.observed:9.3f} {point.pairs:9d}   {''.join(bar).rstrip()}")
    for threshold in c.thresholds:
        print(f"\n{_in_words(threshold)}")


def _in_words(t: Threshold) -> str:
    kept = "of the kept pairs are relevant" if t.measure == "precision" else "of the relevant candidates are kept"
    basis = f"{t.pairs} judged pairs" if t.measure == "precision" else f"{t.pairs} relevant pairs"
    return (
        f"--threshold {t.score!r}: at least {t.bound:.3f} {kept}, with a confidence of {t.confidence:g} "
        f"({t.observed:.3f} of {basis}, which count as {t.effective_pairs:.0f} independent ones). "
        f"It keeps {t.kept:.1%} of the judged pairs."
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value
