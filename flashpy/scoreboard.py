"""The scoreboard: what the workers count, where the master can read it without asking.

Made by the master before the first fork; written by the workers, read by the master. It is one
anonymous shared map of 64-bit cells, so it needs no file and outlives no process. Each worker
writes its own slot several times a second: the time (the heartbeat, written out of the loop itself,
so that a loop which is stuck is noticed) and its counters. Slot 0 holds the sums of the
processes that are gone, hence totals never go back. A slot belongs to a process, not to a place in
a generation: while a reload lasts two workers have the same number and different slots.
"""

import mmap
from array import array
from collections.abc import Iterable

COUNTERS = (
    "requests",
    "memo_hits",
    "hits",
    "misses",
    "stale",
    "joined",
    "status_2xx",
    "status_3xx",
    "status_4xx",
    "status_5xx",
    "bytes_sent",
    "connections_accepted",
    "connections_open",
    "timeouts",
    "disconnects",
    "proxy_refused",
    "limited",
    "helper_jobs",
    "helper_deaths",
    "helpers_written_off",
    "queue_refused",
    "heavy_jobs",
    "heavy_deaths",
    "heavy_written_off",
    "heavy_refused",
    "evictions",
    "arena_used",
    "arena_pinned",
    "revalidations",
    "log_dropped",
    "errors",
)
"""The counters of a slot, in the order in which ``Slot.store`` takes them."""

GAUGES = frozenset({"connections_open", "arena_used", "arena_pinned"})
"""Counters that say how much there is now: they end with their process."""

_HEART, _FIRST = 0, 1
_USED = _FIRST + len(COUNTERS)
_CELLS = -(-_USED // 8) * 8
"""Cells of a slot: whole cache lines of 64 bytes, so that workers do not slow each other."""


class Slot:
    """One process's part of the scoreboard."""

    __slots__ = ("_counters", "_heart")

    def __init__(self, cells: memoryview) -> None:
        self._heart = cells[_HEART:_FIRST]
        self._counters = cells[_FIRST:_USED]

    def store(self, values: Iterable[int]) -> None:
        """Write all counters, in the order of COUNTERS. Raises ValueError for another number."""
        self._counters[:] = array("Q", values)

    def beat(self, now_ns: int) -> None:
        """Say that the loop turned at ``now_ns`` (monotonic nanoseconds)."""
        self._heart[0] = now_ns

    def heard_ns(self) -> int:
        """When the loop last turned (monotonic nanoseconds)."""
        return int(self._heart[0])

    def load(self) -> list[int]:
        """The counters, in the order of COUNTERS."""
        return [int(value) for value in self._counters]


class Scoreboard:
    """All slots. ``slots`` counts those for processes; slot 0 is one more."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, (slots + 1) * _CELLS * 8)
        self._cells = memoryview(self._map).cast("Q")
        self._free = list(range(slots, 0, -1))
        self._slots = slots

    def claim(self) -> int | None:
        """Take a free slot for a process about to be forked; None when all are taken."""
        return self._free.pop() if self._free else None

    def free(self) -> int:
        """How many processes could still be forked."""
        return len(self._free)

    def slot(self, index: int) -> Slot:
        """The slot with this number."""
        if not 0 <= index <= self._slots:
            raise IndexError(f"no slot {index}")
        start = index * _CELLS
        return Slot(self._cells[start : start + _CELLS])

    def retire(self, index: int) -> None:
        """Add a reaped process's counters to slot 0 and free its slot."""
        if index == 0 or index in self._free:
            raise ValueError(f"slot {index} has no process")
        slot, gone = self.slot(index), self.slot(0)
        counts = [0 if name in GAUGES else value for name, value in zip(COUNTERS, slot.load(), strict=True)]
        gone.store(a + b for a, b in zip(gone.load(), counts, strict=True))
        slot.store([0] * len(COUNTERS))
        slot.beat(0)
        self._free.append(index)

    def totals(self) -> dict[str, int]:
        """Every counter summed over the processes that are gone and those that live."""
        columns = zip(*(self.slot(index).load() for index in range(self._slots + 1)), strict=True)
        return dict(zip(COUNTERS, map(sum, columns), strict=True))
