"""Charts as inline SVG: narrow enough for a phone, styled by the page, each with a title and a description."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.calibration.curves import ReliabilityPoint
from crossrank.evaluation.report.markup import Html, tag
from crossrank.evaluation.result import DepthCurve, Histogram

WIDTH = 440
_LEFT, _RIGHT = 46, 12
_LONGEST = 40  # characters of a name; tables show the whole name
_PLOT = 180  # height of a plot with two axes


Scale = Callable[[float], float]  # from values to positions


class Charts:
    """Draws the charts of one page and numbers them, so that each has unique identifiers."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = itertools.count(1)

    def dots(self, rows: Sequence[tuple[str, float, float, float, str]], title: str, about: str) -> Html:
        """A dot with an interval for each row.

        :param rows: Label, value, the ends of the interval, and the text on the right.
        """
        top = _nice(max((row[3] for row in rows), default=1.0))
        x = _scale(0, top, 4, WIDTH - _RIGHT)
        parts = []
        bottom = 40 * len(rows) + 4
        for tick in np.linspace(0, top, 5).tolist():
            parts += [
                _line(x(tick), 0, x(tick), bottom, "grid"),
                _label(x(tick), bottom + 16, _number(tick), "tick mid"),
            ]
        for i, (label, value, low, high, shown) in enumerate(rows):
            y = 40 * i + 28
            kind = "one" if i == len(rows) - 1 else "other"
            parts += [_label(4, y - 12, _cut(label), "name"), _label(WIDTH - _RIGHT, y - 12, shown, "value end")]
            parts += [_line(x(low), y, x(high), y, f"interval {kind}")]
            parts += [tag("circle", cx=_px(x(value)), cy=y, r=5, class_=f"dot {kind}")]
        return self._chart(parts, bottom + 24, title, about)

    def gains(self, values: NDArray[np.float64], title: str, about: str) -> Html:
        """A bar for each query, from the largest gain to the largest loss."""
        ordered = np.sort(values)[::-1]
        top = _nice(float(np.abs(ordered).max(initial=0.0)) or 1.0)
        y = _scale(-top, top, _PLOT, 8)
        parts = self._y_axis([-top, -top / 2, 0, top / 2, top], y, signed=True)
        step = (WIDTH - _LEFT - _RIGHT) / max(1, len(ordered))
        for kind, chosen in (("gain", ordered > 0), ("loss", ordered < 0)):
            path = "".join(
                f"M{_px(_LEFT + i * step)} {_px(y(0))}V{_px(y(float(ordered[i])))}h{step * 0.86:.3f}V{_px(y(0))}z"
                for i in np.flatnonzero(chosen).tolist()
            )
            parts.append(tag("path", d=path, class_=f"fill {kind}") if path else Html(""))
        parts.append(_line(_LEFT, y(0), WIDTH - _RIGHT, y(0), "axis"))
        parts.append(_label((WIDTH + _LEFT) / 2, _PLOT + 24, f"{len(ordered)} queries, sorted", "tick mid"))
        return self._chart(parts, _PLOT + 32, title, about)

    def histogram(self, one: Histogram, title: str, about: str) -> Html:
        """Scores of relevant and irrelevant pairs, each normalized to shares."""
        shares = [counts / max(1, counts.sum()) for counts in (one.irrelevant, one.relevant)]
        top = _nice(float(max(share.max(initial=0.0) for share in shares)) or 1.0)
        low, high = float(one.edges[0]), float(one.edges[-1])
        x, y = _scale(low, high, _LEFT, WIDTH - _RIGHT), _scale(0, top, _PLOT, 8)
        parts = self._y_axis([0, top / 2, top], y, percent=True)
        for kind, share in zip(("irrelevant", "relevant"), shares, strict=True):
            steps = "".join(
                f"V{_px(y(float(value)))}H{_px(x(float(edge)))}"
                for value, edge in zip(share, one.edges[1:], strict=True)
            )
            parts.append(tag("path", d=f"M{_px(x(low))} {_px(y(0))}{steps}V{_px(y(0))}z", class_=f"area {kind}"))
        for edge in np.linspace(low, high, 5).tolist():
            parts.append(_label(x(edge), _PLOT + 18, _number(edge), "tick mid"))
        return self._chart(parts, _PLOT + 28, title, about)

    def reliability(self, points: Sequence[ReliabilityPoint], title: str, about: str) -> Html:
        """Predicted against observed probability; the area of a dot is proportional to the number of pairs."""
        x, y = _scale(0, 1, _LEFT, WIDTH - _RIGHT), _scale(0, 1, _PLOT, 8)
        parts = self._y_axis([0, 0.5, 1], y, percent=True)
        parts.append(_line(x(0), y(0), x(1), y(1), "ideal"))
        most = max((count for _, _, count in points), default=1)
        for mean, share, count in points:
            if count:
                radius = 3 + 7 * math.sqrt(count / most)
                parts.append(tag("circle", cx=_px(x(mean)), cy=_px(y(share)), r=_px(radius), class_="bubble"))
        for tick in (0, 0.25, 0.5, 0.75, 1):
            parts.append(_label(x(tick), _PLOT + 18, f"{tick:.0%}", "tick mid"))
        return self._chart(parts, _PLOT + 28, title, about)

    def depth(self, curve: DepthCurve, title: str, about: str) -> Html:
        """The measure over depths, with the milliseconds below each."""
        values = [point.value for point in curve.points]
        low, high = min(values), max(values)
        room = max((high - low) * 0.25, 0.01)
        # Most measures are at most 1, and so is the axis then.
        low, high = max(0.0, low - room), min(1.0, high + room) if high <= 1 else high + room
        y = _scale(low, high, _PLOT, 8)
        x = _scale(0, max(1, len(values) - 1), _LEFT + 16, WIDTH - 28)
        parts = self._y_axis(np.linspace(low, high, 4).tolist(), y, digits=3)
        path = "L".join(f"{_px(x(i))} {_px(y(value))}" for i, value in enumerate(values))
        parts.append(tag("path", d=f"M{path}", class_="curve"))
        for i, point in enumerate(curve.points):
            best = point.depth == curve.best
            kind = "dot one" if best else "dot small"
            parts.append(tag("circle", cx=_px(x(i)), cy=_px(y(point.value)), r=6 if best else 3, class_=kind))
            parts.append(_label(x(i), _PLOT + 18, point.depth, "tick mid strong" if best else "tick mid"))
            parts.append(_label(x(i), _PLOT + 34, _short(point.milliseconds), "tick mid faint"))
        parts.append(_label(0, _PLOT + 34, "ms", "tick faint"))
        return self._chart(parts, _PLOT + 42, title, about)

    def _y_axis(
        self,
        ticks: Sequence[float],
        y: Callable[[float], float],
        *,
        percent: bool = False,
        signed: bool = False,
        digits: int = 2,
    ) -> list[Html]:
        parts = []
        for tick in ticks:
            shown = f"{tick:.0%}" if percent else f"{tick:+.{digits}f}" if signed and tick else f"{tick:.{digits}f}"
            parts += [
                _line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"),
                _label(_LEFT - 6, y(tick) + 4, shown, "tick end"),
            ]
        return parts

    def _chart(self, parts: Sequence[Html], height: float, title: str, about: str) -> Html:
        number = next(self._numbers)
        names = tag("title", title, id=f"chart-{number}"), tag("desc", about, id=f"about-{number}")
        labelled = f"chart-{number} about-{number}"
        return tag("svg", *names, *parts, viewBox=f"0 0 {WIDTH} {_px(height)}", role="img", aria_labelledby=labelled)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """Return a function that maps values from ``low`` to ``high`` to positions from ``start`` to ``end``."""
    factor = (end - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * factor


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return tag("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=kind)


def _label(x: float, y: float, shown: object, kind: str) -> Html:
    return tag("text", shown, x=_px(x), y=_px(y), class_=kind)


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _nice(value: float) -> float:
    """Round up to a number at which an axis may end, such as 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:,.0f}"
