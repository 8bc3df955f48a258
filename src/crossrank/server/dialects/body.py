"""The parts all dialects share: read a body, hold the question, hold the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossrank.validation import FieldError

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A request's question, independent of its dialect.

    :param pairs: ``(query, document)``, the texts to score.
    :param documents: The documents as they were sent.
    :param top_n: How many documents to return; ``None`` for all.
    :param raw: Return logits instead of scores.
    """

    pairs: Sequence[tuple[str, str]]
    documents: Sequence[Any]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Answer:
    """The result, independent of its dialect.

    :param question: The request's question.
    :param order: Indices of the documents that are returned, best first; not yet cut to ``top_n``.
    :param scores: A score for each document, by index.
    :param facts: The fields under ``crossrank``, and the model, the request's id, and warnings.
    """

    question: Question
    order: Sequence[int]
    scores: Sequence[float]
    tokens: int
    facts: Mapping[str, Any]

    @property
    def best(self) -> Sequence[int]:
        """Indices of the documents to return, best first."""
        return self.order[: self.question.top_n]

    @property
    def usage(self) -> dict[str, int]:
        """Token counts as OpenAI's and Jina's clients read them."""
        return {"prompt_tokens": self.tokens, "completion_tokens": 0, "total_tokens": self.tokens}


@dataclass(frozen=True)
class Dialect:
    """The request and response format of one service.

    :param keys: Fields of the body that identify this dialect; one is enough.
    :param parse: Turns a body without nulls into a question.
    :param render: Turns an answer into the JSON of the response.
    :param error: Turns a status, a message and a field's name into the JSON of the response.
    :param example: An example body for the documentation.
    :param needs: Another field that the body must have.
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


# ---- reading fields; nulls are already removed -------------------------------------------------------------------


def question(body: Body, name: str, **options: Any) -> Question:
    """Read one query with a list of documents.

    :param name: The documents' field.
    :param options: Other fields of :class:`Question` that the dialect read.
    """
    query, documents = text(body, "query"), texts(body, name)
    pairs = [(query, document) for document in documents]
    return Question(pairs, documents, **{"model": name_of_model(body), "top_n": count(body, "top_n"), **options})


def text(body: Body, name: str) -> str:
    """Read a required text that is not empty."""
    value = body.get(name)
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, str):
        raise FieldError(f"{name} is {'missing' if name not in body else 'not a string'}. Send the text.", name)
    if not value.strip():
        raise FieldError(f"{name} is empty. Send the text to rank by.", name)
    return value


def texts(body: Body, name: str, fields: Sequence[str] = ()) -> list[str]:
    """Read a list of documents: strings, or objects with a text.

    :param fields: The fields of an object to read instead of ``text``.
    """
    return [document_text(item, f"{name}[{i}]", fields) for i, item in enumerate(items(body, name))]


def items(body: Body, name: str) -> list[Any]:
    """Read a required list; a string counts as a list of one."""
    value = body.get(name)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise FieldError(f"{name} is {'missing' if name not in body else 'not a list'}. Send a list of strings.", name)
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
    """Read the model's name; an empty one counts as missing."""
    value = body.get("model", body.get("model_name", body.get("model_id")))
    return value if isinstance(value, str) and value else None


def count(body: Body, name: str) -> int | None:
    """Read how many documents to return; 0 means all."""
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
    """Read a boolean, which may be written as a string or a number."""
    value = body.get(name, default)
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes", "on")
    return bool(value)
