"""WORKER: the content cache: which piece of which file lies in which block, and what may be thrown out.

A chunk is one piece of one version of a file, in memory that belongs to the server. A helper reads it in; from then
on a reply is sent from it without asking any file system. Chunks are pinned while a reply or a helper uses them;
what is pinned is never evicted, so the arena's size is a hard limit: when all of it is pinned, `reserve` says no.

Making room evicts by least recent renewal. As blocks are buddies, room for a large block is made by clearing the
aligned region round the oldest chunk, not by throwing out old chunks all over the memory until one merges by luck.

A file's chunks after the first are kept only when they are asked for a second time. A download that comes once passes
through two or three blocks again and again, which are warm in the processor's cache, and pushes nobody out.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from flashpy.cache.arena import Arena, block_size

# A chunk up to this many bytes is moved out of the whole block that it was read into: a copy of 64 KiB costs the
# worker about 6 microseconds, a whole block for each small file would cost the cache most of its memory.
MOVE_LIMIT = 65536


class Chunk:
    """`length` bytes of one version of a file, at `offset` of the arena; `view` is None once evicted.

    One that is not `kept` is freed by its last user.
    """

    __slots__ = ("kept", "key", "length", "offset", "on_evict", "pins", "view")

    def __init__(self, key: Hashable, offset: int, length: int, view: memoryview, kept: bool) -> None:
        self.kept = kept
        self.key = key
        self.offset = offset
        self.length = length
        self.view: memoryview | None = view
        self.pins = 0
        self.on_evict: list[Callable[[], None]] = []


class Chunks:
    """The chunks in `memory`, found by key; `memory` is the mapped arena."""

    def __init__(self, memory: memoryview, top: int) -> None:
        self.arena = Arena(len(memory), top)
        self.memory = memory
        self.evictions = 0
        self.pinned = 0
        self._chunks: OrderedDict[Hashable, Chunk] = OrderedDict()
        self._regions: dict[int, dict[int, Chunk]] = {}
        self._reserved: set[int] = set()
        self._marks = bytearray(65536)

    def __len__(self) -> int:
        return len(self._chunks)

    def get(self, key: Hashable) -> Chunk | None:
        """The chunk, not touched and not pinned, or None."""
        return self._chunks.get(key)

    def touch(self, key: Hashable) -> None:
        """It was used again: keep it, and make it the last to be evicted."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            chunk.kept = True
            self._chunks.move_to_end(key)

    def wanted_before(self, key: Hashable) -> bool:
        """Whether, mostly, `key` was asked of this lately; from now on it was.

        One byte of its hash is kept at the place that the rest of it names, in 64 KiB that never grow. A newer key
        takes an older one's place, and one stranger in 256 is taken for an acquaintance: either costs but a block.
        """
        sight = hash(key)
        place, mark = sight & 65535, sight >> 16 & 255
        known = self._marks[place] == mark
        self._marks[place] = mark
        return known

    def reserve(self, length: int) -> int | None:
        """A block for a helper to fill: its offset, or None when everything is pinned."""
        offset = self._allocate(length)
        if offset is not None:
            self._reserved.add(offset)
            self.pinned += self.arena.size(offset)
        return offset

    def abandon(self, offset: int) -> None:
        """Give back a reserved block that no helper can write to any more."""
        self._reserved.remove(offset)
        self.pinned -= self.arena.size(offset)
        self.arena.free(offset)

    def commit(self, key: Hashable, offset: int, length: int, *, keep: bool = True) -> Chunk:
        """Make a chunk of the `length` bytes that a helper wrote at `offset` (reserved before).

        The chunk comes pinned once; a chunk of the same key that was there before is forgotten.
        """
        offset = self._settle(offset, length)
        self.forget(key)
        chunk = Chunk(key, offset, length, self.memory[offset : offset + length], keep)
        chunk.pins = 1
        self._chunks[key] = chunk
        self._region(offset)[offset] = chunk
        return chunk

    def _settle(self, offset: int, length: int) -> int:
        """Move a small chunk to a block of its size, or cut the block down; the block stays counted as pinned."""
        self._reserved.remove(offset)
        arena, size = self.arena, self.arena.size(offset)
        if length <= MOVE_LIMIT and block_size(length) < size:
            target = self._allocate(length)
            if target is not None:
                self.memory[target : target + length] = self.memory[offset : offset + length]
                arena.free(offset)
                self.pinned += arena.size(target) - size
                return target
        arena.shrink(offset, length)
        self.pinned += arena.size(offset) - size
        return offset

    def pin(self, chunk: Chunk) -> None:
        """Keep the chunk's memory from being given to anything else."""
        if chunk.pins == 0:
            self.pinned += self.arena.size(chunk.offset)
        chunk.pins += 1

    def unpin(self, chunk: Chunk) -> None:
        """The opposite of `pin`; a forgotten chunk is freed by its last user."""
        chunk.pins -= 1
        if chunk.pins == 0:
            self.pinned -= self.arena.size(chunk.offset)
            if self._chunks.get(chunk.key) is not chunk:
                self._free(chunk)
            elif not chunk.kept:
                self.forget(chunk.key)

    def forget(self, key: Hashable) -> None:
        """Drop the chunk of a dead entry: at once, or when its last user unpins it."""
        chunk = self._chunks.pop(key, None)
        if chunk is not None:
            self._leave(chunk)
            if chunk.pins == 0:
                self._free(chunk)

    def _leave(self, chunk: Chunk) -> None:
        """Tell those who hold the chunk's view; the memory itself may still be pinned."""
        tell, chunk.on_evict = chunk.on_evict, []
        for action in tell:
            action()

    def _free(self, chunk: Chunk) -> None:
        chunk.view = None
        del self._region(chunk.offset)[chunk.offset]
        self.arena.free(chunk.offset)

    def _region(self, offset: int) -> dict[int, Chunk]:
        return self._regions.setdefault(offset // self.arena.top, {})

    def _allocate(self, length: int) -> int | None:
        offset = self.arena.allocate(length)
        while offset is None and self._make_room(block_size(length)):
            offset = self.arena.allocate(length)
        return offset

    def _make_room(self, size: int) -> bool:
        """Evict so that one block of `size` bytes becomes free; False when pins stand everywhere."""
        if self.pinned + size > self.arena.total:
            return False
        for chunk in self._chunks.values():
            victims = self._region_of(chunk, size)
            if victims is not None:
                for victim in victims:
                    self.evictions += 1
                    self.forget(victim.key)
                return True
        return False

    def _region_of(self, chunk: Chunk, size: int) -> list[Chunk] | None:
        """All chunks that must go with `chunk` for an aligned block of `size`, or None when one is pinned."""
        if chunk.pins:
            return None
        if self.arena.size(chunk.offset) >= size:
            return [chunk]
        start = chunk.offset - chunk.offset % size
        if any(start <= offset < start + size for offset in self._reserved):
            return None
        near = self._region(start)
        victims = [other for offset, other in near.items() if start <= offset < start + size]
        return None if any(victim.pins for victim in victims) else victims
