"""Who is told how far a long call has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_of(
    total: int, show: bool | Callable[[int], object] | None, *, unit: str = "pair"
) -> Iterator[Callable[[int], object]]:
    """Give what is told how many more are done: a bar, the caller's function, or nobody.

    ``show=None`` means a bar where there is a terminal, and only after two seconds.
    """
    if callable(show):
        yield show
    elif show or (show is None and sys.stderr is not None and sys.stderr.isatty()):
        # Only here: its import takes a twentieth of a second.
        from tqdm.auto import tqdm

        with tqdm(total=total, unit=unit, delay=2 if show is None else 0) as bar:
            yield bar.update
    else:
        yield lambda done: None
