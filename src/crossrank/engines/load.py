"""A model's folder -> its encoder and its engine: one branch for each kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossrank.checkpoint.embedding import Embedding, read_embedding
from crossrank.checkpoint.identity import LoadedFiles
from crossrank.checkpoint.model_config import ModelConfig, load_config, read_json
from crossrank.checkpoint.modules import Module, Pooling, read_modules, refuse_for_encoders
from crossrank.checkpoint.weights import load_weights
from crossrank.engines.engine import Engine
from crossrank.engines.settings import choose_precision, usable_length
from crossrank.errors import InputError
from crossrank.tokenization.pair_encoder import Encoder, PairEncoder, prompt_length
from crossrank.tokenization.split_encoder import KnownTexts, SplitEncoder
from crossrank.tokenization.text_encoder import TextEncoder
from crossrank.tokenization.tokenizer import load_tokenizer, pair_template

if TYPE_CHECKING:
    from crossrank.architectures.ops import Graphs
    from crossrank.engines.embedding_engine import EmbeddingEngine

# Language models with causal attention. They run on torch, on any device.
DECODERS = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"})
_TYPES = "token_type_ids"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score."""

    config: ModelConfig
    encoder: Encoder
    engine: Engine
    files: LoadedFiles


@dataclass(frozen=True)
class LoadedBiEncoder:
    """A bi-encoder ready to embed."""

    config: ModelConfig
    embedding: Embedding
    encoder: TextEncoder
    engine: EmbeddingEngine


def check_files(folder: Path) -> None:
    """Check that a folder holds a model, by its config and the headers of its weights, without loading it.

    :raises ModelError: If it does not.
    """
    load_config(folder)
    exported = any(folder.glob("**/*.xml")) or any(folder.glob("**/*.onnx"))
    if any(folder.glob("model.safetensors*")) or not exported:
        load_weights(folder)


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

    :param known: For a model that encodes documents separately: documents encoded before.
    :raises ModelError: If the files can't be used.
    :raises InputError: If a setting does not fit the model.
    """
    from crossrank.engines.openvino_engine import OpenVinoEngine
    from crossrank.engines.split_engine import SplitEngine

    files = LoadedFiles(folder)
    precision = choose_precision(precision)
    config = load_config(folder)
    modules = read_modules(folder)

    # 1) Decoders: torch, on any device.
    if config.model_type in DECODERS:
        from crossrank.engines.decoder_loading import load_decoder

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
    head, prompt = (modules.head, modules.prompt) if modules else ((), "")
    tokenizer = load_tokenizer(folder, config.raw.get("vocab_size"))
    template = pair_template(tokenizer, config.raw.get("pad_token_id"))
    if not _gives_types(folder):
        template = replace(template, query_type=0, document_type=0, middle_types=(0,) * len(template.middle))
    engine: Engine

    # 2) Encoders on a GPU: torch.
    if device is not None and device != "cpu":
        _check_runs_on_torch(folder, config, head, device)
        from crossrank.engines.torch_engine import TorchEngine

        engine = TorchEngine(folder, device=device, precision=precision, num_threads=num_threads)
        length = usable_length(config, max_length)
        encoder = PairEncoder(tokenizer, template, length, token_types=engine.token_types, prompt=prompt)
        return LoadedModel(config, encoder, engine, files)

    leaves_out_prompt = any(isinstance(module, Pooling) and not module.include_prompt for module in head)
    skipped = prompt_length(tokenizer, prompt) if leaves_out_prompt else 0
    graphs, precision = _graphs(folder, config, precision, head, skipped)
    length = usable_length(config, max_length)

    # 3) Models that encode query and document separately, such as the bundled one.
    if config.model_type == "split_bert":
        split = SplitEncoder(tokenizer, template, length, config.need("max_query_length"), known)
        engine = SplitEngine(graphs, length, precision=precision, num_threads=num_threads, known=known)
        return LoadedModel(config, split, engine, files)

    # 4) All other encoders on the CPU.
    encoder = PairEncoder(tokenizer, template, length, token_types=_TYPES in graphs.input_names, prompt=prompt)
    return LoadedModel(config, encoder, OpenVinoEngine(graphs, precision=precision, num_threads=num_threads), files)


def _check_runs_on_torch(folder: Path, config: ModelConfig, head: Sequence[Module], device: str) -> None:
    if config.model_type == "split_bert":
        raise InputError(f"device={device!r} is for other models; the bundled model runs on the CPU only.")
    if head or config.raw.get("auto_map"):
        kind = "ends in sentence-transformers modules" if head else "has code of its own"
        raise InputError(
            f"device={device!r} is for other models: one that {kind}, as {folder} does, runs on the CPU only. "
            "Leave device out."
        )


def _graphs(
    folder: Path, config: ModelConfig, precision: str, head: Sequence[Module], skipped: int
) -> tuple[Graphs, str]:
    """The graphs of a folder, built from its weights or exported, and the precision to run them in."""
    from crossrank.architectures import modular, registry
    from crossrank.engines.exported import find_exported, load_exported
    from crossrank.engines.openvino_engine import native_precision

    # An export of a modular checkpoint has only its body.
    exported = None if head else find_exported(folder)
    if exported is not None:
        return load_exported(exported, len(config.labels), precision)
    precision = native_precision(precision)
    weights = load_weights(folder).compressed(precision == "int8")
    if head:
        return modular.build(config, weights, head, skipped=skipped), precision
    return registry.build(config, weights), precision


def _gives_types(folder: Path) -> bool:
    """Whether the checkpoint's tokenizer returns token types; if not, all tokens have type 0."""
    names = read_json(folder / "tokenizer_config.json").get("model_input_names")
    return not isinstance(names, list) or _TYPES in names


def load_bi_encoder(
    folder: Path, *, precision: str, max_length: int | None, num_threads: int | None
) -> LoadedBiEncoder:
    """Open the folder of a bi-encoder.

    :raises ModelError: If the files can't be used, or are not those of a bi-encoder.
    :raises InputError: If a setting does not fit the model.
    """
    from crossrank.architectures.registry import build_states
    from crossrank.engines.embedding_engine import EmbeddingEngine
    from crossrank.engines.openvino_engine import native_precision

    config = load_config(folder)
    weights = load_weights(folder)
    embedding = read_embedding(folder, config, list(weights))
    precision = native_precision(choose_precision(precision))
    graph = build_states(config, weights.compressed(precision == "int8"), first_only=embedding.pooling == "cls")
    encoder = TextEncoder(
        load_tokenizer(folder, config.raw.get("vocab_size")),
        usable_length(config, max_length),
        config.get("pad_token_id", 0),
    )
    size = int(config.get("hidden_size", None) or config.need("dim"))  # the latter is DistilBERT's name for it
    engine = EmbeddingEngine(graph, size, embedding.pooling, precision=precision, num_threads=num_threads)
    return LoadedBiEncoder(config, embedding, encoder, engine)
