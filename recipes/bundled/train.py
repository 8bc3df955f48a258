"""Train the head of the bundled model on prepared candidates; see README.md here.

The body stays the bi-encoder's, frozen, so its states are read from disk and a step costs only the head: some hundred
pairs a second on two cores. Each list has one positive and nine negatives: four near the top of BM25, three near the
top of the bi-encoder, two drawn at random. The loss is listwise cross-entropy, plus the pull of a teacher (the head at
its start: cosine, late interaction and exact matches mixed), plus a little binary cross-entropy so that a logit has a
meaning of its own.

A run that was stopped goes on from its last save point. The lists are a function of the seed and the step alone, so it
ends with the weights of a run that was never stopped; to the bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from crossrank.training.split_bert_torch import SplitBertConfig, SplitHead
from recipes.bundled.prepared import Prepared, Texts
from recipes.bundled.processor import native

TEACHER = torch.tensor([20.0, 10.0, 4.0])
LISTS = 24
CANDIDATES = 10
# Batches that are drawn together and sorted by length.
CHUNK = 16


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


def lists(data: Prepared, variants: np.ndarray, seed: int, step: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The batches of lists from a step on, endlessly; lists of like length together, so that little is padding."""
    first, done = divmod(step, CHUNK)
    for chunk in itertools.count(first):
        rng = np.random.default_rng([seed, chunk])
        drawn = [(v, candidates(data, v, rng)) for v in rng.choice(variants, LISTS * CHUNK)]
        drawn.sort(key=lambda one: data.documents.lengths[one[1]].max() + 4 * data.queries.lengths[one[0]])
        batches = [drawn[i : i + LISTS] for i in range(0, len(drawn), LISTS)]
        order = rng.permutation(CHUNK)[done if chunk == first else 0 :]
        yield from (batches[i] for i in order)


def signals_and_logits(head: SplitHead, queries: Texts, documents: Texts, q: np.ndarray, d: np.ndarray, repeat: int):
    """Logits and signals of each query's candidates, and the documents' vectors."""
    qs, qi, qm, _ = queries.take(q)
    ds, di, dm, vectors = documents.take(d)
    qs, qi, qm = (t.repeat_interleave(repeat, 0) for t in (qs, qi, qm))
    with torch.autocast("cpu", torch.bfloat16, enabled=native() == torch.bfloat16):
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


def likely_false(teacher: torch.Tensor, vectors: torch.Tensor, documents: np.ndarray) -> torch.Tensor:
    """Which candidates of lists are likely to be relevant too and count as nothing: ``[lists, candidates]``.

    The positive again, its near copies, and what the teacher puts clearly above it.

    :param teacher: ``[lists, candidates]``; the positive comes first.
    :param vectors: ``[lists, candidates, H]``, of length 1.
    :param documents: ``[lists, candidates]``, which documents they are.
    """
    ignore = (teacher > teacher[:, :1] + 3) | ((vectors * vectors[:, :1]).sum(-1) > 0.93)
    ignore |= torch.from_numpy(documents == documents[:, :1])
    ignore[:, 0] = False
    return ignore


def load_head(path: Path, config: SplitBertConfig) -> SplitHead:
    """The head in a ``head-*.pt``; its number of layers is set in ``config``."""
    state = torch.load(path, weights_only=True)
    config.head_layers = len({name.split(".")[1] for name in state if name.startswith("layer.")})
    head = SplitHead(config)
    head.load_state_dict(state)
    return head.eval()


def run(
    prepared: Path,
    output: Path,
    *,
    steps: int = 1000,
    schedule: int = 4000,
    head_layers: int = 2,
    learning_rate: float = 4e-4,
    pull: float = 0.3,
    seed: int = 0,
    save_every: int = 200,
    threads: int = 2,
) -> Path:
    """Train, from the start or from ``latest.pt`` in ``output``; the last ``head-*.pt``.

    The learning rate falls along a cosine of ``schedule`` steps, of which the first ``steps`` are taken.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    output.mkdir(parents=True, exist_ok=True)
    data = Prepared(prepared)
    hidden, vocabulary = data.documents.states.shape[1], len(data.word_weight)
    head = SplitHead(SplitBertConfig(hidden_size=hidden, vocab_size=vocabulary, head_layers=head_layers))
    with torch.no_grad():
        head.word_weight.copy_(torch.from_numpy(data.word_weight))
    average = copy.deepcopy(head).eval()
    gentle = {id(head.word_weight), id(head.saturation), id(head.mix), *map(id, head.mix_by_query.parameters())}
    groups = [
        {"params": [p for p in head.parameters() if id(p) not in gentle], "lr": learning_rate, "weight_decay": 0.01},
        {"params": [p for p in head.parameters() if id(p) in gentle], "lr": 2 * learning_rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    step = 0
    latest, log_path = output / "latest.pt", output / "log.jsonl"
    if latest.is_file():
        saved = torch.load(latest, weights_only=True)
        head.load_state_dict(saved["head"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    forget_after(step, log_path)
    source = lists(data, data.training_variants(), seed, step)
    started, figures = time.time(), []
    with log_path.open("a", encoding="utf-8") as log:
        while step < steps:
            factor = min(1.0, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(schedule, steps))))
            for group, rate in zip(optimizer.param_groups, (1.0, 2.0), strict=True):
                group["lr"] = learning_rate * rate * factor
            loss, now = loss_on(head, data, next(source), pull)
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
            if step % 50 == 0 or step == steps:
                row = log_row(step, time.time() - started, figures, head)
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(row, flush=True)
                figures = []
            if step % save_every == 0 or step == steps:
                state = {
                    "head": head.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                }
                # latest.pt second: what it says is done has its head.
                save(average.state_dict(), output / f"head-{step}.pt")
                save(state, latest)
    return output / f"head-{steps}.pt"


def loss_on(head: SplitHead, data: Prepared, chosen: Sequence[tuple[int, np.ndarray]], pull: float):
    """The loss of a batch of lists, and its figures for the log."""
    v, d = np.array([one[0] for one in chosen]), np.concatenate([one[1] for one in chosen])
    logits, signals, vectors = signals_and_logits(head, data.queries, data.documents, v, d, CANDIDATES)
    shape = (len(chosen), CANDIDATES)
    teacher = (signals.detach() @ TEACHER).view(shape)
    ignore = likely_false(teacher, vectors.view(*shape, -1), d.reshape(shape))
    return loss_of(logits.view(shape), teacher, ignore, torch.from_numpy(data.weights(v)), pull)


def log_row(step: int, seconds: float, figures: list[list[float]], head: SplitHead) -> dict:
    """A line of the log: the mean of the figures since the last one."""
    listwise, distance, binary, right, teacher_right = np.mean(figures, 0).round(4).tolist()
    return {
        "step": step,
        "seconds": round(seconds),
        "pairs": step * LISTS * CANDIDATES,
        "listwise": listwise,
        "distance": distance,
        "binary": binary,
        "right": right,
        "teacher_right": teacher_right,
        "mix": [round(x, 2) for x in head.mix.exp().tolist()],
    }


def forget_after(step: int, log: Path) -> None:
    """Drop from the log what a stopped run did after its last save point, for it is done again."""
    if log.is_file():
        rows = log.read_text(encoding="utf-8").splitlines(keepends=True)
        # An incomplete last line belongs to steps that are repeated.
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        log.write_text("".join(kept), encoding="utf-8")


def save(state: dict, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    part = path.with_suffix(".tmp")
    torch.save(state, part)
    part.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the log")
    add_settings(parser)
    parser.add_argument("--threads", type=int, default=2)
    run(**vars(parser.parse_args(argv)))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of the training."""
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--schedule", type=int, default=4000, help="steps over which the learning rate would fall to 0")
    parser.add_argument("--head-layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--pull", type=float, default=0.3, help="weight of the teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200)


if __name__ == "__main__":
    main()
