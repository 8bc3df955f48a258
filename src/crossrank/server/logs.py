"""Structured logs: one JSON object per line on standard error. A full disk or closed stream never stops the server."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

log = logging.getLogger("crossrank.server")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line, because an error could not be reported anywhere."""


def set_up(level: str) -> None:
    """Send crossrank's logs and uvicorn's to standard error.

    :param level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("crossrank.server", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper() if name == "crossrank.server" else logging.WARNING)
