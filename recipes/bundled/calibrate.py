"""Fit the line through the logits that makes their sigmoid a probability, on queries that were held out of training.

Platt (1999): ``sigmoid(scale * logit + shift)`` of the greatest likelihood. The pairs are, for every wording of every
held-out query, its positive and ten others from near the top of BM25; likely false negatives are left out, by the rules
of train.py. So the probability is meant for candidates of which one in eleven is relevant, as in a first stage's list:
where more of them are relevant it is too low, where fewer are, too high. The order of the candidates stays as it is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from crossrank.training.split_bert_torch import SplitBertConfig, SplitHead
from recipes.bundled.prepared import Prepared
from recipes.bundled.train import TEACHER, likely_false, load_head

OTHERS = 10
BINS = 15


@torch.inference_mode()
def held_out_logits(data: Prepared, head: SplitHead) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the pairs, in float32 as the engine's head computes them, and which of them are relevant."""
    logits, relevant = [], []
    for v in data.held_out_variants():
        positive = data.positive_of(v)
        # Twice as many as are wanted, for some will be left out; a small source's list repeats itself.
        others = [d for d in dict.fromkeys(data.lexical[v].tolist()) if d != positive][: 2 * OTHERS]
        d = np.array([positive, *others])
        qs, qi, qm, _ = (part.expand(len(d), *part.shape[1:]) for part in data.queries.take(np.array([v])))
        ds, di, dm, vectors = data.documents.take(d)
        values, signals = head(qs.float(), qi, qm, ds.float(), di, dm)
        left_out = likely_false((signals @ TEACHER)[None], vectors[None], d[None])[0]
        kept = values[~left_out][: 1 + OTHERS].numpy()
        logits.append(kept)
        relevant.append(np.arange(len(kept)) == 0)
    return np.concatenate(logits).astype(np.float64), np.concatenate(relevant)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Without overflow."""
    return np.exp(-np.logaddexp(0, -x))


def fit_line(logits: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Scale and shift by Newton's method, halving steps that overshoot (Lin, Lin and Weng 2007).

    Targets are Platt's, a little off 0 and 1, so that separable logits have a finite answer.

    :raises ValueError: If there is only one kind of pair, or relevant pairs have the lower logits.
    """
    ones, zeros = int(relevant.sum()), int((~relevant).sum())
    if not ones or not zeros:
        raise ValueError(f"{ones} relevant and {zeros} other pairs: both kinds are needed to fit a line.")
    target = np.where(relevant, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    # Of the standardised logits, for the sake of the two-by-two system.
    centre, spread = logits.mean(), logits.std() or 1.0
    x = np.stack([(logits - centre) / spread, np.ones(len(logits))], 1)

    def cost(line: np.ndarray) -> float:
        z = x @ line
        return float(np.mean(np.logaddexp(0, z) - target * z))

    line = np.array([0.0, np.log((ones + 1) / (zeros + 1))])
    for _ in range(100):
        p = sigmoid(x @ line)
        gradient = x.T @ (p - target) / len(x)
        if np.abs(gradient).max() < 1e-10:
            break
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x / len(x) + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while cost(line - size * step) > cost(line) - 1e-4 * size * float(gradient @ step) and size > 1e-9:
            size /= 2
        line = line - size * step
    scale = float(line[0] / spread)
    if scale <= 0:
        raise ValueError(f"The fitted scale is {scale:.3g}: relevant pairs have no higher logits than others.")
    return scale, float(line[1] - scale * centre)


def log_loss(logits: np.ndarray, relevant: np.ndarray) -> float:
    """Mean negative log-likelihood, in nats a pair."""
    return float(np.mean(np.logaddexp(0, logits) - relevant * logits))


def ece(logits: np.ndarray, relevant: np.ndarray) -> float:
    """Expected calibration error: probability against share of relevant pairs, over bins of equal width."""
    p = sigmoid(logits)
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(which, p - relevant, BINS)).sum() / len(p))


def run(prepared: Path, head: Path, output: Path, *, threads: int = 2) -> None:
    """Fit and write the JSON file."""
    torch.set_num_threads(threads)
    data = Prepared(prepared)
    config = SplitBertConfig(hidden_size=data.documents.states.shape[1], vocab_size=len(data.word_weight))
    logits, relevant = held_out_logits(data, load_head(head, config))
    scale, shift = fit_line(logits, relevant)
    after = scale * logits + shift
    figures = {
        "scale": scale,
        "shift": shift,
        "pairs": len(logits),
        "relevant": int(relevant.sum()),
        "base_rate": float(relevant.mean()),
        "base_rate_means": f"1 relevant to {OTHERS} others from near the top of BM25, likely false negatives left out",
        "log_loss_before": log_loss(logits, relevant),
        "log_loss_after": log_loss(after, relevant),
        "ece_before": ece(logits, relevant),
        "ece_after": ece(after, relevant),
    }
    print(figures, flush=True)
    part = output.with_suffix(".tmp")
    part.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    part.replace(output)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--head", type=Path, required=True, help="a head-*.pt of train.py")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, calibration.json")
    parser.add_argument("--threads", type=int, default=2)
    run(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
