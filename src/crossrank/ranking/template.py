"""``"{title} ({year}): {text}"``: fields of a document -> the text that a model reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter
from typing import Any

from crossrank.errors import InputError

# They mark a field with a value and a field without one in the outline of a template. Both are private characters of
# Unicode, so no template needs them.
_THERE, _GONE = "\ue000", "\ue001"
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"), ('"', '"'), ("“", "”"), ("«", "»"), ("‘", "’"))
_OPENING, _CLOSING = "".join(pair[0] for pair in _BRACKETS), "".join(pair[1] for pair in _BRACKETS)
# Brackets around missing fields and the template's words, with the space before them.
_EMPTY = re.compile(
    "|".join(
        rf"[ \t]*{re.escape(left)}[^{_THERE}{re.escape(left + right)}]*{_GONE}[^{_THERE}{re.escape(left + right)}]*"
        rf"{re.escape(right)}"
        for left, right in _BRACKETS
    )
)
_SEPARATOR = rf"[^\w\n{_THERE}{_GONE}{re.escape(_OPENING + _CLOSING)}]*"
_GAP = re.compile(rf"(?P<left>{_SEPARATOR})(?:{_GONE}(?P<right>{_SEPARATOR}))+")


class Template:
    """A text with fields in braces; ``{{`` and ``}}`` are braces themselves.

    A field that is missing, ``None`` or blank is left out. The template's own characters around it are removed too, so
    that the model does not read ``None``, ``()`` or ``: :``. The values of fields are never changed.

    1. A line is removed if all its fields are missing.
    2. Brackets and quotation marks are removed, with the words in them, if all fields in them are missing.
    3. One of the two separators (white space and punctuation) around a missing field stays: the right one; or the left
       one, if the right one is only white space, or the left one follows a word of the template. At the start and the
       end of a line or bracket neither stays.

    All other words stay.

    >>> template = Template("{title} ({year}): {text}")
    >>> template.fill({"title": "Emma", "text": "A novel."}.get)
    'Emma: A novel.'
    >>> template.fill({"year": 1815, "text": "A novel."}.get)
    '(1815): A novel.'

    :raises InputError: If it is not a template or has no field.
    """

    def __init__(self, template: str) -> None:
        self.template = template
        self.fields: list[str] = []
        outline: list[str] = []
        remedy = "A field is a name in braces, such as {title} or {metadata.year}; write {{ and }} for plain braces."
        if _THERE in template or _GONE in template:
            raise InputError(f"text={template!r} contains a private character of Unicode. {remedy}")
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise InputError(f"text={template!r} is not a template: {error}. {remedy}") from error
        for literal, field, form, conversion in parts:
            outline.append(literal)
            if field is None:
                continue
            if form or conversion or not re.fullmatch(r"[^\W\d][\w-]*(\.[\w-]+)*", field):
                shown = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise InputError(f"text={template!r}: {{{shown}}} is not a field. {remedy}")
            self.fields.append(field)
            outline.append(_THERE)
        if not self.fields:
            raise InputError(f"text={template!r} has no field, so all documents would have the same text. {remedy}")
        self._outline = "".join(outline)

    def fill(self, value_of: Callable[[str], Any]) -> str:
        """Insert the values.

        :param value_of: Returns the value of a field, or ``None`` if it is missing.
        """
        values = [as_text(value_of(field)) for field in self.fields]
        if all(values):
            outline = self._outline
        else:
            marks = iter(_THERE if value else _GONE for value in values)
            outline = _tidy(re.sub(_THERE, lambda _: next(marks), self._outline))
        there = iter(filter(None, values))
        return re.sub(_THERE, lambda _: next(there), outline)


def as_text(value: Any) -> str:
    """Write a value as text: ``""`` for ``None`` and blanks, lists with commas."""
    if value is None or _is_nothing(value):
        return ""
    if isinstance(value, (list, tuple, set, frozenset)):
        value = ", ".join(filter(None, map(as_text, value)))
    text = str(value)
    return text if text.strip() else ""


def _is_nothing(value: Any) -> bool:
    """Whether this is a missing value of pandas: NaN and NaT are not equal to themselves, NA can't be compared."""
    if isinstance(value, (str, int, list, tuple, dict, set, frozenset)):
        return False
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return str(value) == "<NA>"


def _tidy(outline: str) -> str:
    lines = outline.split("\n")
    lines = [line for line in lines if _GONE not in line or _THERE in line]
    outline = "\n".join(lines)
    before = None
    while before != outline:  # brackets in brackets
        before, outline = outline, _EMPTY.sub(_GONE, outline)
    return _GAP.sub(_joined, outline)


def _joined(gap: re.Match[str]) -> str:
    whole = gap.string
    at_start = gap.start() == 0 or whole[gap.start() - 1] in "\n" + _OPENING
    at_end = gap.end() == len(whole) or whole[gap.end()] in "\n" + _CLOSING
    if at_start or at_end:
        return ""
    left, right = gap["left"], gap["right"]
    after_word = whole[gap.start() - 1] not in _THERE + _CLOSING
    return left if left and (after_word or not right.strip()) else right
