"""Read a request's bytes into a JSON body, within limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from crossrank.errors import InputError
from crossrank.server.settings import Settings


class HttpError(Exception):
    """An error response.

    :param headers: Headers to send with it.
    """

    def __init__(self, status: int, message: str, field: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


async def read_body(request: Request, most: int, seconds: float) -> dict[str, Any]:
    """Read a JSON object without keys whose value is null, because clients send null for "not set".

    :raises HttpError: If it is too large, arrives too slowly, or is not a JSON object.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    try:
        raw = await asyncio.wait_for(_bytes(request, most), seconds)
    except asyncio.TimeoutError:
        raise HttpError(
            408, f"The body did not arrive within {seconds:g} s (body_seconds).", connection="close"
        ) from None
    except ClientDisconnect:
        raise HttpError(499, "The client left before its body was complete.") from None
    return parse_body(raw)


async def _bytes(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def parse_body(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object and drop its nulls.

    :raises HttpError: If it is not a JSON object.
    """
    try:
        # A BOM is accepted, other encodings are not.
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise HttpError(400, f"The body is not UTF-8: byte {error.start} can't be decoded.") from None
    except RecursionError:
        raise HttpError(400, "The body is nested too deeply to be read.") from None
    except ValueError as error:
        raise HttpError(400, f"The body is not JSON: {str(error)[:200]}. Send a JSON object.") from None
    if not isinstance(body, dict):
        raise HttpError(400, f'The body is a JSON {type(body).__name__}, not an object. Send {{"query": ...}}.')
    return {name: value for name, value in body.items() if value is not None}


def check_limits(queries: Sequence[str], documents: Sequence[Any], settings: Settings) -> None:
    """Refuse too many documents or a query that is too long.

    :raises HttpError: If a limit is exceeded; the message names it.
    """
    if len(documents) > settings.max_documents:
        raise HttpError(
            413,
            f"There are {len(documents)} documents; max_documents is {settings.max_documents}. Send them in several "
            "requests, or start the server with a larger --max-documents.",
            "documents",
        )
    longest = max(map(len, queries), default=0)
    if longest > settings.max_query_characters:
        raise HttpError(
            422,
            f"The query has {longest} characters; max_query_characters is {settings.max_query_characters}. Shorten it, "
            "or start the server with a larger --max-query-characters.",
            "query",
        )


def _too_large(most: int) -> HttpError:
    return HttpError(
        413,
        f"The body is larger than {most} bytes (max_body_bytes). Send fewer documents, or start the server with "
        "a larger --max-body-bytes.",
        connection="close",
    )


def _no_number(name: str) -> NoReturn:
    raise InputError(f"{name} is not a number in JSON")
