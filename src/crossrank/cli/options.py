"""Parsing a command's options; the options that commands share, and the model they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from crossrank.errors import did_you_mean

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

MODEL = "a name on the Hugging Face hub, or a folder (default: the bundled model)"


class Parser(argparse.ArgumentParser):
    """A parser with a short usage line, and suggestions for misspelt options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self._positionals.title = "arguments"
        self._given: list[str] = []

    def also(self, option: str, old: str) -> None:
        """Accept an older name of an option, which the help doesn't show."""
        self._option_string_actions[old] = self._option_string_actions[option]

    def format_usage(self) -> str:
        """Show what must be given; the list of options below shows the rest."""
        return f"usage: {self._usage()}\n"

    def format_help(self) -> str:
        """Show the short usage line, then everything."""
        self.usage = self._usage()
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Print the help; unlike argparse's, an error in writing is an error."""
        print(self.format_help(), end="", file=file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what was given, for the suggestions."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2; name a misspelt option if there is one."""
        known = self._option_string_actions
        for word in self._given[: self._given.index("--") if "--" in self._given else None]:
            option = word.partition("=")[0]
            if option.startswith("--") and not any(name.startswith(option) for name in known):
                message = f"{self.prog} has no option {option}.{did_you_mean(option, known)}"
                break
        self.exit(2, f"{self.format_usage()}crossrank: error: {message}\n'{self.prog} --help' lists all options.\n")

    def _usage(self) -> str:
        words = [self.prog, "[OPTIONS]"]
        marks = {"+": "{}...", "*": "[{}...]", "?": "[{}]"}
        for action in self._actions:
            value = marks.get(str(action.nargs), "{}").format(action.metavar or action.dest)
            if not action.option_strings:
                words.append(value)
            elif action.required:
                words.append(f"{action.option_strings[-1]} {value}")
        return " ".join(words)


def positive(text: str) -> int:
    """Read a positive integer, for argparse.

    :raises argparse.ArgumentTypeError: If it is something else.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for how a model runs."""
    from crossrank.engines.settings import PRECISIONS

    group = parser.add_argument_group("how the model runs")
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit on the hub")
    group.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help="maximum tokens of a query and a document together; the document is cut (default: the model's limit)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="number format; auto means bfloat16 on processors that support it, else float32 (default: auto)",
    )
    group.add_argument("--num-threads", type=positive, metavar="N", help="number of threads (default: one per core)")
    group.add_argument("--device", metavar="NAME", help="cpu (default), or cuda or mps with the extra 'torch'")
    group.add_argument("--prepared", metavar="FOLDER", help="folder that 'crossrank prepare' wrote")
    group.add_argument("--label", metavar="NAME", help="for a model with several labels: the one that means relevant")


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for which model scores and what its scores mean."""
    from crossrank.scoring.activation import ACTIVATIONS

    parser.add_argument("--model", metavar="NAME", help=MODEL)
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--activation",
        choices=tuple(ACTIVATIONS),
        metavar="NAME",
        help=f"function applied to raw scores (logits): {', '.join(ACTIVATIONS)} (default: the model's own)",
    )
    scale.add_argument(
        "--raw",
        dest="activation",
        action="store_const",
        const="identity",
        help="print raw scores; short for --activation identity",
    )
    scale.add_argument(
        "--calibration", metavar="FILE", help="print probabilities, using a file from 'crossrank calibrate'"
    )
    add_model_options(parser)
    parser.add_argument("--batch-size", type=positive, metavar="N", help="maximum pairs to score at once")


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a model as settings of ``CrossEncoder``."""
    names = ("max_length", "device", "precision", "num_threads", "revision", "label", "prepared")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"activation_fn": getattr(args, "activation", None), "calibration": getattr(args, "calibration", None)}
    return {name: value for name, value in settings.items() if value is not None}


def open_model(args: argparse.Namespace) -> CrossEncoder:
    """Make the model that the options describe.

    :raises InputError: If a setting can't be used.
    """
    from crossrank.scoring.cross_encoder import CrossEncoder

    return CrossEncoder(args.model, lazy=True, **model_settings(args))
