"""The model that training starts from: a cross-encoder of transformers, or the bundled model."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.model_card import CrossEncoderModelCardData

from crossrank.checkpoint.model_config import ModelConfig, load_config
from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.checkpoint.weights import load_weights
from crossrank.errors import InputError, UnsupportedModelError
from crossrank.optional import require
from crossrank.training.data_split import lengths
from crossrank.training.settings import Settings

# Importing it registers the bundled model with transformers.
from crossrank.training.split_bert_torch import KeptStates, SplitBertConfig

_LAYER = re.compile(r"\.layers?\.(\d+)\.")
# Names of attention and feed-forward matrices in the supported architectures.
_LORA_TARGETS = (
    r".*\.(query|key|value|dense|q_lin|k_lin|v_lin|out_lin|lin1|lin2|Wqkv|Wo|Wi|query_proj|key_proj|value_proj)"
)


@dataclass(frozen=True)
class Base:
    """The model that training starts from.

    :param folder: Where transformers can load it from: its own folder, or a float32 copy.
    """

    files: ModelFiles
    config: ModelConfig
    folder: Path

    @property
    def is_split(self) -> bool:
        """Whether it is a model like the bundled one: a body that encodes each text alone, and a small head."""
        return self.config.model_type == "split_bert"


def find_base(name: str | None, work: Path) -> Base:
    """Find a model and check that it can be trained.

    :param name: A name on the hub, a folder, or ``None`` for the bundled model.
    :param work: A folder for a copy.
    :raises ModelError: If it can't be found or read.
    :raises UnsupportedModelError: If it is not a cross-encoder with one score per pair.
    """
    files = resolve(name)
    config = load_config(files.folder)
    if config.raw.get("auto_map"):
        raise UnsupportedModelError(
            f"{files.name!r} has its own code (auto_map in config.json), which crossrank never runs. It can be used "
            "for scoring but not trained. Train another base, such as cross-encoder/ms-marco-MiniLM-L6-v2, or leave "
            "--base out for the bundled model."
        )
    if not config.architecture.endswith("ForSequenceClassification"):
        kind = config.architecture or f"{config.model_type}, of no stated kind"
        raise UnsupportedModelError(
            f"{files.name!r} is not a cross-encoder but {kind}: it has no weights that turn a pair into a score. "
            "Choose a model whose config.json has architectures=[...ForSequenceClassification], such as "
            "cross-encoder/ms-marco-MiniLM-L6-v2, or leave --base out for the bundled model."
        )
    if len(config.labels) != 1:
        raise UnsupportedModelError(
            f"{files.name!r} gives {len(config.labels)} scores for a pair ({', '.join(config.labels)}); only models "
            "with one score can be trained. Choose a reranker with a single label."
        )
    stored_small = config.model_type == "split_bert" and any(
        key.endswith(".scale") for key in load_weights(files.folder)
    )
    folder = _as_float32(files.folder, work / "base") if stored_small else files.folder
    return Base(files, config, folder)


def _as_float32(folder: Path, copy: Path) -> Path:
    """Convert a checkpoint with int8 weights to float32, which transformers can read."""
    from safetensors.numpy import save_file

    copy.mkdir(parents=True, exist_ok=True)
    weights = load_weights(folder)
    names = [name for name in weights if not name.endswith(".scale")]
    tensors = {name: np.ascontiguousarray(weights(name, *weights.shape(name))) for name in names}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    for file in folder.iterdir():
        if file.is_file() and file.suffix in (".json", ".txt") and "safetensors" not in file.name:
            shutil.copyfile(file, copy / file.name)
    return copy


def open_model(base: Base, settings: Settings, device: str) -> CrossEncoder:
    """Load the base with sentence-transformers, in float32.

    :raises InputError: If the settings ask for more tokens than the model can read.
    """
    full, _ = lengths(base.config, settings)
    # The bundled model was trained without dropout, which also makes attention faster on a CPU.
    more = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if base.is_split else {}
    # Don't ask the hub about the base: the card is filled in below.
    card = CrossEncoderModelCardData(local_files_only=True, generate_widget_examples=False)
    model = CrossEncoder(
        str(base.folder),
        device=device,
        local_files_only=True,
        model_kwargs={"dtype": torch.float32},
        config_kwargs=more,
        model_card_data=card,
    )
    if base.files.revision is not None:
        card.base_model, card.base_model_revision = base.files.name, base.files.revision
    if model.tokenizer.pad_token_id is None:
        raise UnsupportedModelError(f"{base.files.name!r} has no padding token. Set one in its tokenizer_config.json.")
    read_up_to(model, full)
    return model


def read_up_to(model: CrossEncoder, length: int) -> None:
    """Set the length at which pairs are cut; for a model like the bundled one, the length of documents."""
    config = model.model.config
    model.tokenizer.model_max_length = config.cut_pairs_at(length) if isinstance(config, SplitBertConfig) else length
    # A fast tokenizer remembers its last truncation setting, which would be saved.
    model.tokenizer("", truncation=True)


def freeze(model: CrossEncoder, base: Base, settings: Settings) -> list[torch.nn.Module]:
    """Freeze part of the model.

    :returns: The frozen modules, which should stay in evaluation mode.
    :raises InputError: If nothing would be left to train.
    """
    wanted = str(settings.freeze)
    if wanted == "auto":
        wanted = "body" if base.is_split else "embeddings"
    network = model.model
    body = f"{network.base_model_prefix}."
    layer_of = {
        name: int(found[1])
        for name, _ in network.named_parameters()
        if name.startswith(body) and (found := _LAYER.search(name))
    }
    layers = len(set(layer_of.values()))
    named = {"none": 0, "embeddings": 0, "half": (layers + 1) // 2, "body": layers}
    lower = named[wanted] if wanted in named else int(wanted)
    if lower > layers:
        raise InputError(f"freeze={wanted} is more than this model's {layers} layers. Use at most that, or 'body'.")
    for name, parameter in network.named_parameters():
        in_lower = "embeddings." in name or layer_of.get(name, layers) < lower
        parameter.requires_grad = wanted == "none" or not (in_lower or (wanted == "body" and name.startswith(body)))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"freeze={settings.freeze!r} leaves nothing to train in this model. Use --freeze embeddings.")
    # On a GPU, computing the states again is faster than copying them.
    if base.is_split and model.device.type == "cpu" and lower:
        network.kept = KeptStates(lower)
    return [
        module
        for module in network.modules()
        if (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
    ]


def learning_rate(model: CrossEncoder, settings: Settings) -> float:
    """The initial learning rate: that of the settings, else 2e-5, or 5e-5 if only the head is trained."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    body = f"{model.model.base_model_prefix}."
    body_learns = any(p.requires_grad for name, p in model.model.named_parameters() if name.startswith(body))
    return 2e-5 if body_learns else 5e-5


def add_lora(model: CrossEncoder, rank: int) -> None:
    """Add low-rank matrices (Hu et al. 2021, arXiv 2106.09685) to the body. The whole head is trained.

    :raises MissingExtraError: If peft is not installed.
    """
    peft = require("peft", extra="lora", purpose="Training low-rank additions (--lora)")
    network = model.model
    body = f"{network.base_model_prefix}."
    heads = {name for name, p in network.named_parameters() if p.requires_grad and not name.startswith(body)}
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=body[:-1] + _LORA_TARGETS)
    peft.inject_adapter_in_model(config, network)
    network.kept = None
    for name, parameter in network.named_parameters():
        parameter.requires_grad = "lora_" in name or name in heads


def merge_lora(model: CrossEncoder) -> None:
    """Merge the low-rank matrices into the weights, so that the architecture is the original one."""
    for name, module in list(model.model.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.model.get_submodule(parent), own, module.get_base_layer())


def weights_of(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """Copy the weights to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.model.state_dict().items()}


def average(model: CrossEncoder, base_weights: dict[str, torch.Tensor], share: float) -> None:
    """Average the weights with those of the base, which get this share (WiSE-FT: Wortsman et al. 2022)."""
    with torch.no_grad():
        for name, tensor in model.model.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(base_weights[name].to(tensor.device), share)
