"""The messages to a judge: rules, a query and documents, separated by markers that no document can know.

Each request has a new random marker and new random ids. None of them occurs in the texts.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from crossrank.errors import InputError
from crossrank.validation import encodable

_SECTIONS = ("system", "user")
_HEADING = re.compile(r"^=== *(\w+) *===[ \t]*$", re.MULTILINE)
_FIELD = re.compile(r"\{\{ *(\w+) *\}\}")
_FIELDS = frozenset({"query", "documents", "marker", "ids"})
_NEEDED = frozenset({"query", "documents", "ids"})
_VERSIONS = {"grade": "grade.v1", "listwise": "listwise.v1"}

# Tokens with which chat templates separate roles. Some servers interpret them within a message too, so a text that
# contains one gets a space in it.
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^\s<>]{1,40}[|\uff5c]>)"  # <|im_start|>, <|eot_id|>, also with the full-width bar
    r"|<(?=/?(?:s|bos|eos|start_of_turn|end_of_turn|start_of_image|think)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=</?SYS>>)"
)


@dataclass(frozen=True)
class JudgePrompt:
    """The rules of a judge, with fields for the query and the documents.

    :param name: Such as ``"grade.v1"``, or the file's name.
    :param system: The system message.
    :param user: The user message, with the query and the documents.
    """

    name: str
    system: str
    user: str

    @property
    def fingerprint(self) -> str:
        """Changes when the wording changes."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()[:16]


def load_prompt(mode: str, given: str | Path | None = None) -> JudgePrompt:
    """Load the prompt of a mode, or the caller's own: a path to a file, or its text.

    :raises InputError: If the file can't be read, a section or a field is missing, or a field is unknown.
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


def _parse(name: str, text: str) -> JudgePrompt:
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
        wrong = f"has unknown fields {sorted(named - _FIELDS)}" if named - _FIELDS else f"lacks {sorted(missing)}"
        raise InputError(
            f"The prompt {name!r} {wrong}. Its user section needs {{{{query}}}}, {{{{documents}}}} and {{{{ids}}}}; "
            "{{marker}} is allowed anywhere."
        )
    return JudgePrompt(name, sections["system"], sections["user"])


def make_request(
    prompt: JudgePrompt, query: str, documents: Sequence[str], complaint: str = ""
) -> tuple[list[dict[str, str]], list[str]]:
    """Insert a query and documents into a prompt.

    :param documents: Already cut.
    :param complaint: What was wrong with the last answer. It never quotes the judge.
    :returns: The messages in the format of the chat protocol, and ``[documents]``, their ids in this request.
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
    # One pass: braces in the query or a document are not fields.
    system, user = (_FIELD.sub(lambda field: values[field[1]], part) for part in (prompt.system, prompt.user))
    if complaint:
        user += f"\n\nYour last answer could not be used: {complaint}. Follow the format."
    return [{"role": "system", "content": system}, {"role": "user", "content": user}], ids


def tame(text: str) -> str:
    """Insert a space into each token that a chat template might interpret."""
    return _CONTROL.sub(lambda found: found[0] + " ", encodable(text))


def cut(text: str, most: int) -> str:
    """Return the beginning of a text, at most ``most`` characters, cut between words if possible."""
    if len(text) <= most:
        return text
    space = text.rfind(" ", most - most // 10, most + 1)
    return text[: most if space < 1 else space]


def _fresh(start: str, size: int, texts: Sequence[str]) -> str:
    """Make a random word that occurs in none of the texts."""
    while True:
        word = start + secrets.token_hex(size)
        if not any(word in text for text in texts):
            return word
