"""The page at ``/``: its files, and its data on models, versions and decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.errors import CrossRankError
from crossrank.server.logs import log
from crossrank.server.models import Entry
from crossrank.server.routes.reading import HttpError, read_body

if TYPE_CHECKING:
    from crossrank.server.app import State

_FOLDER = Path(__file__).parents[1] / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Path -> file. Links in the page are relative, so that it also works under a proxy's prefix.
FILES = {
    "/" if one.name == "index.html" else f"/page/{one.name}": one.name
    for one in _FOLDER.iterdir()
    if one.suffix in _KINDS
}
# Only the page's own files load and run, so scripts in texts can't.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
# The number of latest decisions to show.
_DECISIONS = 50


def file(name: str) -> Callable[[Request, State], Awaitable[Response]]:
    """Return one of the page's files."""
    path = _FOLDER / name
    content, kind = path.read_bytes(), _KINDS[path.suffix]

    async def answer(request: Request, state: State) -> Response:
        return Response(content, 200, _HEADERS, kind)  # the charset of text/* is UTF-8

    return answer


async def facts(request: Request, state: State) -> Response:
    """The page's data: the models, their versions, the decisions on them, whether feedback is stored."""
    models = [await asyncio.to_thread(_facts, entry) for entry in state.store.entries.values()]
    served = state.store.facts()
    return JSONResponse(
        {
            "version": state.version,
            "default": state.store.default,
            "models": [{"name": one["name"], **served[one["name"]], **one} for one in models],
            "feedback": state.feedback is not None,
            "keys": state.keys.required,
        }
    )


async def rollback(request: Request, state: State) -> Response:
    """Switch a registry's model to an earlier version: ``{"model": NAME, "to": VERSION}``. Needs an API key."""
    if not state.keys.required:
        raise HttpError(403, "This server has no API keys, so nobody may roll back here. Start it with --keys-file.")
    body = await read_body(request, state.settings.max_body_bytes, state.settings.body_seconds)
    name, to = body.get("model", state.store.default), body.get("to")
    entry = state.store.entries.get(name) if isinstance(name, str) else None
    if entry is None or entry.registry is None:
        of = ", ".join(one.name for one in state.store.entries.values() if one.registry) or "none"
        raise HttpError(404, f"There is no model {str(name)[:200]!r} from a registry here. There are: {of}.", "model")
    if to is not None and not isinstance(to, str):
        raise HttpError(422, f"to is {str(to)[:40]!r}, not a version's name. Leave it out for the one before.", "to")
    version = await asyncio.to_thread(entry.registry.rollback, to)
    log.info("rolled back", extra={"facts": {"model": entry.name, "version": version.name}})
    loaded = await state.store.load(entry)
    if loaded.version != version.name:
        await state.store.reload(entry.name)
    serving = entry.loaded.version if entry.loaded else None
    return JSONResponse({"model": entry.name, "in_use": version.name, "serving": serving, "error": entry.error})


def _facts(entry: Entry) -> dict[str, Any]:
    """All versions of a model from a registry. If the registry is damaged, the page shows that."""
    found: dict[str, Any] = {"name": entry.name, "registry": None}
    if entry.registry is None:
        return found
    try:
        return {**found, "registry": _registry(entry.registry)}
    except (CrossRankError, OSError) as error:
        nothing: dict[str, Any] = {"current": None, "before": [], "versions": [], "decisions": []}
        return {**found, "registry": nothing, "error": str(error)}


def _registry(registry: ModelRegistry) -> Mapping[str, Any]:
    current = registry.current()
    published = {
        event.get("version"): event.get("time") for event in registry.history() if event.get("event") == "publish"
    }
    return {
        "current": current.name if current else None,
        "before": [version.name for version in registry.before()],
        "versions": [{"name": one.name, "published": published.get(one.name)} for one in registry.versions()],
        "decisions": registry.decisions()[-_DECISIONS:],
    }
