"""What each client has used of its share: a table in memory that all workers see. For both sides.

The master makes it before the first fork, so it outlives every worker and a reload. A client has a place in it by a
hash of its address, whose key is new with each start: nobody can choose whom to share a place with, and by chance one
client does so with another in one of 65,536 cases. So nothing has to be found, inserted or thrown out, and the table
needs no lock. Its pages are taken only when somebody is first counted in them.

Requests are counted as one number for each client, the time when its bucket will be full again (the generic cell rate
algorithm). Two workers that write it in the same microsecond lose one request. Connections are counted in a row for
each worker, which it alone writes, so that the count of one that dies can be taken back.
"""

import mmap
from functools import lru_cache

PLACES = 1 << 16
_TIME, _COUNT = 8, 2  # bytes: a double, and an unsigned number of connections


class Share:
    """The table as one worker sees it: when each bucket is full (monotonic seconds), all rows, and its own."""

    __slots__ = ("full_at", "own", "rows")

    def __init__(self, full_at: "memoryview[float]", rows: list[memoryview], own: memoryview) -> None:
        self.full_at = full_at
        self.rows = rows
        self.own = own


class Shares:
    """The whole table, with a row for each of `slots` processes, numbered from 1 as in the scoreboard."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, PLACES * (_TIME + slots * _COUNT))
        cells = memoryview(self._map)
        self._full_at = cells[: PLACES * _TIME].cast("d")
        counts = cells[PLACES * _TIME :].cast("H")
        self._rows = [counts[slot * PLACES : (slot + 1) * PLACES] for slot in range(slots)]

    def of(self, slot: int) -> Share:
        """For the worker in this slot."""
        return Share(self._full_at, self._rows, self._rows[slot - 1])

    def retire(self, slot: int) -> None:
        """The worker is gone, and its connections with it."""
        row = self._rows[slot - 1]
        for place, count in enumerate(row.tolist()):
            if count:
                row[place] = 0


@lru_cache(maxsize=4096)
def place_of(prefix: bytes) -> int:
    """The place of a client, known by the prefix of its log lines, which begins with its address.

    Of an IPv6 address the network of 64 bits counts: whoever has one address of it has them all.
    """
    address = prefix.partition(b" ")[0].decode("ascii")
    if ":" in address:
        address = ":".join(_groups(address)[:4])
    return hash(address) % PLACES


def _groups(address: str) -> list[str]:
    """The eight groups of an IPv6 address in its short form."""
    before, double, after = address.partition("::")
    left, right = [*filter(None, before.split(":"))], [*filter(None, after.split(":"))]
    missing = 8 - len(left) - len(right) if double else 0
    return [*left, *["0"] * missing, *right]
