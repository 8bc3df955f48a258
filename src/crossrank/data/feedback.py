"""What people did with a ranking -> labels.

Stars and votes say what somebody thinks of a document; they map to labels by :data:`STARS` and :data:`VOTES`.

A click says less: what stands on top is looked at and clicked more often because it stands there (position bias).
So a click counts as a judgement only against what was certainly looked at: people read from the top, hence a document
above the lowest click was seen and passed over ("click > skip above", Joachims 2002, KDD; its bias was measured in
Joachims et al. 2005, SIGIR). Clicked documents get 1, those above the lowest click that were not clicked 0, and all
below it stay unjudged, for nobody knows whether they were looked at. A ranking without a click judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STARS: Mapping[float, float] = {1: 0.0, 2: 0.25, 3: 0.5, 4: 0.75, 5: 1.0}
VOTES: Mapping[object, float] = {
    **dict.fromkeys(("up", "helpful", "yes", "+1", "👍", 1), 1.0),
    **dict.fromkeys(("down", "not helpful", "no", "-1", "👎", -1, 0), 0.0),
}


def label_of_stars(stars: object) -> float:
    """Label of 1 to 5 stars, whole or half.

    :raises ValueError: If it is something else.
    """
    if not isinstance(stars, (int, float)) or isinstance(stars, bool) or not 1 <= stars <= 5:
        raise ValueError(f"{stars!r} is no number of stars; 1 to 5 are known")
    return STARS[stars] if stars in STARS else (float(stars) - 1) / 4


def label_of_vote(vote: object) -> float:
    """Label of a vote, see :data:`VOTES`; true and false count as up and down.

    :raises ValueError: If it is something else.
    """
    key = vote.strip().lower() if isinstance(vote, str) else vote
    if not isinstance(key, (str, int)) or key not in VOTES:
        raise ValueError(f"{vote!r} is no vote; known are {', '.join(map(repr, VOTES))}")
    return VOTES[key]


def labels_of_clicks(shown: int, positions: Sequence[object]) -> list[float | None]:
    """Labels of the documents of a ranking from what was clicked: ``[shown]``, ``None`` where nothing is known.

    :param shown: How many documents were shown.
    :param positions: The places that were clicked, counted from 1.
    :raises ValueError: If a position is not one of those shown.
    """
    clicked: set[int] = set()
    for position in positions:
        if not isinstance(position, int) or isinstance(position, bool) or not 1 <= position <= shown:
            raise ValueError(f"{position!r} is no position of {shown} documents; they are counted from 1, at the top")
        clicked.add(position)
    lowest = max(clicked, default=0)
    return [1.0 if place in clicked else 0.0 if place < lowest else None for place in range(1, shown + 1)]
