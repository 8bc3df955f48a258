"""Random checkpoints that look like published ones whose repositories bring code of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints import edit_config, make_checkpoint, save_tokenizer

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}


def rename(folder: Path, change: Any) -> None:
    """Save the weights again under other names; ``change`` gives the new tensors of all the old ones."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path)


def make_gte(folder: Path, tokenizer: str = "unigram", **config: Any) -> Path:
    """A checkpoint that transformers saves itself; its names of the weights are those of the published code."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    vocab = save_tokenizer(folder, tokenizer)
    settings = {**SHAPE, "vocab_size": vocab, "max_position_embeddings": 512, "num_labels": 1, **config}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("gte", **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def publish_gte(folder: Path, **config: Any) -> None:
    """Make of it what Alibaba-NLP/gte-multilingual-reranker-base looks like: its config, and ``new.`` for ``gte.``."""
    rename(folder, lambda old: {name.replace("gte.", "new.", 1): tensor for name, tensor in old.items()})
    code = "Alibaba-NLP/new-impl--"
    edit_config(
        folder,
        architectures=["NewForSequenceClassification"],
        auto_map={
            "AutoConfig": f"{code}configuration.NewConfig",
            "AutoModelForSequenceClassification": f"{code}modeling.NewForSequenceClassification",
        },
        model_type="new",
        pack_qkv=True,
        unpad_inputs=False,
        use_memory_efficient_attention=False,
        logn_attention_scale=False,
        logn_attention_clip1=False,
        layer_norm_type="layer_norm",
        position_embedding_type="rope",
        rope_parameters=None,
        **config,
    )


FLASH_NAMES = {
    "roberta.embeddings.LayerNorm.": "roberta.emb_ln.",
    "attention.output.dense.": "mixer.out_proj.",
    "attention.output.LayerNorm.": "norm1.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "output.LayerNorm.": "norm2.",
    "encoder.layer.": "encoder.layers.",
}


def to_flash_names(old: dict[str, Any]) -> dict[str, Any]:
    """XLM-R's tensors as jinaai/jina-reranker-v2-base-multilingual names them, q, k and v joined."""
    import torch

    new = {}
    for name, tensor in old.items():
        if ".attention.self." in name:
            kind = name.rpartition(".")[2]
            stem = name.partition(".attention.self.")[0]
            parts = [old[f"{stem}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            name, tensor = f"{stem}.mixer.Wqkv.{kind}", torch.cat(parts)
        for before, after in FLASH_NAMES.items():
            name = name.replace(before, after)
        new[name] = tensor
    return new


def make_jina_xlm_roberta(folder: Path, **config: Any) -> Path:
    """Transformers' XLM-R: published only by :func:`publish_jina_xlm_roberta`, so that both can be scored."""
    return make_checkpoint(folder, "xlm-roberta", tokenizer="unigram", num_hidden_layers=3, **config)


def publish_jina_xlm_roberta(folder: Path) -> None:
    """Make of it what jinaai/jina-reranker-v2-base-multilingual looks like: its names of the weights, its config."""
    rename(folder, to_flash_names)
    edit_config(
        folder,
        auto_map={
            "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        },
        position_embedding_type="absolute",
        use_flash_attn=True,
    )


def jina_tensors(vocab: int, labels: int, seed: int = 0) -> dict[str, Any]:
    """Random weights under the published names."""
    import torch

    torch.manual_seed(seed)
    hidden, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocab, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for i in range(int(SHAPE["num_hidden_layers"])):
        layer = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{layer}{name}.weight": (hidden, hidden), f"{layer}{name}.bias": (hidden,)}
        for name in ("attention.output.LayerNorm", "mlp.layernorm"):
            shapes |= {f"{layer}{name}.weight": (hidden,), f"{layer}{name}.bias": (hidden,)}
        shapes |= {f"{layer}mlp.gated_layers.weight": (2 * inner, hidden), f"{layer}mlp.wo.bias": (hidden,)}
        shapes |= {f"{layer}mlp.wo.weight": (hidden, inner)}
    tensors = {f"bert.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    for name in tensors:
        if name.lower().endswith("layernorm.weight"):
            tensors[name] += 1
    return tensors | {"classifier.weight": torch.randn(labels, hidden), "classifier.bias": torch.randn(labels)}


def make_jina_bert(folder: Path, *, labels: int = 1, heads: int = 4, feed_forward: str = "geglu") -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocab = save_tokenizer(folder, "wordpiece", 8192)
    save_file(jina_tensors(vocab, labels), folder / "model.safetensors")
    code = "jinaai/jina-bert-implementation--"
    config = {
        **SHAPE,
        "num_attention_heads": heads,
        "architectures": ["JinaBertForSequenceClassification"],
        "auto_map": {
            "AutoConfig": f"{code}configuration_bert.JinaBertConfig",
            "AutoModelForSequenceClassification": f"{code}modeling_bert.JinaBertForSequenceClassification",
        },
        "emb_pooler": "mean",
        "feed_forward_type": feed_forward,
        "hidden_act": "gelu",
        "id2label": {str(i): f"LABEL_{i}" for i in range(labels)},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 8192,
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
        "type_vocab_size": 2,
        "vocab_size": vocab,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
