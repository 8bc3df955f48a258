"""One event loop in its own thread, for everything that uses the network.

Synchronous and asynchronous calls of a stage both run there. So the code exists once, and connections stay open between
calls, whatever event loops the callers use.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop. The first call in a process starts it."""
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="crossrank-network", daemon=True).start()
            _running = (os.getpid(), loop)
        return _running[1]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop, and wait for it. An interrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, event_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def arun(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop, and await it. Cancelling this cancels it."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, event_loop()))


class PerLoop(Generic[T]):
    """An object that belongs to the loop, such as a client with its connections. The first use makes it.

    :param make: Makes it; called within the loop.
    :param close: Closes it.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]] | None = None) -> None:
        self._make, self._close = make, close
        self._made: tuple[asyncio.AbstractEventLoop, T] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, for instance in another process, makes its own object.
        return type(self), (self._make, self._close)

    def get(self) -> T:
        """Return the object; a new one if the loop has changed, as after a fork. Call it within the loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._made = (loop, self._make())
        return self._made[1]

    async def warm_up(self) -> None:
        """Make the object."""
        self.get()

    async def close(self) -> None:
        """Close the object, if there is one; a later ``get`` makes another."""
        made, self._made = self._made, None
        if made is not None and self._close is not None and made[0] is asyncio.get_running_loop():
            await self._close(made[1])
