"""What is sent to a judge: rules, a query and documents, with walls between them that a document can't know.

Each request has a random marker and random ids of its own. A text that holds one of them by chance gets others.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from crossrank.errors import InputError
from crossrank.ranking.network.wire_text import sendable

_SECTIONS = ("system", "user")
_HEADING = re.compile(r"^=== *(\w+) *===[ \t]*$", re.MULTILINE)
_FIELD = re.compile(r"\{\{ *(\w+) *\}\}")
_FIELDS = frozenset({"query", "documents", "marker", "ids"})
_NEEDED = frozenset({"query", "documents", "ids"})
_VERSIONS = {"grade": "grade.v1", "listwise": "listwise.v1"}

# Words with which chat templates divide roles. Some servers read them in a message's text as the real thing, so a text
# that holds one gets a space in it.
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^\s<>]{1,40}[|\uff5c]>)"  # <|im_start|>, <|eot_id|>, and with the wide bar
    r"|<(?=/?(?:s|bos|eos|start_of_turn|end_of_turn|start_of_image|think)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=</?SYS>>)"
)


@dataclass(frozen=True)
class Prompt:
    """The rules of a judge, with places for what is judged.

    :param name: Such as ``"grade.v1"``, or the file's name.
    :param system: What the judge is told before.
    :param user: What holds the query and the documents.
    """

    name: str
    system: str
    user: str

    @property
    def fingerprint(self) -> str:
        """Changes with the wording."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Request:
    """One message to a judge.

    :param messages: As the chat protocol has them.
    :param ids: ``[documents]``, the id of each in this request.
    """

    messages: list[dict[str, str]]
    ids: tuple[str, ...]


def load_prompt(mode: str, given: str | Path | None = None) -> Prompt:
    """The prompt of a mode, or the caller's own: a path to a file, or its text.

    :raises InputError: If there is no such file, a section or a field is missing, or there is a field of another name.
    """
    if given is None:
        name = _VERSIONS[mode]
        text = (files("crossrank.ranking.judge") / "prompts" / f"{name}.md").read_text(encoding="utf-8")
    elif isinstance(given, str) and ("\n" in given or _HEADING.search(given)):
        name, text = "custom", given
    else:
        name = Path(given).name
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"prompt={str(given)!r} can't be read: {error}. Give the path of a text file, or its text."
            ) from None
    return _parse(name, text)


def _parse(name: str, text: str) -> Prompt:
    parts = _HEADING.split(text)
    sections = {parts[i]: parts[i + 1].strip() for i in range(1, len(parts), 2)}
    if sorted(sections) != sorted(_SECTIONS) or len(parts) != 5:
        raise InputError(
            f"The prompt {name!r} has the sections {parts[1::2]}; it needs one of each: '=== system ===' with the "
            "rules, and '=== user ===' with the query and the documents."
        )
    named = set(_FIELD.findall(text[text.index("===") :]))
    missing = _NEEDED - set(_FIELD.findall(sections["user"]))
    if named - _FIELDS or missing:
        wrong = f"does not know {sorted(named - _FIELDS)}" if named - _FIELDS else f"lacks {sorted(missing)}"
        raise InputError(
            f"The prompt {name!r} {wrong}. Its user section needs {{{{query}}}}, {{{{documents}}}} and {{{{ids}}}}; "
            "{{marker}} may stand anywhere."
        )
    return Prompt(name, sections["system"], sections["user"])


def make_request(prompt: Prompt, query: str, documents: Sequence[str], complaint: str = "") -> Request:
    """Put a query and documents into a prompt.

    :param documents: As they are to be read; already cut.
    :param complaint: What was wrong with the last answer, in our own words, never the judge's.
    """
    texts = [query, *documents]
    marker = _fresh("mark-", 8, texts)
    ids: list[str] = []
    for _ in documents:
        ids.append(_fresh("d", 4, [*texts, marker, *ids]))
    query, *documents = (tame(text) for text in texts)
    blocks = [
        f"[{marker} begin document, id {identity}]\n{text}\n[{marker} end document, id {identity}]"
        for identity, text in zip(ids, documents, strict=True)
    ]
    values = {
        "marker": marker,
        "query": query,
        "documents": "\n\n".join(blocks),
        "ids": ", ".join(f'"{identity}"' for identity in ids),
    }
    # One pass: fields in what was filled in stay what they are.
    system, user = (_FIELD.sub(lambda field: values[field[1]], part) for part in (prompt.system, prompt.user))
    if complaint:
        user += f"\n\nYour last answer could not be used: {complaint}. Keep to the form."
    return Request([{"role": "system", "content": system}, {"role": "user", "content": user}], tuple(ids))


def tame(text: str) -> str:
    """The text with a space in each word that a chat template might take for its own."""
    return _CONTROL.sub(lambda found: found[0] + " ", sendable(text))


def cut(text: str, most: int) -> str:
    """The beginning of a text, of at most so many characters, cut between words where one ends near."""
    if len(text) <= most:
        return text
    space = text.rfind(" ", most - most // 10, most + 1)
    return text[: most if space < 1 else space]


def _fresh(start: str, size: int, texts: Iterable[str]) -> str:
    """A word that is in none of the texts and that nobody could foresee."""
    known = list(texts)
    while True:
        word = start + secrets.token_hex(size)
        if not any(word in text for text in known):
            return word
