"""Device and model -> an encoder and an engine."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossrank.checkpoint.config import ModelConfig, load_config, read_json
from crossrank.checkpoint.identity import LoadedFiles
from crossrank.checkpoint.modules import Modules, Pooling, read_modules, refuse_for_encoders
from crossrank.engines.engine import Engine
from crossrank.errors import CrossRankWarning, InputError
from crossrank.tokenization.pair_encoder import Encoder, PairEncoder, prompt_length
from crossrank.tokenization.split_encoder import KnownTexts, SplitEncoder
from crossrank.tokenization.tokenizer import load_tokenizer, pair_template
from crossrank.validation import check_choice, check_optional_integer

if TYPE_CHECKING:
    from crossrank.architectures.ops import Graphs

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
PRECISION_VARIABLE = "CROSSRANK_PRECISION"
# Language models, whose attention looks back only: they run on torch, on any device.
DECODERS = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"})
_TYPES = "token_type_ids"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score."""

    config: ModelConfig
    encoder: Encoder
    engine: Engine
    files: LoadedFiles


def check_settings(device: str | None, precision: str, max_length: int | None) -> None:
    """Refuse what can't be used before anything is loaded.

    :raises InputError: If a value is not known.
    """
    if device is not None and device.partition(":")[0] not in DEVICES:
        raise InputError(
            f"device={device!r} is not known: give one of {', '.join(DEVICES)}, or cuda:1 for the second GPU."
        )
    check_choice("precision", precision, PRECISIONS)
    choose_precision(precision)
    check_optional_integer("max_length", max_length, "Leave it out for all that the model reads.")


def choose_precision(precision: str) -> str:
    """Replace ``"auto"`` by what the environment variable ``CROSSRANK_PRECISION`` says, if it is set.

    :raises InputError: If the variable has an unknown value.
    """
    setting = os.environ.get(PRECISION_VARIABLE, "").strip()
    if precision != "auto" or not setting:
        return precision
    return check_choice(PRECISION_VARIABLE, setting, PRECISIONS, ", or unset the variable")


def check_files(folder: Path) -> None:
    """Check that a folder holds a model, by its config and the headers of its weights, without loading it.

    :raises ModelError: If it does not.
    """
    from crossrank.checkpoint.weights import load_weights

    load_config(folder)
    exported = any(folder.glob("**/*.xml")) or any(folder.glob("**/*.onnx"))
    if any(folder.glob("model.safetensors*")) or not exported:
        load_weights(folder)


def usable_length(config: ModelConfig, max_length: int | None) -> int:
    """What the caller asked for, or what the model can do if that is less; the caller is warned then."""
    if max_length is None:
        return config.usable_length
    if max_length > config.usable_length:
        warnings.warn(
            f"max_length={max_length} is more than this model's {config.usable_length} tokens, so "
            f"{config.usable_length} are used. Leave it out, or take a model with a longer context.",
            CrossRankWarning,
            stacklevel=2,
        )
    return min(max_length, config.usable_length)


def load_model(
    folder: Path,
    *,
    device: str | None,
    precision: str,
    max_length: int | None,
    num_threads: int | None,
    known: KnownTexts | None = None,
) -> LoadedModel:
    """Open a model folder.

    :param known: For a model that reads documents apart: those that were read before.
    :raises ModelError: If the files can't be used.
    :raises InputError: If a setting does not fit the model.
    """
    from crossrank.engines.openvino_engine import OpenVinoEngine
    from crossrank.engines.split_engine import SplitEngine

    files = LoadedFiles(folder)
    precision = choose_precision(precision)
    config = load_config(folder)
    modules = read_modules(folder)
    if config.model_type in DECODERS:
        from crossrank.engines.decoders import load_decoder

        found = load_decoder(
            folder, config, modules, device=device, precision=precision, max_length=max_length, num_threads=num_threads
        )
        return LoadedModel(*found, files)
    if modules is not None:
        refuse_for_encoders(folder, config.model_type, modules)
        config = replace(
            config,
            labels=modules.labels or config.labels,
            usable_length=min(config.usable_length, modules.max_length or config.usable_length),
        )
    prompt = modules.prompt if modules else ""
    tokenizer = load_tokenizer(folder, config.raw.get("vocab_size"))
    template = pair_template(tokenizer, config.raw.get("pad_token_id"))
    if not _gives_types(folder):
        template = replace(template, query_type=0, document_type=0, middle_types=(0,) * len(template.middle))
    if device is not None and device != "cpu":
        if config.model_type == "split_bert":
            raise InputError(f"device={device!r} is for other models; the one in the box runs on the CPU.")
        from crossrank.engines.torch_engine import TorchEngine

        if (modules and modules.head) or config.raw.get("auto_map"):
            kind = "ends in sentence-transformers modules" if modules and modules.head else "has code of its own"
            raise InputError(
                f"device={device!r} is for other models: one that {kind}, as {folder} does, runs on the CPU only. "
                "Leave device out."
            )
        engine = TorchEngine(folder, device=device, precision=precision, num_threads=num_threads)
        types, length = engine.token_types, usable_length(config, max_length)
        encoder = PairEncoder(tokenizer, template, length, token_types=types, prompt=prompt)
        return LoadedModel(config, encoder, engine, files)
    skipped = 0 if _pools_prompt(modules) else prompt_length(tokenizer, prompt)
    graphs, precision = _graphs(folder, config, precision, modules, skipped)
    if config.model_type == "split_bert":
        length = usable_length(config, max_length)
        split = SplitEncoder(tokenizer, template, length, config.need("max_query_length"), known)
        apart = SplitEngine(graphs, length, precision=precision, num_threads=num_threads, known=known)
        return LoadedModel(config, split, apart, files)
    encoder = PairEncoder(
        tokenizer,
        template,
        usable_length(config, max_length),
        token_types=_TYPES in graphs.input_names,
        prompt=prompt,
    )
    return LoadedModel(config, encoder, OpenVinoEngine(graphs, precision=precision, num_threads=num_threads), files)


def _pools_prompt(modules: Modules | None) -> bool:
    return all(module.include_prompt for module in (modules.head if modules else ()) if isinstance(module, Pooling))


def _graphs(
    folder: Path, config: ModelConfig, precision: str, modules: Modules | None, skipped: int
) -> tuple[Graphs, str]:
    """The graphs of a folder, of its weights or as they were exported, and the precision to run them in."""
    from crossrank.architectures import modular, registry
    from crossrank.checkpoint.weights import load_weights
    from crossrank.engines.exported import find_exported, load_exported
    from crossrank.engines.openvino_engine import native_precision

    head = modules.head if modules else ()
    # What was exported of a modular checkpoint is its body alone.
    exported = None if head else find_exported(folder)
    if exported is not None:
        return load_exported(exported, len(config.labels), precision)
    precision = native_precision(precision)
    weights = load_weights(folder).compressed(precision == "int8")
    if head:
        return modular.build(config, weights, head, skipped=skipped), precision
    return registry.build(config, weights), precision


def _gives_types(folder: Path) -> bool:
    """Whether the checkpoint's own tokenizer tells query and document apart; if not, all tokens are of type 0."""
    names = read_json(folder / "tokenizer_config.json").get("model_input_names")
    return not isinstance(names, list) or _TYPES in names
