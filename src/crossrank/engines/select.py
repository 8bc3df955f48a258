"""Device and model -> an encoder and an engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossrank.checkpoint.config import ModelConfig, load_config
from crossrank.engines.engine import Engine
from crossrank.errors import InputError
from crossrank.tokenization.pair_encoder import Encoder, PairEncoder
from crossrank.tokenization.tokenizer import load_tokenizer, pair_template

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score."""

    config: ModelConfig
    encoder: Encoder
    engine: Engine


def check_settings(device: str | None, precision: str, max_length: int | None) -> None:
    """Refuse what can't be used before anything is loaded.

    :raises InputError: If a value is not known.
    """
    if device is not None and device.partition(":")[0] not in DEVICES:
        raise InputError(f"device={device!r} is not known: give one of {', '.join(DEVICES)}, or cuda:1 for the second GPU.")
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not known: give one of {', '.join(PRECISIONS)}.")
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise InputError(f"max_length={max_length!r} is not a positive number of tokens.")


def usable_length(config: ModelConfig, max_length: int | None) -> int:
    """What the caller asked for, within what the model can do.

    :raises InputError: If it is more than the model can do.
    """
    if max_length is None:
        return config.usable_length
    if max_length > config.usable_length:
        raise InputError(
            f"max_length={max_length} is more than this model's {config.usable_length} tokens. "
            f"Leave it out for {config.usable_length}, or take a model with a longer context."
        )
    return max_length


def load_model(
    folder: Path, *, device: str | None, precision: str, max_length: int | None, num_threads: int | None
) -> LoadedModel:
    """Open a model folder.

    :raises ModelError: If the files can't be used.
    :raises InputError: If a setting does not fit the model.
    """
    from crossrank.architectures.registry import build
    from crossrank.checkpoint.weights import load_weights
    from crossrank.engines.openvino_engine import OpenVinoEngine, choose_precision

    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    template = pair_template(tokenizer, config.raw.get("pad_token_id"))
    encoder = PairEncoder(
        tokenizer,
        template,
        usable_length(config, max_length),
        token_types=int(config.get("type_vocab_size", 0)) > 1,
    )
    engine = OpenVinoEngine(build(config, load_weights(folder)), precision=choose_precision(precision), num_threads=num_threads)
    return LoadedModel(config, encoder, engine)
