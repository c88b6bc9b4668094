"""WORKER: a bounded map that forgets what was renewed longest ago.

A hit does not touch the order: only `touch` does, which the caches call when an entry's freshness is renewed,
at most once a second for each entry. So the order is by seconds, which is enough, and a hit costs one dict lookup.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most `limit` items, oldest first; `on_drop(key, value)` is told of each that is pushed out."""

    def __init__(self, limit: int, on_drop: Callable[[K, V], None] | None = None) -> None:
        self.limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()
        self._on_drop = on_drop
        self.get = self._items.get

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def put(self, key: K, value: V) -> None:
        """Add as the newest; the oldest go when there is no room."""
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self.limit:
            oldest, dropped = self._items.popitem(last=False)
            if self._on_drop is not None:
                self._on_drop(oldest, dropped)

    def touch(self, key: K) -> None:
        """Make `key` the newest, when it is there."""
        if key in self._items:
            self._items.move_to_end(key)

    def pop(self, key: K) -> V | None:
        """Take out and return; nobody is told."""
        return self._items.pop(key, None)
