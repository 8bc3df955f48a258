"""HTML that its contents can't break: everything that is not :class:`Html` is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

# Characters that HTML does not allow: control characters other than white space.
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "\ufffd")


class Html(str):
    """Markup that needs no escaping."""

    __slots__ = ()


def text(value: object) -> Html:
    """Escape a value, unless it is markup."""
    return value if isinstance(value, Html) else Html(html.escape(str(value).translate(_CONTROLS), quote=True))


def join(*parts: object) -> Html:
    """Put parts one after the other."""
    return Html("".join(map(text, parts)))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Make an element.

    :param attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; ``None`` leaves one out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def table(head: Sequence[object], rows: Sequence[Sequence[object]], *, caption: str, class_: str | None = None) -> Html:
    """Make a table whose first column names its rows. On a narrow screen the table scrolls by itself."""
    header = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    made = tag("table", tag("caption", caption), tag("thead", header), tag("tbody", *body), class_=class_)
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)
