"""What dialects have in common: reading a body, the question in it, the answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossrank.validation import FieldError

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What a request asks, whatever dialect it is in.

    :param pairs: ``(query, document)``, the texts to score.
    :param documents: The documents as they were sent.
    :param top_n: How many to answer with; ``None`` for all.
    :param raw: Whether logits are asked for, not scores.
    """

    pairs: Sequence[tuple[str, str]]
    documents: Sequence[Any]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Answer:
    """What came out, whatever dialect it will be told in.

    :param question: What was asked.
    :param order: Indices of the documents that are returned, best first; not yet cut to ``top_n``.
    :param scores: A score for each document, by index.
    :param facts: What stands under ``crossrank``: also the model, the request's id, and warnings.
    """

    question: Question
    order: Sequence[int]
    scores: Sequence[float]
    tokens: int
    facts: Mapping[str, Any]

    @property
    def best(self) -> Sequence[int]:
        """Indices of the documents to answer with, best first."""
        return self.order[: self.question.top_n]

    @property
    def usage(self) -> dict[str, int]:
        """Token counts as OpenAI's and Jina's clients read them."""
        return {"prompt_tokens": self.tokens, "completion_tokens": 0, "total_tokens": self.tokens}


@dataclass(frozen=True)
class Dialect:
    """One service's way to ask and to answer.

    :param keys: Fields of the body any of which tells that a request is in it.
    :param parse: From a body without nulls to a question.
    :param render: From an answer to what is sent as JSON.
    :param error: From a status, a message and a field's name to what is sent as JSON.
    :param example: A body, for the documentation.
    :param needs: A field that must be there, too.
    """

    name: str
    keys: frozenset[str]
    parse: Callable[[Body], Question]
    render: Callable[[Answer], Any]
    error: Callable[[int, str, str | None], Any]
    example: Body = field(default_factory=dict)
    needs: str | None = None

    def matches(self, body: Body) -> bool:
        """Whether a body is in this dialect."""
        return not self.keys.isdisjoint(body) and (self.needs is None or self.needs in body)


def detail(status: int, message: str, field: str | None) -> dict[str, Any]:
    """An error as a string under ``detail``, as many clients read it."""
    return {"detail": message}


# ---- reading fields; nulls are gone before -----------------------------------------------------------------------


def question(body: Body, name: str, **options: Any) -> Question:
    """Read one query with a list of documents.

    :param name: The documents' field.
    :param options: What else the dialect read, as :class:`Question` has it.
    """
    query, documents = text(body, "query"), texts(body, name)
    pairs = [(query, document) for document in documents]
    return Question(pairs, documents, **{"model": name_of_model(body), "top_n": count(body, "top_n"), **options})


def text(body: Body, name: str) -> str:
    """Read a text that must be there and say something."""
    value = body.get(name)
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, str):
        raise FieldError(f"{name} is {'missing' if name not in body else 'no string'}. Send the text.", name)
    if not value.strip():
        raise FieldError(f"{name} is empty. Send the text to rank by.", name)
    return value


def texts(body: Body, name: str, fields: Sequence[str] = ()) -> list[str]:
    """Read a list of documents: strings, or objects with a text.

    :param fields: Of objects, the fields to read instead of ``text``.
    """
    return [document_text(item, f"{name}[{i}]", fields) for i, item in enumerate(items(body, name))]


def items(body: Body, name: str) -> list[Any]:
    """Read a list that must be there; a string is a list of one."""
    value = body.get(name)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise FieldError(f"{name} is {'missing' if name not in body else 'no list'}. Send a list of strings.", name)
    return value


def document_text(item: Any, name: str, fields: Sequence[str] = ()) -> str:
    """Read the text of one document."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        if fields:
            return "\n".join(f"{key}: {item[key]}" for key in fields if item.get(key) is not None)
        for key in ("text", "content", "page_content", "document"):
            if isinstance(item.get(key), str):
                return str(item[key])
        raise FieldError(f"{name} has no field 'text'. Send a string, or an object with 'text'.", name)
    raise FieldError(f"{name} is of type {type(item).__name__}, not a string. Send its text.", name)


def name_of_model(body: Body) -> str | None:
    """Read the model's name; an empty one is none."""
    value = body.get("model", body.get("model_name", body.get("model_id")))
    return value if isinstance(value, str) and value else None


def count(body: Body, name: str) -> int | None:
    """Read how many are wanted; 0 is all."""
    value = body.get(name)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FieldError(f"{name} is {str(value)[:40]!r}, not a positive number. Leave it out for all documents.", name)
    return value


def flag(body: Body, name: str, default: bool = False) -> bool:
    """Read a switch, also one that is written as a string or a number."""
    value = body.get(name, default)
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes", "on")
    return bool(value)
