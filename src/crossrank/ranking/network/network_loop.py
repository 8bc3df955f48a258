"""One event loop in a thread of its own, for everything that uses the network.

Both the plain and the async calls of a stage run there, so the code exists once, and connections stay open from one
call to the next, whatever event loops the callers use.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """The loop; the first call starts it, also after a fork."""
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="crossrank-network", daemon=True).start()
            _running = (os.getpid(), loop)
        return _running[1]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine there, and wait. An interrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, event_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def arun(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine there, and wait without blocking. Cancelling this cancels it."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, event_loop()))


class PerLoop(Generic[T]):
    """Something that belongs to the loop, such as a client with its connections; made when it is first needed.

    :param make: Makes it; called within the loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[asyncio.AbstractEventLoop, T] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, in another process for instance, makes its own.
        return type(self), (self._make,)

    def get(self) -> T:
        """The object, made anew if the loop is another one, as after a fork. Call it within the loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._made = (loop, self._make())
        return self._made[1]

    def take(self) -> T | None:
        """Hand the object over if there is one for this loop; a later ``get`` makes another."""
        made, self._made = self._made, None
        return made[1] if made is not None and made[0] is asyncio.get_running_loop() else None
