"""Feedback on rankings, if the server stores it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.server.routes.reading import HttpError

if TYPE_CHECKING:
    from crossrank.server.app import State
    from crossrank.server.feedback import Collector


async def give(request: Request, state: State) -> Response:
    """Add feedback on a stored ranking."""
    return await _collector(state).answer(request)


async def stats(request: Request, state: State) -> Response:
    """Count the feedback by kind and by model version."""
    store = _collector(state).store
    from crossrank.feedback.summary import summary  # here, because it needs the extra 'feedback'

    return JSONResponse(await asyncio.to_thread(summary, store))


def _collector(state: State) -> Collector:
    if state.feedback is None:
        raise HttpError(404, "This server stores no feedback. Start it with --feedback sqlite:///feedback.db.")
    return state.feedback
