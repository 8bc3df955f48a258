"""Tools for agents over the Model Context Protocol: rank texts and files, explain scores. ``crossrank mcp`` runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from crossrank.errors import CrossRankError, InputError
from crossrank.evaluation.explain import Span, explain
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder

__all__ = ["make_server"]

# The largest file that is read, and how many documents one call may have.
MOST_BYTES = 5_000_000
MOST_DOCUMENTS = 1000
# What comes back of a document: its best passage, cut, so that an answer stays small.
_SHOWN = 600
_SPANS = 8


def make_server(model: CrossEncoder, folder: str | Path) -> MCPServer:
    """Make the server; ``.run()`` serves on standard input and output.

    :param model: Which scores. It is loaded at the first call.
    :param folder: Files are read only in here.
    :raises InputError: If there is no such folder.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(f"There is no folder {str(folder)!r} (seen from {str(Path.cwd())!r}). Check the path.")
    tools = _Tools(model, root)
    server = MCPServer(
        "crossrank",
        instructions="Orders texts or files by how well they answer a query, and shows which words a score rests on.",
        log_level="ERROR",
    )
    reads_only = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (tools.rerank, tools.explain):
        server.tool(annotations=reads_only)(_told(tool))
    return server


def _told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Let the agent read what it did wrong."""

    @wraps(tool)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return tool(*args, **kwargs)
        except CrossRankError as error:
            raise ToolError(str(error)) from error

    return run


@dataclass(frozen=True)
class _Tools:
    """What agents can call; they read the descriptions here."""

    model: CrossEncoder
    root: Path

    def rerank(
        self,
        query: Annotated[str, Field(description="What is asked, in words")],
        documents: Annotated[list[str] | None, Field(description="The texts to order")] = None,
        files: Annotated[list[str] | None, Field(description="Paths of text files, each one document")] = None,
        top_k: Annotated[int, Field(ge=1, description="How many to return")] = 10,
    ) -> dict[str, Any]:
        """Order texts or text files by how well they answer a query, best first.

        Long ones are read in windows. Each result has a score from 0 to 1, the best passage, and where it comes from:
        `index` counts `documents` and then `files` from 0.
        """
        documents, files = documents or [], files or []
        given = len(documents) + len(files)
        if not query.strip():
            raise InputError("The query is empty. Give the question in words.")
        if given == 0:
            raise InputError("There is nothing to order. Give documents (texts), or files (paths).")
        if given > MOST_DOCUMENTS:
            raise InputError(f"There are {given} documents; the limit is {MOST_DOCUMENTS}. Give them in several calls.")
        texts = [*documents, *(self.read(file) for file in files)]
        reranker = Reranker(CrossEncoderStage(self.model, long_documents="max"))
        results = []
        for ranked in reranker.rank(query, texts, top_k=top_k):
            index = ranked.first_stage_position
            file = {"file": files[index - len(documents)]} if index >= len(documents) else {}
            results.append({"index": index, **file, "score": ranked.score, "passage": _cut(ranked.passage_text)})
        return {"model": self.model.name, "documents": given, "results": results}

    def explain(
        self,
        query: Annotated[str, Field(description="What is asked, in words")],
        document: Annotated[str | None, Field(description="The text")] = None,
        file: Annotated[str | None, Field(description="Or the path of a text file")] = None,
    ) -> dict[str, Any]:
        """Show which words and sentences of a document its score rests on.

        A weight is what the raw score loses when that part alone is left out; below 0 it rises.
        """
        if (document is None) == (file is None):
            raise InputError("Give either document, a text, or file, a path.")
        found = explain(self.model, query, document if document is not None else self.read(str(file)))
        cut = f" The last {found.tokens_cut} tokens were not read and have no weight." if found.tokens_cut else ""
        return {
            "model": self.model.name,
            "raw_score": found.logit,
            "query_words": _heaviest(found.query_spans),
            "sentences": _heaviest(found.sentences),
            "words": _heaviest(found.words),
            "tokens_cut": found.tokens_cut,
            "note": f"Weights do not add up; what occurs twice hides itself.{cut}",
        }

    def read(self, name: str) -> str:
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise InputError(f"{name!r} is not in {str(self.root)!r}, where files may be read. Give a path in there.")
        try:
            with path.open("rb") as stream:
                raw = stream.read(MOST_BYTES + 1)
        except OSError as error:
            raise InputError(f"{name!r} can't be read: {error.strerror}. Paths start at {str(self.root)!r}.") from error
        if len(raw) > MOST_BYTES:
            raise InputError(f"{name!r} is larger than {MOST_BYTES} bytes. Give parts of it as documents.")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{name!r}: byte {error.start + 1} is not UTF-8. Give a text file in UTF-8.") from error


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1].rstrip() + "…"


def _heaviest(spans: Sequence[Span]) -> list[dict[str, Any]]:
    heaviest = sorted(spans, key=lambda span: -abs(span.weight))[:_SPANS]
    return [{"text": _cut(span.text), "start": span.start, "weight": span.weight} for span in heaviest]
