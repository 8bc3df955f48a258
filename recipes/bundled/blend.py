"""Average a trained head with its start (Wortsman et al. 2022, arXiv 2109.01903).

Training on nine sources makes the head better on them and a little worse on what they do not have. Halfway between
start and trained weights most of the gain is left and none of the loss was seen; LOG.md has the figures. What the head
starts from by design (mix, weights of words, saturation, gate) is averaged; the correction's own layers start at
random, so they are kept as trained, and its two last layers, which start at zero, are scaled.
"""

from __future__ import annotations

from pathlib import Path

import torch

from crossrank.training.split_bert_torch import SplitBertConfig, SplitHead
from recipes.bundled.prepared import Prepared
from recipes.bundled.train import load_head

AVERAGED = ("word_weight", "mix", "saturation", "gate", "mix_by_query", "bias", "token_outer", "pair_outer")


def run(prepared: Path, trained: Path, output: Path, *, share: float) -> None:
    """Write ``(1 - share) * start + share * trained``."""
    data = Prepared(prepared)
    config = SplitBertConfig(hidden_size=data.documents.states.shape[1], vocab_size=len(data.word_weight))
    head = load_head(trained, config)
    start = SplitHead(config)
    with torch.no_grad():
        start.word_weight.copy_(torch.from_numpy(data.word_weight))
        begin = dict(start.named_parameters())
        for name, parameter in head.named_parameters():
            if name.removesuffix(".weight").removesuffix(".bias") in AVERAGED:
                parameter.copy_(begin[name] + share * (parameter - begin[name]))
    torch.save(head.state_dict(), output)
