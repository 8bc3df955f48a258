"""Train the head of the model in the box on prepared candidates; see README.md here.

The body stays the bi-encoder's, frozen, so its states are read from disk and a step costs only the head: some hundred
pairs a second on two cores. Each list has one positive and nine negatives: four near the top of BM25, three near the top
of the bi-encoder, two drawn at random. The loss is listwise cross-entropy, plus the pull of a teacher (the head at its
start: cosine, late interaction and exact matches mixed), plus a little binary cross-entropy so that a logit has a meaning of
its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from crossrank.training.split_bert import SplitBertConfig, SplitHead
from recipes.bundled.prepared import Prepared, Texts

TEACHER = torch.tensor([20.0, 10.0, 4.0])
LISTS = 24
CANDIDATES = 10


def candidates(data: Prepared, variant: int, rng: np.random.Generator) -> np.ndarray:
    """The positive first, then the negatives."""
    positive = data.positive_of(variant)
    lexical = data.lexical[variant]
    dense = data.dense[variant]
    negatives = [
        rng.choice(lexical[lexical != positive][:20], 4, replace=False),
        rng.choice(dense[dense != positive][:20], 3, replace=False),
        rng.choice(data.same_source(variant), 2),
    ]
    return np.concatenate([[positive], *negatives])


def lists(data: Prepared, variants: np.ndarray, rng: np.random.Generator):
    """Batches of lists, endlessly; lists of like length together, so that little is padding."""
    while True:
        drawn = [(v, candidates(data, v, rng)) for v in rng.choice(variants, LISTS * 16)]
        drawn.sort(key=lambda one: data.documents.lengths[one[1]].max() + 4 * data.queries.lengths[one[0]])
        batches = [drawn[i : i + LISTS] for i in range(0, len(drawn), LISTS)]
        rng.shuffle(batches)
        yield from batches


def signals_and_logits(head: SplitHead, queries: Texts, documents: Texts, q: np.ndarray, d: np.ndarray, repeat: int):
    """Logits and signals of each query's candidates, and the documents' vectors."""
    qs, qi, qm, _ = queries.take(q)
    ds, di, dm, vectors = documents.take(d)
    qs, qi, qm = (t.repeat_interleave(repeat, 0) for t in (qs, qi, qm))
    with torch.autocast("cpu", torch.bfloat16):
        logits, signals = head(qs, qi, qm, ds, di, dm)
    return logits.float(), signals.float(), vectors


def loss_of(logits: torch.Tensor, teacher: torch.Tensor, ignore: torch.Tensor, weight: torch.Tensor, pull: float):
    """The three parts, and the share of lists whose positive is on top."""
    logits, teacher = logits.masked_fill(ignore, -1e4), teacher.masked_fill(ignore, -1e4)
    log_share = logits.log_softmax(1)
    listwise = -(weight * log_share[:, 0]).sum() / weight.sum()
    distance = (teacher.softmax(1) * (teacher.log_softmax(1) - log_share)).sum(1).mean()
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    binary = functional.binary_cross_entropy_with_logits(logits.clamp(min=-50), target)
    right = (log_share.argmax(1) == 0).float().mean()
    teacher_right = (teacher.argmax(1) == 0).float().mean()
    figures = [listwise.item(), distance.item(), binary.item(), right.item(), teacher_right.item()]
    return listwise + pull * distance + 0.5 * binary, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--head-layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--pull", type=float, default=0.3, help="weight of the teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    data = Prepared(args.prepared)
    config = SplitBertConfig(hidden_size=data.documents.states.shape[1], head_layers=args.head_layers)
    head = SplitHead(config)
    with torch.no_grad():
        head.word_weight.copy_(torch.from_numpy(data.word_weight))
    average = copy.deepcopy(head).eval()
    gentle = {id(head.word_weight), id(head.saturation), id(head.mix), *map(id, head.mix_by_query.parameters())}
    groups = [
        {"params": [p for p in head.parameters() if id(p) not in gentle], "lr": args.learning_rate, "weight_decay": 0.01},
        {"params": [p for p in head.parameters() if id(p) in gentle], "lr": 2 * args.learning_rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    step = 0
    latest = args.output / "latest.pt"
    if latest.is_file():
        saved = torch.load(latest, weights_only=True)
        head.load_state_dict(saved["head"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    variants = data.training_variants()
    # A stream of its own for each start, so that a resumed run does not see its first lists again.
    source = lists(data, variants, np.random.default_rng([args.seed, step]))
    log = (args.output / "log.jsonl").open("a", encoding="utf-8")
    started, figures = time.time(), []
    while step < args.steps:
        chosen = next(source)
        v, d = np.array([one[0] for one in chosen]), np.concatenate([one[1] for one in chosen])
        factor = min(1.0, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group, rate in zip(optimizer.param_groups, (1.0, 2.0), strict=True):
            group["lr"] = args.learning_rate * rate * factor
        logits, signals, vectors = signals_and_logits(head, data.queries, data.documents, v, d, CANDIDATES)
        shape = (len(chosen), CANDIDATES)
        teacher = (signals.detach() @ TEACHER).view(shape)
        vectors = vectors.view(*shape, -1)
        # Likely false negatives: the positive itself, its near copies, and what the teacher puts clearly above it.
        ignore = (teacher > teacher[:, :1] + 3) | ((vectors * vectors[:, :1]).sum(-1) > 0.93)
        ignore |= torch.from_numpy(d.reshape(shape) == d.reshape(shape)[:, :1])
        ignore[:, 0] = False
        loss, now = loss_of(logits.view(shape), teacher, ignore, torch.from_numpy(data.weights(v)), args.pull)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for p, kept in zip(head.parameters(), average.parameters(), strict=True):
                kept.lerp_(p, 1 - decay)
        step += 1
        figures.append(now)
        if step % 50 == 0 or step == args.steps:
            listwise, distance, binary, right, teacher_right = np.mean(figures, 0).round(4).tolist()
            row = {
                "step": step,
                "seconds": round(time.time() - started),
                "pairs": step * LISTS * CANDIDATES,
                "listwise": listwise,
                "distance": distance,
                "binary": binary,
                "right": right,
                "teacher_right": teacher_right,
                "mix": [round(x, 2) for x in head.mix.exp().tolist()],
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
            figures = []
        if step % args.save_every == 0 or step == args.steps:
            state = {"head": head.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, latest.with_suffix(".tmp"))
            latest.with_suffix(".tmp").replace(latest)
            torch.save(average.state_dict(), args.output / f"head-{step}.pt")


if __name__ == "__main__":
    main()
