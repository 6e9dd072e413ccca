"""Random bytes in blocks: each call of the system lets other threads run, and an id needs only ten bytes."""

import os
import threading
from collections.abc import Callable

BLOCK_BYTES = 4_096


class Entropy:
    """Bytes of the system's source, none of them given twice: not to two threads, and not to a fork and its parent."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom, *, process: Callable[[], int] = os.getpid) -> None:
        self._source, self._process = source, process
        self._lock = threading.Lock()
        self._block, self._used, self._owner = b"", 0, -1

    def __call__(self, size: int) -> bytes:
        """`size` new bytes."""
        if size > BLOCK_BYTES:
            return self._source(size)
        with self._lock:
            begin = self._used
            if begin + size > len(self._block) or self._owner != self._process():
                self._block, self._owner, begin = self._source(BLOCK_BYTES), self._process(), 0
            self._used = begin + size
            return self._block[begin : self._used]
