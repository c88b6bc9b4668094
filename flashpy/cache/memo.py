"""WORKER: from the bytes of a request straight to its prepared answer.

Two maps of this kind stand before the parser. One is keyed by a whole request head: most keep-alive hits are one
lookup in it. The other is keyed by the request line and Host, for heads that never repeat (X-Request-ID) but have no
field that the reply depends on. A key is admitted at its second sighting, so that a scan of the site does not push
out what is hot; of a whole head the parser knows whether it is familiar. When full, the memo is emptied: cheaper than
order, and the hot keys are back within two requests.

A dead entry takes its keys with it: a memo that kept them would hold memory which the cache no longer counts.
"""

from typing import Generic, Protocol, TypeVar


class Doorkeeper:
    """Tells, mostly, whether bytes were seen before, in 64 KiB that never grow.

    One byte of the key's hash is kept at the place that the rest of it names. A newer key takes the place of an older one,
    and one in 256 strangers is let in: either costs nothing but a line of a memo.
    """

    def __init__(self) -> None:
        self._marks = bytearray(65536)

    def sighted(self, key: bytes) -> bool:
        """Whether `key` was seen lately; from now on it was."""
        sight = hash(key)
        place, mark = sight & 65535, sight >> 16 & 255
        if self._marks[place] == mark:
            return True
        self._marks[place] = mark
        return False


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
        self._sighted = Doorkeeper().sighted
        self.get = self._answers.get

    def __len__(self) -> int:
        return len(self._answers)

    def offer(self, key: bytes, answer: V, entry: Mortal, weight: int = 0) -> None:
        """Remember `answer` when `key` is seen for the second time."""
        if self._sighted(key):
            self.put(key, answer, entry, weight)

    def put(self, key: bytes, answer: V, entry: Mortal, weight: int = 0) -> None:
        """Remember `answer` until `entry` dies; `weight` is the answer's own bytes."""
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
