"""Import of optional packages."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from crossrank.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or raise an error with the command that installs it.

    :param module: The module's import name, such as ``"torch"``.
    :param extra: The extra of crossrank that contains it, such as ``"torch"``.
    :param purpose: What needs it; the start of the message.
    :raises MissingExtraError: If the package is not installed.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise MissingExtraError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'crossrank[{extra}]'"
        )
    return importlib.import_module(module)
