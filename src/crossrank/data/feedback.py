"""Turn user feedback on a ranking into labels.

Stars and votes say what a user thinks of a document. :data:`STARS` and :data:`VOTES` map them to labels.

A click says less: documents at the top are seen and clicked more often because of their position (position bias). So a
click counts only against documents that were certainly seen. Users read from the top, so a document above the lowest
click was seen and skipped ("click > skip above", Joachims 2002, KDD; its bias was measured in
Joachims et al. 2005, SIGIR). Clicked documents get 1, other documents above the lowest click get 0, and
documents below it stay unjudged, because it is unknown whether they were seen. A ranking without clicks gives no
labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STARS: Mapping[float, float] = {1: 0.0, 2: 0.25, 3: 0.5, 4: 0.75, 5: 1.0}
VOTES: Mapping[object, float] = {
    **dict.fromkeys(("up", "helpful", "yes", "+1", "👍", 1), 1.0),
    **dict.fromkeys(("down", "not helpful", "no", "-1", "👎", -1, 0), 0.0),
}


def label_of_stars(stars: object) -> float:
    """Give the label for 1 to 5 stars, whole or half.

    :raises ValueError: If it is something else.
    """
    if not isinstance(stars, (int, float)) or isinstance(stars, bool) or not 1 <= stars <= 5:
        raise ValueError(f"{stars!r} is not a number of stars from 1 to 5")
    return STARS[stars] if stars in STARS else (float(stars) - 1) / 4


def label_of_vote(vote: object) -> float:
    """Give the label for a vote, see :data:`VOTES`. True and false count as up and down.

    :raises ValueError: If it is something else.
    """
    key = vote.strip().lower() if isinstance(vote, str) else vote
    if not isinstance(key, (str, int)) or key not in VOTES:
        raise ValueError(f"{vote!r} is not a vote; known votes are {', '.join(map(repr, VOTES))}")
    return VOTES[key]


def labels_of_clicks(shown: int, positions: Sequence[object]) -> list[float | None]:
    """Give the labels of shown documents from clicks: ``[shown]``, ``None`` for unjudged documents.

    :param shown: How many documents were shown.
    :param positions: The positions that were clicked, counted from 1.
    :raises ValueError: If a position is invalid.
    """
    clicked: set[int] = set()
    for position in positions:
        if not isinstance(position, int) or isinstance(position, bool) or not 1 <= position <= shown:
            raise ValueError(f"{position!r} is not a position from 1 to {shown}; 1 is the top")
        clicked.add(position)
    lowest = max(clicked, default=0)
    return [1.0 if place in clicked else 0.0 if place < lowest else None for place in range(1, shown + 1)]
