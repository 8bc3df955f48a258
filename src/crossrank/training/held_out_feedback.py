"""Turn held-out feedback into a dataset that two models can be compared on.

Judgements by users (labels, stars, votes) are used directly: the judged documents of a query are ranked.

Clicks need more care. Among the documents that "click > skip above" judges, the lowest click was always ranked last, so
any other ranking, even a random one, looks better on them than the model that made the ranking. So here all shown
documents are ranked, and a click at position k counts 1 / p(k), where p(k) is the probability that a user looks
there (inverse propensity scoring: T. Joachims, A. Swaminathan, T. Schnabel, Unbiased learning-to-rank
with biased feedback, WSDM 2017; their model p(k) = k ** -eta). p is at least 0.1, which limits the variance
(E. Ionides, Truncated importance sampling, 2008) and leaves a bias in favour of the model in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossrank.data.columns import form_of
from crossrank.data.corpus import MemoryCorpus
from crossrank.data.dataset import Dataset, assemble
from crossrank.data.forms import Feedback, feedback_of, judgements_of, roles_in
from crossrank.data.judgements import Judgement, ReadReport, ReadSettings, Row
from crossrank.data.text_lines import Notes, Place
from crossrank.data.trec import Qrels, RunRow
from crossrank.errors import InputError
from crossrank.training.checks import same_query

ETA = 1.0
LEAST_PROPENSITY = 0.1
# Labels range from 0 to 1, grades are whole numbers.
_GRADES = 100


@dataclass
class Held:
    """The feedback on held-out queries.

    :param queries: Normalized query -> its first text.
    :param judged: Normalized query -> document -> labels by users.
    :param clicks: Normalized query -> rankings with recorded clicks.
    """

    queries: dict[str, str] = field(default_factory=dict)
    judged: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    clicks: dict[str, list[Feedback]] = field(default_factory=dict)

    def add(self, row: Row, reading: ReadSettings) -> None:
        """Add a row."""
        judgements, clicks = split_signals(row, reading)
        for one in judgements:
            self.queries.setdefault(same_query(one.query), one.query)
            texts = self.judged.setdefault(same_query(one.query), {})
            texts.setdefault(one.document, []).append(one.label)
        if clicks is not None:
            self.queries.setdefault(same_query(clicks.query), clicks.query)
            self.clicks.setdefault(same_query(clicks.query), []).append(clicks)


def split_signals(row: Row, reading: ReadSettings) -> tuple[list[Judgement], Feedback | None]:
    """Divide a row into judgements by users, and a ranking with recorded clicks.

    :raises RowError: If it can't be used.
    """
    roles = roles_in(row, reading)
    if form_of(roles) != "feedback":
        return judgements_of(row, reading, ReadReport()), None
    found = feedback_of(row, roles, reading)
    said = [
        Judgement(found.query, text, label, row.file, row.line)
        for text, label in zip(found.shown, found.said, strict=True)
        if label is not None
    ]
    return said, None if found.by_clicks is None else found


@dataclass(frozen=True)
class HeldOutFeedback:
    """A dataset made of feedback.

    :param dataset: Queries on which two models can differ.
    :param weights: Query -> how much it counts.
    :param clicked: How many of the queries are judged by clicks.
    """

    dataset: Dataset
    weights: Mapping[str, float]
    clicked: int


def query_of(row: Row, reading: ReadSettings) -> str:
    """Return the query of a valid row."""
    return str(row.fields[roles_in(row, reading)["query"][0]])


def as_dataset(held: Held, source: Path, *, eta: float = ETA) -> HeldOutFeedback | None:
    """Make a dataset; ``None`` if there is no query on which models can differ.

    If users judged enough documents of a query to rank them, its clicks are ignored.

    :param source: For messages.
    :param eta: How fast attention decreases with the position; 0 for not at all.
    :raises InputError: If ``eta`` is out of range.
    """
    if not 0 <= eta <= 5:
        raise InputError(f"eta={eta!r} is outside 0 to 5. 1 means that one user in k looks at position k.")
    texts: dict[str, str] = {}  # text -> identifier
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    rows: list[RunRow] = []
    weights: dict[str, float] = {}
    by_clicks: list[str] = []
    place = Place(source, 0)
    for query in held.queries:
        gains = {text: sum(given) / len(given) for text, given in held.judged.get(query, {}).items()}
        weight = 1.0
        if len(set(gains.values())) < 2:
            gains, weight = _by_propensity(held.clicks.get(query, ()), eta)
            if len(set(gains.values())) < 2:
                continue
            by_clicks.append(query)
        weights[query] = weight
        queries[query] = held.queries[query]
        highest = max(gains.values())
        qrels[query] = {}
        for rank, (text, gain) in enumerate(gains.items(), start=1):
            document = texts.setdefault(text, f"d{len(texts) + 1}")
            # At least 1 for every document with a click or a positive judgement.
            qrels[query][document] = max(round(_GRADES * gain / highest), int(gain > 0))
            rows.append(RunRow(place, query, document, rank, -float(rank)))
    if not queries:
        return None
    mean = sum(weights[query] for query in by_clicks) / len(by_clicks) if by_clicks else 1.0
    weights.update({query: weights[query] / mean for query in by_clicks})
    dataset = assemble(
        "held-out feedback",
        queries,
        MemoryCorpus({name: text for text, name in texts.items()}),
        (qrels, {}, source),
        Notes(),
        rows=(rows, source),
        first_stage="as it was shown",
    )
    return HeldOutFeedback(dataset, weights, len(by_clicks))


def _by_propensity(sessions: Iterable[Feedback], eta: float) -> tuple[dict[str, float], float]:
    """Return the gain of each shown document, and the weight that turns nDCG into the weighted clicks of one showing.

    Rankings without a click count as showings; otherwise queries with rare clicks would count too much.
    """
    gains: dict[str, float] = {}
    count = 0
    for one in sessions:
        count += 1
        for k, text in enumerate(one.shown, start=1):
            clicked = k in one.places
            gains[text] = gains.get(text, 0.0) + (1 / max(k**-eta, LEAST_PROPENSITY) if clicked else 0.0)
    best = sorted(gains.values(), reverse=True)
    ideal = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(best, start=1))
    return gains, ideal / max(count, 1)
