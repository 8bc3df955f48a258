"""The model card: what sentence-transformers writes, and what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossrank.data.judgements import is_positive
from crossrank.training.base_model import Base
from crossrank.training.comparison import LEARNT, Comparison, Part
from crossrank.training.data_split import DataSplit
from crossrank.training.settings import Settings
from crossrank.training.training_result import TrainingResult

TAG = "crossrank"
METRIC = "ndcg_at_10"
_SAMPLES = 3
_MOST_LETTERS = 300


def write_card(
    folder: Path, split: DataSplit, settings: Settings, base: Base, result: TrainingResult, machine: str
) -> None:
    """Add sections, a tag and the figure on held-out queries to the ``README.md`` that sentence-transformers wrote.

    :param machine: What it was trained on.
    """
    from huggingface_hub import ModelCard

    path = folder / "README.md"
    card = ModelCard.load(path)
    tags = list(card.data.tags or [])
    card.data.tags = [*tags, TAG] if TAG not in tags else tags
    if result.comparison is not None and result.comparison.queries:
        card.data.model_name = result.output.resolve().name
        card.data.eval_results = [_figure_for_the_hub(result.comparison)]
        card.data.metrics = [METRIC]
    sections: list[Callable[[], str]] = [
        lambda: _usage(base),
        lambda: _evaluation(result.comparison),
        lambda: _data(split),
        lambda: _run(settings, base, result, machine),
        lambda: _limits(split, settings),
    ]
    added = "\n\n".join(section() for section in sections)
    # Before what is only citations, where readers stop.
    text, mark, citations = card.text.partition("\n## Citation")
    card.text = f"{text.rstrip()}\n\n{added}\n{mark}{citations}"
    card.save(path)


def _figure_for_the_hub(found: Comparison) -> Any:
    """What the hub shows beside a model, in the words in which sentence-transformers states its own figures."""
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="cross-encoder-reranking",
        task_name="Cross Encoder Reranking",
        dataset_type="held-out",
        dataset_name="held-out queries",
        metric_type=METRIC,
        metric_name="nDCG@10",
        metric_value=round(found.figures["result"].ndcg, 4),
    )


def _usage(base: Base) -> str:
    register = "import crossrank.training.split_bert_torch  # registers the architecture\n" if base.is_split else ""
    return f"""## How to load it

With [crossrank](https://pypi.org/project/crossrank/), which needs no torch:

```python
from crossrank import CrossEncoder

model = CrossEncoder("PATH_OR_NAME")
print(model.rank("a query", ["a document", "another one"]))
```

With sentence-transformers:

```python
{register}from sentence_transformers import CrossEncoder

model = CrossEncoder("PATH_OR_NAME")
print(model.predict([("a query", "a document")]))
```"""


def _evaluation(found: Comparison | None) -> str:
    title = "## Evaluation against the base and BM25\n\n"
    if found is None:
        return title + "None: there were too few queries to hold some out. Evaluate it before you use it."
    lines = [
        f"On {found.pairs} pairs of held-out queries, {found.queries} of which have documents of different labels. "
        "Intervals are 95 % (bootstrap over queries), p is of a paired permutation test. The held-out queries also "
        "decided when to stop, so the result's own figures are on the bright side.",
        "",
        "| | nDCG@10 | 95 % interval | the result is better by | 95 % interval | p | binary cross-entropy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.figures.items():
        loss = "" if one.loss is None else f"{one.loss:.4f}"
        if not found.queries:
            cells = ["", "", "", "", ""]
        elif name == "result":
            cells = [f"{one.ndcg:.4f}", f"{one.low:.4f} to {one.high:.4f}", "", "", ""]
        else:
            gain = [f"{one.gain:+.4f}", f"{one.gain_low:+.4f} to {one.gain_high:+.4f}", f"{one.p:.4f}"]
            cells = [f"{one.ndcg:.4f}", f"{one.low:.4f} to {one.high:.4f}", *gain]
        lines.append(f"| {name} | {' | '.join(cells)} | {loss} |")
    if LEARNT in found.parts:
        lines += ["", _by_documents(found.parts)]
    return title + "\n".join(lines)


def _by_documents(parts: Mapping[str, Part]) -> str:
    """Where a gain may be memory, and where it is not."""
    told = []
    for name, one in parts.items():
        which = "had a document that was relevant in training, too" if name == LEARNT else "had none"
        gain = f"{one.gain:+.4f} ({one.gain_low:+.4f} to {one.gain_high:+.4f}, p = {one.p:.4f})"
        told.append(f"{one.queries} of them {which}: against the base {gain}.")
    return f"{' '.join(told)} Where there was one, a gain may be memory of it."


def _data(split: DataSplit) -> str:
    judged = [one for group in split.train for one in group.judged]
    positives = sum(is_positive(one.label) for one in judged)
    lines = [
        "## Data",
        "",
        f"- Trained on {len(judged)} pairs of {len(split.train)} queries: {positives} relevant, "
        f"{len(judged) - positives} not; {split.general} of them general pairs that were mixed in.",
        f"- Held out: {sum(len(group.judged) for group in split.held_out)} pairs of {len(split.held_out)} queries.",
    ]
    lines += [f"- {one.what}: {one.count}, {one.done}." for one in split.report.findings if one.count]
    lines += ["", "| query | document | label |", "|---|---|---|"]
    lines += [f"| {_cell(one.query)} | {_cell(one.document)} | {one.label:g} |" for one in judged[:_SAMPLES]]
    return "\n".join(lines)


def _run(settings: Settings, base: Base, result: TrainingResult, machine: str) -> str:
    stopped = ", where it stopped because nothing got better" if result.stopped_early else ""
    # A folder's path says nothing to others, and may say too much.
    name = Path(base.files.name).name if Path(base.files.name).is_dir() else base.files.name
    if base.files.revision:
        name += f" at {base.files.revision}"
    lines = [
        "## The run",
        "",
        f"- Base: {name} ({base.config.model_type})",
        f"- Seed: {settings.seed}",
        f"- Steps: {result.steps}{stopped}",
        f"- Batch: {result.batch_size} rows, {result.accumulate} to a step",
        f"- Hardware: {machine}",
        f"- Time: {result.seconds:.0f} s, on {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- Share of the base in the weights: {settings.average_with_base:g}",
        "- Settings that differ from crossrank's defaults: "
        + (", ".join(f"`{key}={value!r}`" for key, value in settings.changed().items()) or "none"),
    ]
    return "\n".join(lines)


def _limits(split: DataSplit, settings: Settings) -> str:
    pairs = sum(len(group.judged) for group in split.train)
    small = " That is little: expect it to do better on texts much like these, and hardly elsewhere." * (pairs < 5000)
    length = f" {settings.max_length}" if settings.max_length else ""
    return (
        "## Intended use and limits\n\n"
        "For ranking the documents that a search found for a query, by relevance. It learnt from "
        f"{pairs} judged pairs.{small} Scores are for ordering documents of one query; whether a score of two queries "
        "means the same has to be measured (`crossrank calibrate`). Whatever bias the judgements have, it has too. "
        f"Documents beyond its{length} tokens are cut. It does not say whether a document is true, safe or up to date."
    )


def _cell(text: Any) -> str:
    short = " ".join(str(text).split())
    short = short if len(short) <= _MOST_LETTERS else short[:_MOST_LETTERS] + "..."
    # A code span, so that nothing in it is read as Markdown or HTML.
    return "`" + short.replace("`", "'").replace("|", "\\|") + "`"
