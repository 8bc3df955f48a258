"""The report: a self-contained HTML file without scripts or network access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from crossrank.errors import InputError
from crossrank.evaluation.disagreements import Explainer
from crossrank.evaluation.report.charts import Charts
from crossrank.evaluation.report.markup import join, tag, text
from crossrank.evaluation.report.page import section
from crossrank.evaluation.result import Evaluation


def write_report(
    evaluations: Sequence[Evaluation], path: str | Path, explanations: Mapping[str, Explainer] | None = None
) -> None:
    """Write a report on one or several evaluations.

    :param path: The file, which is replaced.
    :param explanations: System -> function that explains its scores, such as
        ``partial(explain_pairs, model, budget=100)``. The disagreements then show the words that matter.
    :raises InputError: If there is no evaluation.
    """
    # A lone surrogate can't be encoded.
    Path(path).write_bytes(report(evaluations, explanations).encode("utf-8", errors="xmlcharrefreplace"))


def report(evaluations: Sequence[Evaluation], explanations: Mapping[str, Explainer] | None = None) -> str:
    """Make the report's HTML; see :func:`write_report`.

    :raises InputError: If there is no evaluation.
    """
    if not evaluations:
        raise InputError("There is no evaluation to report. Pass a list of results of evaluate().")
    charts = Charts()
    sections = [section(one, number, charts, explanations or {}) for number, one in enumerate(evaluations, start=1)]
    contents = tag(
        "nav",
        tag("ol", *(tag("li", tag("a", one.dataset, href=f"#dataset-{i}")) for i, one in enumerate(evaluations, 1))),
        aria_label="Datasets",
    )
    here = files(__name__)
    page = Template((here / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=text(", ".join(one.dataset for one in evaluations)),
        style=(here / "page.css").read_text(encoding="utf-8"),
        contents=contents if len(evaluations) > 1 else "",
        body=join(*sections),
    )
