"""WORKER: from the bytes of a request straight to its prepared answer.

Two maps of this kind stand before the parser. One is keyed by a whole request head: most keep-alive hits are one
lookup in it. The other is keyed by the request line and Host, for heads that never repeat (X-Request-ID) but have no
field that the reply depends on. A key is admitted at its second sighting, so that a scan of the site does not push
out what is hot. When full, the memo is emptied: cheaper than order, and the hot keys are back within two requests.

A dead entry takes its keys with it: a memo that kept them would hold memory which the cache no longer counts.
"""

from typing import Generic, Protocol, TypeVar


class Mortal(Protocol):
    """What a memoised answer depends on: it keeps the keys, and forgets them when it dies."""

    memos: list[tuple[dict[bytes, object], bytes]]


V = TypeVar("V")


class Memo(Generic[V]):
    """At most `limit` keys and `limit_bytes` bytes of keys and answers; `get` is a dict's own."""

    def __init__(self, limit: int = 16384, limit_bytes: int = 32 << 20) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._answers: dict[bytes, V] = {}
        self._seen: set[bytes] = set()
        self.get = self._answers.get

    def __len__(self) -> int:
        return len(self._answers)

    def offer(self, key: bytes, answer: V, entry: Mortal, weight: int = 0) -> None:
        """Remember `answer` when `key` is seen for the second time; `weight` is the answer's own bytes."""
        if key not in self._seen:
            if len(self._seen) >= self.limit:
                self._seen.clear()
            self._seen.add(key)
            return
        cost = len(key) + weight
        if len(self._answers) >= self.limit or self.bytes + cost > self.limit_bytes:
            self.clear()
        if key not in self._answers:
            self.bytes += cost
            entry.memos.append((self._answers, key))  # type: ignore[arg-type]
        self._answers[key] = answer

    def clear(self) -> None:
        """Forget every answer (draining, full)."""
        self._answers.clear()
        self.bytes = 0


def purge(entry: Mortal) -> None:
    """Delete the answers that depend on `entry` from every memo that holds them."""
    for answers, key in entry.memos:
        answers.pop(key, None)
    entry.memos.clear()
