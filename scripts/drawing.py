"""Charts as plain SVG, whose text stays sharp and whose files are small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"text": "#1f2328", "muted": "#59636e", "ours": "#0969da", "other": "#afb8c1"},
    "dark": {"text": "#f0f6fc", "muted": "#9198a1", "ours": "#4493f8", "other": "#59636e"},
}
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
WIDTH, LABEL, ROW, BAR = 760, 300, 30, 18

Row = tuple[str, float, bool]  # label, value, whether it is ours


def bars(title: str, rows: Sequence[Row], caption: Sequence[str], unit: str, theme: Mapping[str, str]) -> str:
    """A chart of horizontal bars, the longest on top.

    :param rows: Label, value, and whether the bar is ours.
    :param caption: Lines below the chart.
    """
    longest = max(value for _, value, _ in rows)
    room = WIDTH - LABEL - 110
    height = 56 + ROW * len(rows) + 18 * len(caption) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}" font-family="{FONT}">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="22" font-size="16" font-weight="600" fill="{theme["text"]}">{escape(title)}</text>',
    ]
    for place, (label, value, ours) in enumerate(rows):
        y = 44 + ROW * place
        weight = ' font-weight="600"' if ours else ""
        width = max(2.0, room * value / longest)
        parts += [
            f'<text x="{LABEL - 12}" y="{y + 14}" font-size="13" text-anchor="end" fill="{theme["text"]}"{weight}>'
            f"{escape(label)}</text>",
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3" '
            f'fill="{theme["ours" if ours else "other"]}"/>',
            f'<text x="{LABEL + width + 8:.1f}" y="{y + 14}" font-size="13" fill="{theme["text"]}"{weight}>'
            f"{number(value)}{escape(unit)}</text>",
        ]
    start = 44 + ROW * len(rows) + 22
    parts += [
        f'<text x="0" y="{start + 18 * i}" font-size="12" fill="{theme["muted"]}">{escape(line)}</text>'
        for i, line in enumerate(caption)
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def plot(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    caption: Sequence[str],
    axes: tuple[str, str],
    theme: Mapping[str, str],
    *,
    ticks: tuple[Sequence[float], Sequence[float]],
    ours: Sequence[str],
    level: tuple[str, float] | None = None,
) -> str:
    """Lines, or single points, by name; the horizontal axis is logarithmic.

    :param series: Name -> points ``(x, y)``; a name stands beside the last point of a line, or above a single point.
    :param axes: What the two axes show.
    :param ticks: Values that are marked on each axis; the outer ones are its ends.
    :param ours: Names in the strong colour.
    :param level: A dashed line across, and its name.
    """
    left, top, wide, high = 64, 44, WIDTH - 64 - 190, 230
    height = top + high + 46 + 18 * len(caption) + 8
    (across, up), (least, most) = ticks, (ticks[1][0], ticks[1][-1])
    span = math.log(across[-1] / across[0])

    def at(x: float, y: float) -> tuple[float, float]:
        return left + wide * math.log(x / across[0]) / span, top + high * (most - y) / (most - least)

    def text(x: float, y: float, words: str, size: int, colour: str, anchor: str = "start") -> str:
        return (
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{theme[colour]}">'
            f"{escape(words)}</text>"
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}" font-family="{FONT}">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="22" font-size="16" font-weight="600" fill="{theme["text"]}">{escape(title)}</text>',
    ]
    for y in up:
        row = at(across[0], y)[1]
        parts.append(f'<path d="M{left} {row:.1f}h{wide}" stroke="{theme["other"]}" stroke-opacity="0.4"/>')
        parts.append(text(left - 8, row + 4, f"{y:.2f}".lstrip("0"), 12, "muted", "end"))
    parts += [text(at(x, least)[0], top + high + 18, f"{x:g}", 12, "muted", "middle") for x in across]
    parts.append(text(left + wide / 2, top + high + 38, f"{axes[0]}; upwards: {axes[1]}", 12, "muted", "middle"))
    if level is not None:
        row = at(across[0], level[1])[1]
        parts.append(f'<path d="M{left} {row:.1f}h{wide}" stroke="{theme["text"]}" stroke-dasharray="5 4"/>')
        parts.append(text(left + wide + 8, row + 4, level[0], 12, "text"))
    for name, points in series.items():
        colour = theme["ours" if name in ours else "muted"]
        places = [at(*point) for point in points]
        if len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        # A single point has its name above, where it does not run into the next one.
        parts.append(
            text(x + 10, y + 4, name, 12, "text") if len(places) > 1 else text(x, y - 10, name, 12, "text", "middle")
        )
    parts += [text(0, top + high + 64 + 18 * i, line, 12, "muted") for i, line in enumerate(caption)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def number(value: float) -> str:
    """Two significant digits below ten, else a whole number with commas."""
    return f"{value:.1f}" if value < 10 else f"{round(value):,}"
