"""Small split models of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from recipes.bundled import export

from bodies import random_head, tiny_body
from crossrank.training.split_bert_torch import SplitBertConfig


def tiny_split(folder: Path, *, seed: int = 0) -> Path:
    """Export one of 2 layers and hidden size 32 in float32 to ``folder/model``."""
    body = tiny_body(folder / "body", seed=seed)
    raw = json.loads((body / "config.json").read_text())
    head = random_head(SplitBertConfig(**{key: raw[key] for key in export.OF_THE_BODY}), seed=seed)
    torch.save(head.state_dict(), folder / "head.pt")
    export.run(body, folder / "model", head=folder / "head.pt", float32=True)
    return folder / "model"
