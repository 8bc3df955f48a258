"""Real English prose of many lengths, always at hand: the standard library's own documentation."""

from __future__ import annotations

import inspect
import random
from functools import cache
from importlib import import_module

_MODULES = ("argparse", "asyncio", "collections", "csv", "datetime", "decimal", "difflib", "email.message", "functools")
_MODULES += ("http.client", "itertools", "json", "logging", "pathlib", "random", "statistics", "string", "textwrap")


@cache
def passages() -> tuple[str, ...]:
    """Docstrings, from a handful of words to several hundred, in a fixed order."""
    found: dict[str, None] = {}
    for name in _MODULES:
        module = import_module(name)
        for thing in (module, *(value for key, value in sorted(vars(module).items()) if key[0] != "_")):
            text = inspect.getdoc(thing) or ""
            if inspect.ismodule(thing) and thing is not module:
                continue
            found.setdefault(" ".join(text.split()))
            for key, member in sorted(vars(thing).items()) if inspect.isclass(thing) else ():
                if key[0] != "_" and callable(member):
                    found.setdefault(" ".join((inspect.getdoc(member) or "").split()))
    return tuple(text for text in found if len(text) > 30)


def pairs(count: int, *, queries: int = 5, seed: int = 0) -> list[tuple[str, str]]:
    """``count`` different pairs of a query, the beginning of some passage, and a passage."""
    chosen = random.Random(seed)
    asked = [" ".join(text.split()[: chosen.randint(3, 12)]) for text in chosen.sample(passages(), queries)]
    return [(asked[i % queries], text) for i, text in enumerate(chosen.sample(passages(), count))]
