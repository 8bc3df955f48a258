"""Evaluate rankings: measures, comparisons, calibrations, explanations and reports."""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from crossrank.evaluation.compare_runs import compare
    from crossrank.evaluation.evaluate_models import evaluate
    from crossrank.evaluation.report import write_report
    from crossrank.evaluation.result import Evaluation

_LAZY = {
    "Evaluation": "crossrank.evaluation.result",
    "compare": "crossrank.evaluation.compare_runs",
    "evaluate": "crossrank.evaluation.evaluate_models",
    "write_report": "crossrank.evaluation.report",
}

__all__ = ["Evaluation", "compare", "evaluate", "write_report"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
