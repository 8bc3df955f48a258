"""A decoder's folder -> its encoder and its engine, with the right prompt and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from crossrank.checkpoint.model_config import ModelConfig, read_json
from crossrank.checkpoint.modules import POOLED, Dense, LogitScore, Module, Modules, Pooling
from crossrank.engines.engine import Engine
from crossrank.engines.settings import usable_length
from crossrank.engines.torch_engine import TorchDecoderEngine, chat_renderer
from crossrank.errors import CheckpointError, UnsupportedModelError
from crossrank.tokenization.decoder_encoder import DecoderEncoder
from crossrank.tokenization.pair_encoder import Encoder
from crossrank.tokenization.prompts import DOCUMENT, FAMILIES, PROMPTS, QUERY, Chunk, Prompt, chat_prompt
from crossrank.tokenization.tokenizer import load_tokenizer, pair_template

# The most tokens of a pair unless the caller asks for more: the limit in the published code of Qwen3-Reranker and
# mxbai-rerank-v2. Their configs allow 32768 and more, with which a single pair takes gigabytes.
DEFAULT_LENGTH = 8192

_ARCHITECTURES: Mapping[str, str] = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "sequence-classification",
}


def load_decoder(
    folder: Path,
    config: ModelConfig,
    modules: Modules | None,
    *,
    device: str | None,
    precision: str,
    max_length: int | None,
    num_threads: int | None,
) -> tuple[ModelConfig, Encoder, Engine]:
    """Open a decoder reranker. The returned config has the labels of its head.

    :param max_length: The most tokens of a pair; ``None`` for the model's limit, but at most ``DEFAULT_LENGTH``.
    :raises ModelError: If the files can't be used, or no prompt for them is known.
    :raises InputError: If a setting does not fit the model.
    """
    kind = modules.task if modules else _kind(folder, config)
    if modules and modules.max_length:
        config = replace(config, usable_length=min(config.usable_length, modules.max_length))
    length = usable_length(config, max_length)
    tokenizer = load_tokenizer(folder, config.raw.get("vocab_size"))
    names = read_json(folder / "tokenizer_config.json")
    pad, bos = _token(names, "pad_token"), _token(names, "bos_token")
    prompt = _prompt(folder, config, modules, kind, tokenizer)
    encoder = DecoderEncoder(
        tokenizer,
        prompt,
        min(length, DEFAULT_LENGTH) if max_length is None else length,
        pad_id=_pad_id(config, tokenizer, pad),
        bos=None if bos == pad else bos,
    )
    tokens, layers, labels = _head(modules, kind, prompt, encoder, config)
    engine = TorchDecoderEngine(
        folder,
        kind=kind,
        tokens=tokens,
        layers=layers,
        device=device or "cpu",
        precision=precision,
        num_threads=num_threads,
    )
    return replace(config, labels=labels), encoder, engine


def _kind(folder: Path, config: ModelConfig) -> str:
    if (folder / "modules.json").is_file() and not config.architecture.endswith("ForSequenceClassification"):
        raise UnsupportedModelError(
            f"{folder} is a sentence-transformers model that makes embeddings, not scores of pairs. Name a reranker."
        )
    for ending, kind in _ARCHITECTURES.items():
        if config.architecture.endswith(ending):
            return kind
    raise UnsupportedModelError(
        f"{folder} holds a {config.architecture or 'model of no named architecture'}, which gives no score; a decoder "
        f"reranker's architecture in config.json ends in {' or '.join(_ARCHITECTURES)}."
    )


def _head(
    modules: Modules | None, kind: str, prompt: Prompt, encoder: DecoderEncoder, config: ModelConfig
) -> tuple[tuple[int, ...], tuple[Dense, ...], tuple[str, ...]]:
    """Find the tokens that are compared, or the layers after the last hidden state, and the label names."""
    if kind == "sequence-classification":
        return (), (), config.labels
    head = modules.head if modules else ()
    if modules and kind == "feature-extraction":
        return (), _layers(head), modules.labels
    scores = [layer for layer in head if isinstance(layer, LogitScore)]
    if scores:
        yes, no = scores[0].yes, scores[0].no
    else:
        yes = encoder.token_id(prompt.yes)
        no = None if prompt.no is None else encoder.token_id(prompt.no)
    return (yes,) if no is None else (yes, no), (), ("LABEL_0",)


def _layers(head: tuple[Module, ...]) -> tuple[Dense, ...]:
    """Return the Dense layers after a decoder's last token, and refuse any other module."""
    pooling, *layers = head
    dense = tuple(layer for layer in layers if isinstance(layer, Dense) and not layer.residual)
    chained = all(layer.source == POOLED for layer in dense) and [layer.target for layer in dense[:-1]]
    if pooling != Pooling(("lasttoken",)) or len(dense) < len(layers) or chained != [POOLED] * (len(dense) - 1):
        raise UnsupportedModelError(
            "After a decoder, crossrank supports the modules Pooling with the mode 'lasttoken' and Dense without "
            f"use_residual; this one has {' + '.join(map(_described, head))}. "
            "Score it with sentence-transformers itself."
        )
    return dense


def _described(module: Module) -> str:
    if isinstance(module, Pooling):
        return f"Pooling with the mode {' + '.join(map(repr, module.modes))}"
    return type(module).__name__ + (" with use_residual" if isinstance(module, Dense) and module.residual else "")


def _prompt(folder: Path, config: ModelConfig, modules: Modules | None, kind: str, tokenizer: Tokenizer) -> Prompt:
    """Choose the prompt, in the order of :mod:`crossrank.tokenization.prompts`."""
    if modules is not None:
        chat = _chat(folder, modules) if modules.messages else _plain(tokenizer, modules.prompt)
        if chat is None:
            raise UnsupportedModelError(
                f"The chat template of {folder} does not put a message of the role 'query' and one of the role "
                "'document' into the text once each and unchanged. Take the template of the model's publisher."
            )
        return chat
    name = config.raw.get("crossrank_prompt")
    if name is None and kind == "text-generation":
        name = FAMILIES.get(config.model_type)
    if name is not None:
        if name not in PROMPTS:
            raise CheckpointError(
                f"config.json has an unknown crossrank_prompt, {name!r}. Known prompts: {', '.join(PROMPTS)}."
            )
        return PROMPTS[name]
    chat = _chat(folder, None)
    if chat is None and kind == "text-generation":
        raise UnsupportedModelError(
            f"{folder} is a {config.model_type!r} language model that does not name its prompt. Save "
            'it with sentence-transformers as Transformer and LogitScore, or set "crossrank_prompt" in config.json '
            f"to one of {', '.join(PROMPTS)}. Without it, crossrank knows the prompts of {', '.join(FAMILIES)}."
        )
    return chat or _plain(tokenizer, "")


def _chat(folder: Path, modules: Modules | None) -> Prompt | None:
    """Use the checkpoint's chat template if it accepts a pair, with the content format it names or accepts."""
    stated = modules.message_format if modules else None
    render = chat_renderer(folder, *((modules.prompt, modules.template_settings) if modules else ("", {})))
    if render is None:
        return None
    for form in (stated,) if stated in ("flat", "structured") else ("flat", "structured"):
        try:
            prompt = chat_prompt(partial(render, form == "structured"))
        except Exception:  # templates raise different errors for unknown roles and content
            continue
        if prompt is not None:
            return prompt
    return None


def _plain(tokenizer: Tokenizer, prompt: str) -> Prompt:
    """Join query and document as the tokenizer joins any pair, ``prompt`` before the query."""
    template = pair_template(tokenizer, None)

    def special(ids: tuple[int, ...]) -> tuple[Chunk, ...]:
        return tuple((str(tokenizer.id_to_token(token)),) for token in ids)

    query = (prompt, QUERY) if prompt else (QUERY,)
    chunks = (*special(template.prefix), query, *special(template.middle), (DOCUMENT,), *special(template.suffix))
    return Prompt("pair", chunks)


def _token(names: Mapping[str, Any], name: str) -> str | None:
    """Read a special token from ``tokenizer_config.json``, which has it as a string or an object."""
    token = names.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _pad_id(config: ModelConfig, tokenizer: Tokenizer, pad: str | None) -> int:
    """Choose the padding token, or the end-of-text token if there is none, as is common for decoders."""
    ends = config.raw.get("eos_token_id")
    candidates = [config.raw.get("pad_token_id"), tokenizer.token_to_id(pad) if pad else None]
    candidates += ends if isinstance(ends, list) else [ends]
    return next((token for token in candidates if isinstance(token, int) and token >= 0), 0)
