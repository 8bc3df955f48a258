"""An application's documents -> texts and first-stage scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

from crossrank.data.text_lines import TEXT_FIELDS, document_id
from crossrank.errors import InputError
from crossrank.pairs import PreparedId
from crossrank.ranking.template import Template, as_text
from crossrank.validation import shown

# Where LangChain and LlamaIndex, Haystack, and vector stores keep a document's other fields.
_HOLDERS = ("metadata", "meta", "payload", "fields")

TextOf = Callable[[Any], str] | str
ScoreOf = Callable[[Any], float | None] | str
_MISSING = object()


@dataclass(frozen=True)
class Candidate:
    """A document to rank.

    :param document: The caller's object; without its score if it came as a ``(document, score)`` tuple.
    :param text: The text that stages read.
    :param first_stage_score: From the search that found it, if known.
    """

    document: Any
    text: str
    first_stage_score: float | None


class DocumentReader:
    """Reads documents of any kind.

    Strings, dictionaries, objects with one of :data:`TEXT_FIELDS`, documents of LangChain, Haystack and LlamaIndex
    (nodes with or without a score), and tuples ``(document, score)`` of any of these.

    A field is a dictionary's key or an object's attribute. If there is none of that name, it is looked up in
    ``metadata``, ``meta``, ``payload`` and ``fields``. ``{metadata.year}`` names the place explicitly.

    :param text: A function from a document to its text; a field's name; or a :class:`Template` such as
        ``"{title} ({year}): {text}"``, in which ``{text}`` is the document's text, whatever its field is called.
    :param score: A function from a document to its first-stage score, higher is better, or a field's name. By default
        the second element of a tuple, else the field ``score``.
    :param ids: If a dictionary has no text, use its id, as a :class:`~crossrank.pairs.PreparedId`.
    :raises InputError: If an argument can't be used.
    """

    def __init__(self, text: TextOf | None = None, score: ScoreOf | None = None, *, ids: bool = False) -> None:
        if not (text is None or callable(text) or (isinstance(text, str) and text)):
            raise InputError(
                f"text={text!r} is not a function, a field's name, or a template such as '{{title}}: {{text}}'."
            )
        if not (score is None or callable(score) or (isinstance(score, str) and score)):
            raise InputError(f"score={score!r} is not a function or a field's name.")
        self._text = Template(text) if isinstance(text, str) and ("{" in text or "}" in text) else text
        self._score = score
        self._ids = ids

    def read(self, documents: Iterable[Any]) -> list[Candidate]:
        """Read a list of documents.

        :raises InputError: If ``documents`` is not a list, or a document has no text.
        """
        if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Iterable):
            raise InputError(
                f"documents is {shown(documents)}; a list of documents is expected. For one, pass [document]."
            )
        if hasattr(documents, "columns") and hasattr(documents, "iloc"):
            raise InputError(
                "documents is a data frame. Iterating over it gives column names, so pass its rows: "
                "frame.to_dict('records')."
            )
        return [self._candidate(i, given) for i, given in enumerate(documents)]

    def unknown(self, candidates: Sequence[Candidate]) -> list[str]:
        """Fields of the template that no document has, most likely because of a typo."""
        if not isinstance(self._text, Template) or not candidates:
            return []
        return [
            field
            for field in dict.fromkeys(self._text.fields)
            if all(_value(candidate.document, field) is _MISSING for candidate in candidates)
        ]

    def _candidate(self, i: int, given: Any) -> Candidate:
        if isinstance(given, str) and self._text is None and self._score is None:
            return Candidate(given, given, None)
        document, score = given if _is_scored(given) else (given, None)
        return Candidate(document, self._text_of(i, document), self._score_of(i, document, score))

    def _text_of(self, i: int, document: Any) -> str:
        where = f"documents[{i}]"
        if self._text is None:
            text = _default_text(document)
            if text is None and self._ids and isinstance(document, Mapping):
                identifier = document_id(document)
                text = None if identifier is None else PreparedId(identifier)
            if text is None:
                raise InputError(
                    f"{where} is {shown(document)} and has no text in {', '.join(TEXT_FIELDS)}{_fields_of(document)}. "
                    "Set text= to a function, a field's name or a template."
                )
            return text
        if isinstance(self._text, Template):
            if all(_value(document, field) is _MISSING for field in self._text.fields):
                raise InputError(
                    f"{where} has no field of text={self._text.template!r}{_fields_of(document)}. Check the spelling."
                )
            return self._text.fill(lambda field: _none_if_missing(_value(document, field)))
        if isinstance(self._text, str):
            value = _value(document, self._text)
            if value is _MISSING:
                raise InputError(f"{where} has no field text={self._text!r}{_fields_of(document)}. Check the spelling.")
            return as_text(value)
        text = _called(self._text, document, f"text= on {where}")
        if not isinstance(text, str):
            raise InputError(f"text= returned {shown(text)} for {where}, not a string.")
        return text

    def _score_of(self, i: int, document: Any, given: Any) -> float | None:
        if callable(self._score):
            value = _called(self._score, document, f"score= on documents[{i}]")
        elif self._score is not None:
            value = _none_if_missing(_value(document, self._score))
        elif given is not None:
            return _number(given)
        else:
            value = _none_if_missing(_value(document, "score"))
            # A field of this name may contain anything, such as a musical score. That is not an error.
            return _number(value) if _is_number(value) else None
        if value is not None and not _is_number(value):
            raise InputError(f"The first-stage score of documents[{i}] is {shown(value)}, not a number.")
        return None if value is None else _number(value)


def _is_scored(given: Any) -> bool:
    """Whether this is a document with its score, rather than a document with two fields."""
    if not (isinstance(given, tuple) and len(given) == 2 and _is_number(given[1])):
        return False
    names = getattr(given, "_fields", ())
    # A named tuple with a text field is a document. A database row of a document and a score is not.
    return not any(name in TEXT_FIELDS for name in names) or _default_text(given) is None


def _default_text(document: Any) -> str | None:
    if isinstance(document, str):
        return document
    if isinstance(document, Mapping):
        return next((text for name in TEXT_FIELDS if isinstance(text := document.get(name), str)), None)
    # LlamaIndex: a node, or a node with its score.
    node = getattr(document, "node", document)
    if callable(content := getattr(node, "get_content", None)):
        text = content()
        return text if isinstance(text, str) else None
    return next((text for name in TEXT_FIELDS if isinstance(text := _direct(document, name), str)), None)


def _value(document: Any, field: str) -> Any:
    found = _path(document, field)
    if found is _MISSING and hasattr(document, "node"):
        found = _path(document.node, field)
    if found is _MISSING and field == "text":
        text = _default_text(document)
        found = _MISSING if text is None else text
    return found


def _path(document: Any, field: str) -> Any:
    first, _, rest = field.partition(".")
    found = _direct(document, first)
    if found is _MISSING:
        holders = (_direct(document, name) for name in _HOLDERS)
        found = next((holder[first] for holder in holders if isinstance(holder, Mapping) and first in holder), _MISSING)
    return found if found is _MISSING or not rest else _path(found, rest)


def _direct(document: Any, name: str) -> Any:
    if isinstance(document, Mapping):
        return document.get(name, _MISSING)
    if isinstance(document, str) or name.startswith("_"):
        return _MISSING
    try:
        value = getattr(document, name, _MISSING)
    except Exception:  # a property that fails, as of a LlamaIndex node without text
        return _MISSING
    return _MISSING if callable(value) else value


def _fields_of(document: Any) -> str:
    if isinstance(document, str):
        return "; it is a string"
    names = list(document) if isinstance(document, Mapping) else list(getattr(document, "__dict__", ()))
    public = [str(name) for name in names if not str(name).startswith("_")]
    return f"; its fields: {', '.join(public[:12])}" if public else ""


def _called(function: Callable[[Any], Any], document: Any, what: str) -> Any:
    try:
        return function(document)
    except Exception as error:
        raise InputError(f"The function {what} failed: {type(error).__name__}: {error}") from error


def _none_if_missing(value: Any) -> Any:
    return None if value is _MISSING else value


def _is_number(value: Any) -> bool:
    # Databases return decimals, which are not Real in Python.
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
