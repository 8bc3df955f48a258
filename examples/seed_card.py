"""A published run again: 45 pairs, batches of one, one epoch, 128 tokens, a learning rate that falls from 5e-5 to 0.

Such a run is what a chat window's feedback comes to, and with it a model can easily get worse: 45 steps of one pair
each, at a rate made for thousands. Compare with ``crossrank train pairs.jsonl --output model``, whose defaults hold
back: they keep part of the base, leave the embeddings alone and look at held-out queries.

    python examples/seed_card.py pairs.jsonl --base cross-encoder/ms-marco-MiniLM-L12-v2 --output model

Without ``--base`` a random model in the shape of MiniLM-L12 is made, so that the run needs nothing from the hub.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crossrank.training import Settings, train

# Of the card: per_device_train_batch_size 1, num_train_epochs 1, learning_rate 5e-05, lr_scheduler_type linear,
# warmup 0, weight_decay 0, seed 42, no evaluation, all weights learn, maximum sequence length 128.
CARD = Settings(
    loss="bce",
    epochs=1,
    batch_size=1,
    learning_rate=5e-5,
    schedule="linear",
    warmup=0.0,
    weight_decay=0.0,
    max_length=128,
    freeze="none",
    average_with_base=0.0,
    held_out=0.0,
    precision="float32",
    seed=42,
)
MINILM_L12 = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "num_labels": 1,
}


def random_base(folder: Path, tokenizer: Path, shape: dict[str, int] | None = None) -> Path:
    """Save a random cross-encoder.

    :param tokenizer: A folder with a BERT's tokenizer in it.
    :param shape: In config.json's words; by default MiniLM-L12's.
    """
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    pieces = AutoTokenizer.from_pretrained(tokenizer)
    config = BertConfig(**{**(shape or MINILM_L12), "vocab_size": len(pieces)})
    BertForSequenceClassification(config).save_pretrained(folder)
    pieces.save_pretrained(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    from crossrank.checkpoint.source import BUNDLED

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("pairs", help="query, document and label; the card had 45 of them")
    parser.add_argument("--base", help="hub name or folder (default: a random model in MiniLM-L12's shape)")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    base = args.base or str(random_base(args.output.with_name(f"{args.output.name}-base"), BUNDLED))
    result = train(args.pairs, args.output, CARD, base=base)
    print(f"{result.output}: {result.steps} steps in {result.seconds:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
