"""The content cache: any order of reading, sending, forgetting and evicting, with real bytes in it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashpy.cache.arena import block_size
from flashpy.cache.chunks import Chunk, Chunks

TOP = 16384
REGIONS = 5
KEYS = st.integers(0, 12)
CHOICE = st.integers(0, 1000)
LENGTH = st.one_of(st.integers(1, TOP), st.sampled_from([1, 4096, 4097, 8192, TOP]))


def fill(chunks: Chunks, offset: int, length: int, mark: int) -> None:
    chunks.memory[offset : offset + length] = bytes([mark]) * length


def read_in(chunks: Chunks, key: object, length: int, mark: int = 1) -> Chunk:
    offset = chunks.reserve(TOP)
    assert offset is not None
    fill(chunks, offset, length, mark)
    return chunks.commit(key, offset, length)


@pytest.fixture
def chunks() -> Chunks:
    return Chunks(memoryview(bytearray(REGIONS * TOP)), TOP)


def test_a_small_chunk_does_not_keep_the_block_it_was_read_into(chunks: Chunks) -> None:
    for n in range(REGIONS * 4 - 4):
        chunks.unpin(read_in(chunks, n, 100, n))
    assert len(chunks) == REGIONS * 4 - 4
    assert chunks.evictions == 0
    for n in range(REGIONS * 4 - 4):
        chunk = chunks.get(n)
        assert chunk is not None
        assert chunk.view is not None
        assert bytes(chunk.view) == bytes([n]) * 100


def test_the_oldest_goes_first_and_renewal_counts(chunks: Chunks) -> None:
    for n in range(REGIONS):
        chunks.unpin(read_in(chunks, n, TOP))
    chunks.touch(0)
    chunks.unpin(read_in(chunks, "new", TOP))
    assert chunks.get(1) is None
    assert chunks.get(0) is not None
    assert chunks.evictions == 1


def test_all_pinned_is_no(chunks: Chunks) -> None:
    held = [read_in(chunks, n, TOP) for n in range(REGIONS)]
    assert chunks.reserve(1) is None
    chunks.unpin(held[2])
    offset = chunks.reserve(1)
    assert offset is not None
    assert held[2].view is None
    assert all(chunk.view is not None for chunk in held if chunk is not held[2])


def test_who_holds_the_view_hears_of_its_end_once(chunks: Chunks) -> None:
    told: list[int] = []
    chunk = read_in(chunks, "a", 10)
    chunk.on_evict.append(lambda: told.append(1))
    chunks.forget("a")
    assert told == [1]
    assert chunk.view is not None, "still pinned"
    chunks.unpin(chunk)
    assert told == [1]
    assert chunk.view is None
    assert chunks.arena.used == chunks.pinned == 0


def test_a_second_chunk_of_the_same_key_takes_the_firsts_place(chunks: Chunks) -> None:
    first = read_in(chunks, "a", 10, 1)
    second = read_in(chunks, "a", 10, 2)
    assert chunks.get("a") is second
    chunks.unpin(first)
    assert first.view is None
    assert second.view is not None
    assert bytes(second.view) == b"\2" * 10
    chunks.unpin(second)
    assert chunks.get("a") is second


def test_what_is_not_to_be_kept_goes_with_its_last_user_unless_it_is_asked_for_again(chunks: Chunks) -> None:
    for again in (False, True):
        offset = chunks.reserve(TOP)
        assert offset is not None
        chunk = chunks.commit("a", offset, TOP, keep=False)
        chunks.pin(chunk)
        chunks.unpin(chunk)
        if again:
            chunks.touch("a")
        chunks.unpin(chunk)
        assert (chunks.get("a") is chunk) is again


def test_what_was_asked_for_is_known_again_until_another_takes_its_place(chunks: Chunks) -> None:
    """Keys whose hash is no other in another process: place and mark are as they are written."""
    one, other = 1 << 16 | 7, 2 << 16 | 7
    assert not chunks.wanted_before(one)
    assert chunks.wanted_before(one)
    assert not chunks.wanted_before(other)
    assert not chunks.wanted_before(one)


def test_abandoning_what_was_not_reserved_is_a_bug(chunks: Chunks) -> None:
    offset = chunks.reserve(10)
    assert offset is not None
    chunks.abandon(offset)
    with pytest.raises(KeyError):
        chunks.abandon(offset)


class ChunksMachine(RuleBasedStateMachine):
    """Helpers that fill blocks late or never, replies that pin, entries that die."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks = Chunks(memoryview(bytearray(REGIONS * TOP)), TOP)
        self.reserved: dict[int, tuple[int, int]] = {}  # offset -> (length asked, mark)
        self.known: list[tuple[Chunk, int]] = []  # every chunk that may live, and its bytes
        self.pins: dict[int, int] = {}
        self.told: set[int] = set()
        self.mark = 0

    def living(self) -> list[tuple[Chunk, int]]:
        return [(chunk, mark) for chunk, mark in self.known if chunk.view is not None]

    @rule(length=LENGTH)
    def reserve(self, length: int) -> None:
        offset = self.chunks.reserve(length)
        if offset is None:
            assert self.chunks.pinned > 0, "only pins may say no"
            return
        assert offset not in self.reserved
        self.mark = self.mark % 255 + 1
        # The helper may write at any time until it has answered.
        fill(self.chunks, offset, length, self.mark)
        self.reserved[offset] = (length, self.mark)

    @precondition(lambda self: self.reserved)
    @rule(choice=CHOICE, key=KEYS, part=st.integers(1, 100), keep=st.booleans())
    def commit(self, choice: int, key: int, part: int, keep: bool) -> None:
        offset = sorted(self.reserved)[choice % len(self.reserved)]
        length, mark = self.reserved.pop(offset)
        chunk = self.chunks.commit(key, offset, max(1, length * part // 100), keep=keep)
        chunk.on_evict.append(lambda: self.told.add(id(chunk)))
        self.known.append((chunk, mark))
        self.pins[id(chunk)] = 1

    @precondition(lambda self: self.reserved)
    @rule(choice=CHOICE)
    def abandon(self, choice: int) -> None:
        offset = sorted(self.reserved)[choice % len(self.reserved)]
        del self.reserved[offset]
        self.chunks.abandon(offset)

    @rule(key=KEYS)
    def pin(self, key: int) -> None:
        chunk = self.chunks.get(key)
        if chunk is not None:
            self.chunks.pin(chunk)
            self.pins[id(chunk)] += 1

    @precondition(lambda self: any(self.pins.values()))
    @rule(choice=CHOICE)
    def unpin(self, choice: int) -> None:
        held = [chunk for chunk, _ in self.known if self.pins[id(chunk)]]
        chunk = held[choice % len(held)]
        self.pins[id(chunk)] -= 1
        self.chunks.unpin(chunk)
        if not self.pins[id(chunk)] and self.chunks.get(chunk.key) is not chunk:
            assert chunk.view is None, "forgotten, and its last user is gone"

    @rule(key=KEYS)
    def forget(self, key: int) -> None:
        self.chunks.forget(key)
        assert self.chunks.get(key) is None

    @rule(key=KEYS)
    def touch(self, key: int) -> None:
        self.chunks.touch(key)

    @invariant()
    def every_block_has_one_owner(self) -> None:
        owned = {chunk.offset for chunk, _ in self.living()}
        assert len(owned) == len(self.living())
        assert not owned & self.reserved.keys()
        assert {offset for offset, _ in self.chunks.arena.blocks()} == owned | self.reserved.keys()

    @invariant()
    def bytes_are_intact(self) -> None:
        memory = self.chunks.memory
        for chunk, mark in self.living():
            assert chunk.view is not None
            assert bytes(chunk.view) == bytes([mark]) * chunk.length
        for offset, (length, mark) in self.reserved.items():
            assert bytes(memory[offset : offset + length]) == bytes([mark]) * length

    @invariant()
    def nothing_pinned_is_evicted_and_who_is_gone_is_told(self) -> None:
        for chunk, _ in self.known:
            assert chunk.pins == self.pins[id(chunk)]
            if self.pins[id(chunk)]:
                assert chunk.view is not None
            if self.chunks.get(chunk.key) is not chunk:
                assert id(chunk) in self.told

    @invariant()
    def sums_hold(self) -> None:
        arena = self.chunks.arena
        pinned = sum(arena.size(chunk.offset) for chunk, _ in self.living() if chunk.pins)
        assert self.chunks.pinned == pinned + sum(arena.size(offset) for offset in self.reserved)
        assert arena.used <= arena.total
        assert arena.used >= sum(block_size(chunk.length) for chunk, _ in self.living())
        assert arena.used + sum(size for _, size in arena.spare()) == arena.untouched

    def teardown(self) -> None:
        for offset in list(self.reserved):
            self.chunks.abandon(offset)
        for chunk, _ in self.known:
            for _ in range(self.pins[id(chunk)]):
                self.chunks.unpin(chunk)
        assert self.chunks.pinned == 0
        for key in range(13):
            self.chunks.forget(key)
        assert self.chunks.arena.used == 0
        assert len(self.chunks) == 0


TestChunks = ChunksMachine.TestCase
TestChunks.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
