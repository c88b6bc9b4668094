"""The buddy allocator: blocks never overlap and nothing gets lost, whatever is done in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashpy.cache.arena import SMALLEST, Arena, block_size

TOP = 65536
REGIONS = 6


@pytest.mark.parametrize(
    ("length", "size"),
    [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (8192, 8192), (8193, 16384), (65536, 65536)],
)
def test_block_size(length: int, size: int) -> None:
    assert block_size(length) == size


@pytest.mark.parametrize("top", [0, 2048, 4095, 5000, 65537])
def test_a_top_that_is_no_power_of_two(top: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Arena(1 << 20, top)


def test_more_than_the_top_is_a_bug() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Arena(1 << 20, TOP).allocate(TOP + 1)


def test_memory_that_is_not_needed_is_not_touched() -> None:
    arena = Arena(REGIONS * TOP + 5000, TOP)
    assert arena.total == REGIONS * TOP
    for _ in range(1000):
        offset = arena.allocate(5000)
        assert offset is not None
        arena.free(offset)
    assert arena.untouched == TOP


def test_full_and_free_again() -> None:
    arena = Arena(REGIONS * TOP, TOP)
    offsets = [arena.allocate(1) for _ in range(REGIONS * TOP // SMALLEST)]
    assert None not in offsets
    assert arena.allocate(1) is None
    assert arena.used == arena.total
    for offset in offsets:
        assert offset is not None
        arena.free(offset)
    assert arena.used == 0
    assert arena.spare() == [(n * TOP, TOP) for n in range(REGIONS)]


def test_freeing_twice_is_a_bug() -> None:
    arena = Arena(TOP, TOP)
    offset = arena.allocate(1)
    assert offset is not None
    arena.free(offset)
    with pytest.raises(KeyError):
        arena.free(offset)


class ArenaMachine(RuleBasedStateMachine):
    """Allocate, shrink and free in any order, against a plain list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(REGIONS * TOP, TOP)
        self.blocks: dict[int, int] = {}

    def pick(self, choice: int) -> int:
        return sorted(self.blocks)[choice % len(self.blocks)]

    @rule(length=st.one_of(st.integers(0, TOP), st.sampled_from([1, 4096, 4097, TOP // 2, TOP])))
    def allocate(self, length: int) -> None:
        offset = self.arena.allocate(length)
        size = block_size(length)
        if offset is None:
            assert not any(free >= size for _, free in self.arena.spare())
            assert self.arena.untouched == self.arena.total
        else:
            assert offset % size == 0
            assert self.arena.size(offset) == size
            self.blocks[offset] = size

    @precondition(lambda self: self.blocks)
    @rule(choice=st.integers(0, 1000), length=st.integers(0, TOP))
    def shrink(self, choice: int, length: int) -> None:
        offset = self.pick(choice)
        self.arena.shrink(offset, length)
        self.blocks[offset] = min(self.blocks[offset], block_size(length))

    @precondition(lambda self: self.blocks)
    @rule(choice=st.integers(0, 1000))
    def free(self, choice: int) -> None:
        offset = self.pick(choice)
        self.arena.free(offset)
        del self.blocks[offset]

    @invariant()
    def blocks_are_as_asked_and_never_overlap(self) -> None:
        assert self.arena.blocks() == sorted(self.blocks.items())
        end = 0
        for offset, size in sorted(self.arena.blocks() + self.arena.spare()):
            assert offset == end, "a gap or an overlap"
            end = offset + size
        assert end == self.arena.untouched

    @invariant()
    def sums_hold(self) -> None:
        arena = self.arena
        free = sum(size for _, size in arena.spare())
        assert arena.used == sum(self.blocks.values())
        assert arena.used + free + (arena.total - arena.untouched) == arena.total

    @invariant()
    def neighbours_that_are_free_are_merged(self) -> None:
        spare = set(self.arena.spare())
        assert not any((offset ^ size, size) in spare for offset, size in spare if size < TOP)


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
