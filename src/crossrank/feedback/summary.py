"""Statistics of a store, for ``crossrank feedback stats`` and the server's page."""

from __future__ import annotations

from collections import Counter
from typing import Any

from crossrank.feedback.propensity import estimate
from crossrank.feedback.store import Judged, Store

SIGNALS = ("clicked", "helpful", "stars", "preferred", "missing", "comment")


def summary(store: Store) -> dict[str, Any]:
    """Count rankings, judgements, signals and model versions, and estimate the position bias.

    :raises StoreError: If the store can't be read.
    """
    signals: Counter[str] = Counter()
    versions: dict[str, Counter[str]] = {}
    judgements = 0
    shuffled: list[Judged] = []
    for one in store.judged():
        judgements += len(one.judgements)
        version = versions.setdefault(f"{one.ranking.model} {one.ranking.model_version}", Counter())
        if one.ranking.shuffled:
            shuffled.append(one)
        for judgement in one.judgements:
            signals.update(name for name in SIGNALS if getattr(judgement, name) is not None)
            version["judgements"] += 1
            if judgement.clicked is not None:
                version["with_known_clicks"] += 1
                version["clicked_first"] += one.ranking.shown[0] in judgement.clicked
            version["votes"] += len(judgement.helpful or {})
            version["votes_up"] += sum((judgement.helpful or {}).values())
    return {
        **store.counts(),
        "judgements": judgements,
        "signals": {name: signals[name] for name in SIGNALS},
        "versions": {name: dict(counts) for name, counts in versions.items()},
        "propensities": estimate(shuffled).as_dict(),
    }
