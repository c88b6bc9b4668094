"""WORKER: from the bytes of a request straight to its prepared answer.

Two maps of this kind stand before the decision. One is keyed by a request head, whole or without its volatile lines
(X-Request-ID): most keep-alive hits are one lookup in it. The other is keyed by what matters of a head (request line,
Host, what the log wants), for heads that are new in some other line which the reply does not depend on. A key is
admitted at its second sighting, so that a scan of the site does not push out what is hot; the parser knows which those
are. When full, a memo is emptied: cheaper than order, and the hot keys are back within two requests.

A dead entry takes its keys with it: a memo that kept them would hold memory which the cache no longer counts.
"""

from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

# Keys of one entry. A client that adds ?1, ?2, ?3 to a hot path makes new ones for ever.
KEYS_OF_AN_ENTRY = 4096


class Mortal(Protocol):
    """What a memoised answer depends on: it keeps the keys, and forgets them when it dies."""

    memos: list[tuple[Any, Any]]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """At most `limit` keys and about `limit_bytes` bytes of keys and answers; `get` is a dict's own."""

    def __init__(self, limit: int = 16384, limit_bytes: int = 32 << 20) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._answers: dict[K, V] = {}
        self._entries: dict[K, Mortal] = {}
        self.get = self._answers.get

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, key: K, answer: V, entry: Mortal, weight: int) -> None:
        """Remember `answer` until `entry` dies; `weight` is what key and answer take, in bytes."""
        if len(self._answers) >= self.limit or self.bytes + weight > self.limit_bytes:
            self.clear()
        self.bytes += weight
        if len(entry.memos) >= KEYS_OF_AN_ENTRY:
            purge(entry)
        if self._entries.get(key) is not entry:
            entry.memos.append((self, key))  # also when another entry has it: the answer dies with either
        self._entries[key] = entry
        self._answers[key] = answer

    def forget(self, key: K) -> None:
        """Answer this no more."""
        self._answers.pop(key, None)
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget every answer (draining, full), and have the entries forget the keys."""
        for entry in {id(entry): entry for entry in self._entries.values()}.values():
            entry.memos[:] = [known for known in entry.memos if known[0] is not self]
        self._answers.clear()
        self._entries.clear()
        self.bytes = 0


def purge(entry: Mortal) -> None:
    """Delete the answers that depend on `entry` from every memo that holds them."""
    for memo, key in entry.memos:
        memo.forget(key)
    entry.memos.clear()
