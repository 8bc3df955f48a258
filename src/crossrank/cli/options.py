"""The options that commands share, and the model they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from crossrank.engines.select import PRECISIONS
from crossrank.scoring.activation import ACTIVATIONS

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder


def positive(text: str) -> int:
    """Read a positive integer, for argparse.

    :raises argparse.ArgumentTypeError: If it is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a model runs, to every command that has one."""
    group = parser.add_argument_group("how the model runs")
    group.add_argument("--revision", metavar="NAME", help="a branch, tag or commit on the hub")
    group.add_argument("--max-length", type=positive, metavar="N", help="the most tokens of a pair (default: all)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="what to calculate in (default: auto, the fastest that this processor runs well)",
    )
    group.add_argument("--num-threads", type=positive, metavar="N", help="threads to use (default: all there are)")
    group.add_argument("--device", metavar="NAME", help="cpu (the default); cuda or mps with the extra 'torch'")
    group.add_argument("--label", metavar="NAME", help="of several labels, the one that means relevant")


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Add which model to take and what its scores are, to the commands that score."""
    parser.add_argument(
        "--model", metavar="NAME", help="a name on the Hugging Face hub, or a folder (default: the model in the box)"
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--activation",
        choices=tuple(ACTIVATIONS),
        metavar="NAME",
        help=f"from raw scores to scores: {', '.join(ACTIVATIONS)} (default: what the model asks for)",
    )
    scale.add_argument(
        "--raw", dest="activation", action="store_const", const="identity", help="raw scores: --activation identity"
    )
    scale.add_argument(
        "--calibration", metavar="FILE", help="probabilities, by a calibration that 'crossrank calibrate' wrote"
    )
    add_model_options(parser)
    parser.add_argument("--batch-size", type=positive, metavar="N", help="the most pairs at a time (default: any)")


def open_model(args: argparse.Namespace) -> CrossEncoder:
    """Make the model that the options describe; it is loaded at its first use.

    :raises InputError: If a setting can't be used.
    """
    from crossrank.scoring.cross_encoder import CrossEncoder

    return CrossEncoder(
        args.model,
        max_length=args.max_length,
        device=args.device,
        precision=args.precision,
        num_threads=args.num_threads,
        revision=args.revision,
        activation_fn=getattr(args, "activation", None),
        label=args.label,
        calibration=getattr(args, "calibration", None),
    )
