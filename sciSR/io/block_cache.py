"""How much of what it decoded GDAL is to keep, in this process."""

from __future__ import annotations

import threading

__all__ = ["BLOCK_CACHE", "CACHE_BYTES", "MOST_CACHE_BYTES", "BlockCache"]

CACHE_BYTES = 128 * 2**20
"""GDAL's block cache. Its own default is 5 % of the memory."""
MOST_CACHE_BYTES = 2**30
"""What the cache may grow to for wide scenes."""


class BlockCache:
    """The size that the widest scene opened so far asks for: a row of its blocks and half of the next.

    Strips of a scene are a few pixels high and its blocks some hundred. Where a row of blocks does not fit, every strip
    decodes it again.

    Example:
        >>> cache = BlockCache()
        >>> cache.hold(200 * 2**20)
        >>> cache.size // 2**20, cache.more // 2**20
        (300, 172)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.size = CACHE_BYTES

    @property
    def more(self) -> int:
        """Bytes beyond the usual size."""
        return self.size - CACHE_BYTES

    def hold(self, row_bytes: int) -> None:
        """See to room for a row of blocks of so many bytes; never less than before."""
        with self._lock:
            self.size = max(self.size, min(row_bytes * 3 // 2, MOST_CACHE_BYTES))


BLOCK_CACHE = BlockCache()
"""GDAL has one cache for the whole process, and so has this."""
