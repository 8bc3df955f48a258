"""The states of recently encoded texts, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from crossrank.tokenization.split_encoder import ReadText

# Approximate memory of a kept text besides its arrays.
_OVERHEAD = 600


class TextCache:
    """The states of recently encoded texts, up to a limit. Safe to use from many threads.

    :param max_bytes: Memory limit.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._texts: OrderedDict[Hashable, ReadText] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, text: Hashable) -> ReadText | None:
        """Return a text's states, if they are in the cache."""
        with self._lock:
            found = self._texts.get(text)
            if found is not None:
                self._texts.move_to_end(text)
            return found

    def keep(self, text: Hashable, read: ReadText) -> None:
        """Keep a text's states; the least recently used ones are dropped."""
        size = _size(text, read)
        if size > self.max_bytes:
            return
        with self._lock:
            before = self._texts.pop(text, None)
            if before is not None:
                self.bytes -= _size(text, before)
            self._texts[text] = read
            self.bytes += size
            while self.bytes > self.max_bytes:
                self.bytes -= _size(*self._texts.popitem(last=False))


def _size(text: Hashable, read: ReadText) -> int:
    return read.states.nbytes + read.ids.nbytes + (4 * len(text) if isinstance(text, str) else 0) + _OVERHEAD
