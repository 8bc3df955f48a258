"""What the states of documents depend on: the model, its precision, and the maximum length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossrank.engines.load import LoadedModel
from crossrank.errors import InputError, PreparedError
from crossrank.tokenization.split_encoder import SplitEncoder


@dataclass(frozen=True)
class MadeWith:
    """What states depend on: they can be used only with the same values.

    :param identity: Digest of the model's files.
    :param precision: The number format it computes in.
    :param max_length: The most tokens of a document.
    :param hidden: Size of a token's state.
    """

    identity: str
    precision: str
    max_length: int
    hidden: int


def made_with(model: LoadedModel) -> MadeWith:
    """The values of a loaded model."""
    return MadeWith(
        model.files.identity,
        str(model.engine.facts["precision"]),
        model.encoder.max_length,
        int(model.config.need("hidden_size")),
    )


def check_apart(model: LoadedModel, name: str) -> None:
    """Refuse a model that reads query and document together.

    :raises InputError: If it does.
    """
    if not isinstance(model.encoder, SplitEncoder):
        raise InputError(
            f"{name} reads query and document together, so its documents can't be prepared. Take the bundled model, or "
            "one that was trained from it."
        )


def refuse_another(made: MadeWith, found: MadeWith, folder: Path, model: str) -> None:
    """Refuse a model that did not make the states.

    :param made: What the states were made with.
    :param found: What the model would make them with.
    :param model: The name of the model that made them.
    :raises PreparedError: If the two differ; the message says what to run.
    """
    if made.identity != found.identity or made.hidden != found.hidden:
        raise PreparedError(
            f"The documents in {str(folder)!r} were prepared with the model {model} "
            f"(identity {made.identity}), but this is another model (identity {found.identity}). Take that one, or "
            f"prepare the documents for this one: crossrank prepare FILE --model MODEL -o {folder}-2"
        )
    for name, remedy in (("precision", repr(made.precision)), ("max_length", str(made.max_length))):
        theirs, ours = getattr(made, name), getattr(found, name)
        if theirs != ours:
            raise PreparedError(
                f"The documents in {str(folder)!r} were prepared with {name}={theirs}, but this model runs "
                f"with {name}={ours}. Give CrossEncoder(..., {name}={remedy}), on the command line "
                f"--{name.replace('_', '-')} {theirs}; or prepare the documents again into another folder."
            )
