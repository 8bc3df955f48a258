"""Progress of long calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_of(
    total: int | None, show: bool | Callable[[int], object] | None, *, unit: str = "pair"
) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of newly finished items. It moves a bar, or is the caller's own.

    ``total=None`` means that it is unknown. ``show=None`` shows a bar on a terminal, after two seconds.
    """
    if callable(show):
        yield show
    elif show or (show is None and sys.stderr is not None and sys.stderr.isatty()):
        # Imported here, because it takes 50 ms.
        from tqdm.auto import tqdm

        with tqdm(total=total, unit=unit, delay=2 if show is None else 0) as bar:
            yield bar.update
    else:
        yield lambda done: None
