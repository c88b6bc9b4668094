"""WORKER: who owns which bytes of the content cache's memory.

A buddy allocator over one memory file: blocks of 4 KiB up to `top` (one chunk), each aligned to its own size, so
that a freed block finds its neighbour by flipping one bit. Regions of `top` bytes are first taken in order, so
memory that was never needed is never touched. Only the worker allocates; helpers write where they are told.
The arena knows nothing of what lies in a block: eviction is `cache.chunks`.
"""

SMALLEST = 4096


def block_size(length: int) -> int:
    """The size in bytes of the block that holds `length` bytes: a power of two, at least 4 KiB."""
    return max(SMALLEST, 1 << (length - 1).bit_length()) if length > 0 else SMALLEST


class Arena:
    """Blocks of a memory of `total` bytes; `top` (a power of two) is the largest block."""

    def __init__(self, total: int, top: int) -> None:
        if top < SMALLEST or top & (top - 1):
            raise ValueError(f"largest block must be a power of two of at least {SMALLEST}: {top}")
        self.top = top
        self.total = total - total % top
        self.used = 0
        self._untouched = 0
        self._sizes: dict[int, int] = {}
        self._free: dict[int, set[int]] = {}
        size = SMALLEST
        while size <= top:
            self._free[size] = set()
            size *= 2

    def size(self, offset: int) -> int:
        """The size of the block at `offset`."""
        return self._sizes[offset]

    def allocate(self, length: int) -> int | None:
        """A block for `length` bytes (at most `top`): its offset, or None when no free block is large enough."""
        wanted = block_size(length)
        if wanted > self.top:
            raise ValueError(f"{length} bytes do not fit a block of {self.top}")
        offset = self._take(wanted)
        if offset is not None:
            self._sizes[offset] = wanted
            self.used += wanted
        return offset

    def _take(self, wanted: int) -> int | None:
        size = wanted
        while size < self.top and not self._free[size]:
            size *= 2
        if self._free[size]:
            offset = self._free[size].pop()
        elif self._untouched < self.total:
            offset = self._untouched
            self._untouched += self.top
        else:
            return None
        self._split(offset, size, wanted)
        return offset

    def _split(self, offset: int, size: int, wanted: int) -> None:
        while size > wanted:
            size //= 2
            self._free[size].add(offset + size)

    def shrink(self, offset: int, length: int) -> None:
        """Give back what the block at `offset` has beyond `length` bytes."""
        size, wanted = self._sizes[offset], block_size(length)
        if wanted < size:
            self._split(offset, size, wanted)
            self._sizes[offset] = wanted
            self.used -= size - wanted

    def free(self, offset: int) -> None:
        """Give the block back; neighbours that are free are merged."""
        size = self._sizes.pop(offset)
        self.used -= size
        while size < self.top and (offset ^ size) in self._free[size]:
            self._free[size].remove(offset ^ size)
            offset &= ~size
            size *= 2
        self._free[size].add(offset)

    def blocks(self) -> list[tuple[int, int]]:
        """(offset, size) of every block in use, in order of offset (for tests)."""
        return sorted(self._sizes.items())

    def spare(self) -> list[tuple[int, int]]:
        """(offset, size) of every free block that was ever touched, in order of offset (for tests)."""
        return sorted((offset, size) for size, free in self._free.items() for offset in free)

    @property
    def untouched(self) -> int:
        """Bytes from here to `total` were never given out (for tests)."""
        return self._untouched
