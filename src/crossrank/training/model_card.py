"""The model card: that of sentence-transformers, with more sections."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from crossrank.data.judgements import is_positive
from crossrank.training.base_model import Base
from crossrank.training.data_split import DataSplit
from crossrank.training.held_out import LEARNT, HeldOutComparison
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
    sections = [_usage(base), _evaluation(result.comparison), _data(split), _run(settings, base, result, machine)]
    added = "\n\n".join([*sections, _limits(split, settings)])
    # Insert them before the citations, where most readers stop.
    text, mark, citations = card.text.partition("\n## Citation")
    card.text = f"{text.rstrip()}\n\n{added}\n{mark}{citations}"
    card.save(path)


def _figure_for_the_hub(found: HeldOutComparison) -> Any:
    """The figure that the hub shows for a model, in the same form as those of sentence-transformers."""
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="cross-encoder-reranking",
        task_name="Cross Encoder Reranking",
        dataset_type="held-out",
        dataset_name="held-out queries",
        metric_type=METRIC,
        metric_name="nDCG@10",
        metric_value=round(found.systems["result"].mean or 0.0, 4),
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


def _evaluation(found: HeldOutComparison | None) -> str:
    title = "## Evaluation against the base and BM25\n\n"
    if found is None:
        return title + "None: there were too few queries to hold some out. Evaluate the model before you use it."
    lines = [
        f"On {found.pairs} pairs of held-out queries. {found.queries} of these queries have documents with different "
        "labels. Intervals are 95 % (bootstrap over queries), p is from a paired permutation test. The held-out "
        "queries also decided when to stop training, so the figures of the result are slightly optimistic.",
        "",
        "| | nDCG@10 | 95 % interval | the result is better by | 95 % interval | p | binary cross-entropy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.systems.items():
        cells = ["", "", "", "", "", "" if one.loss is None else f"{one.loss:.4f}"]
        if one.mean is not None and one.interval is not None:
            cells[:2] = [f"{one.mean:.4f}", "{:.4f} to {:.4f}".format(*one.interval)]
        if (gain := one.comparison) is not None:
            cells[2:5] = [f"{gain.difference:+.4f}", "{:+.4f} to {:+.4f}".format(*gain.interval), f"{gain.p:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if LEARNT in found.parts:
        lines.append("")
        for name, part in found.parts.items():
            which = "had a document that was also relevant in training" if name == LEARNT else "had none"
            gains = "{:+.4f} ({:+.4f} to {:+.4f}, p = {:.4f})".format(part.difference, *part.interval, part.p)
            lines.append(f"{part.queries} of them {which}: against the base {gains}.")
        lines.append("Where there was one, the model may just remember the document.")
    return title + "\n".join(lines)


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
    stopped = " (stopped early without further improvement)" if result.stopped_early else ""
    # The path of a folder is private and means nothing to others.
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
    small = " That is little data: expect gains on similar texts, but hardly elsewhere." * (pairs < 5000)
    length = f" {settings.max_length}" if settings.max_length else ""
    return (
        "## Intended use and limits\n\n"
        "For ranking the documents that a search found for a query, by relevance. The model was trained on "
        f"{pairs} judged pairs.{small} Scores order the documents of one query; calibrate them (`crossrank calibrate`) "
        "before you compare scores of different queries. The model has the bias of its judgements. Documents beyond its"
        f"{length} tokens are cut. It does not judge whether a document is true, safe or up to date."
    )


def _cell(text: Any) -> str:
    short = " ".join(str(text).split())
    short = short if len(short) <= _MOST_LETTERS else short[:_MOST_LETTERS] + "..."
    # A code span, so that its text is not read as Markdown or HTML.
    return "`" + short.replace("`", "'").replace("|", "\\|") + "`"
