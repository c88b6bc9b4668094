"""WORKER: what of a reply is still to be sent, chunk by chunk.

Most replies never come here: a small hit leaves in one system call. Here are replies that did not fit the socket and
those whose content lies in several chunks or is not in memory yet. While one chunk is sent the next is loaded; no more
than these two are pinned, so a slow client holds little memory. When half of the cache is pinned nothing is loaded
ahead, and when three quarters are, a client whose socket is full holds nothing. A connection sends at most 128 KiB in a
turn, so that no download keeps the loop from other clients.

With a `rate` a reply may send as many bytes as the time since its beginning allows, beyond the first ones, which are
free. One that is ahead of its time pauses for a tenth of a second's bytes, at least some KiB.
"""

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry
from flashpy.content import Content
from flashpy.helperpool import HelperPool
from flashpy.http.response import Segment
from flashpy.tasks import Trouble, Waiter

TURN_BYTES = 128 * 1024
DONE, FULL, BLOCKED, BROKEN, PAUSED = range(5)
LEAST_STEP = 4096

_Send = Callable[..., int]


class Outgoing:
    """The rest of a reply for `entry`: ready `views` first, then `segments`. `sent` counts bytes.

    `pause` is how long (seconds) a reply that is PAUSED should be left alone.
    """

    __slots__ = (
        "_ahead",
        "_chunks",
        "_content",
        "_free",
        "_pinned",
        "_pool",
        "_rate",
        "_resume",
        "_segments",
        "_since",
        "_stop",
        "_views",
        "_waiter",
        "entry",
        "pause",
        "sent",
        "trouble",
    )

    def __init__(
        self, chunks: Chunks, content: Content, pool: HelperPool, entry: Entry | None, rate: int = 0, free: int = 0
    ) -> None:
        self._chunks, self._content, self._pool = chunks, content, pool
        self._rate, self._free, self._since = rate, free, pool.now if rate else 0.0
        self.pause = 0.0
        self.entry = entry
        self.sent = 0
        self.trouble: Trouble | None = None
        self._views: list[memoryview] = []
        self._stop = 0
        self._segments: deque[Segment] = deque()
        self._pinned: Chunk | None = None
        self._ahead: Chunk | None = None
        self._waiter: Waiter | None = None
        self._resume: Callable[[], None] | None = None

    def add(self, *pieces: bytes | memoryview) -> None:
        """Ready bytes, to be sent next."""
        self._views += [memoryview(piece) for piece in pieces if len(piece)]

    def hold(self, chunk: Chunk, stop: int) -> None:
        """The last of the ready bytes lie in this chunk, up to the file's byte `stop`."""
        self._chunks.pin(chunk)
        self._pinned = chunk
        self._stop = stop

    def follow(self, segments: tuple[Segment, ...]) -> None:
        """What comes after the ready bytes."""
        self._segments.extend(segments)

    def consume(self, sent: int) -> None:
        """`sent` bytes of the ready ones are gone."""
        self.sent += sent
        views = self._views
        while sent and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]

    def pump(self, send: _Send, resume: Callable[[], None]) -> int:
        """Send what can be sent now: DONE, FULL (wait for the socket), BLOCKED (`resume` will be called), BROKEN, or
        PAUSED (call again after the `pause`).

        The head is not sent before the first byte of content is at hand, so a reply can still become another.
        Raises OSError when the peer is gone.
        """
        budget = self._budget() if self._rate else TURN_BYTES
        if budget <= 0:
            return PAUSED
        while self._views or self._segments:
            while self._segments and (not self._views or (self._pinned is None and not self.sent)):
                if not self._next_view():
                    if self.trouble is not None:
                        return BROKEN
                    self._resume = resume
                    return BLOCKED
            if budget <= 0:
                return FULL
            try:
                sent = send([view[:budget] for view in self._views], (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self._memory_is_short():
                    self._park()
                return FULL
            budget -= sent
            self.consume(sent)
        return DONE

    def _budget(self) -> int:
        """Bytes that may be sent in this turn."""
        step = min(TURN_BYTES, max(LEAST_STEP, self._rate // 10))
        allowed = self._free + int((self._pool.now - self._since) * self._rate) - self.sent
        if allowed >= step:
            return min(allowed, TURN_BYTES)
        self.pause = (step - allowed) / self._rate
        return 0

    def _next_view(self) -> bool:
        """Make the next segment's bytes ready; False when they are not in memory."""
        segment = self._segments[0]
        if isinstance(segment, bytes):
            self._segments.popleft()
            self.add(segment)
            self._stop = 0
            return True
        start, stop = segment
        chunk = self._take(start)
        if chunk is None or chunk.view is None:
            return False
        first = start % self._chunks.arena.top
        size = min(stop - start, chunk.length - first)
        self._segments.popleft()
        if start + size < stop:
            self._segments.appendleft((start + size, stop))
            self._load_ahead(start + size)
        self.add(chunk.view[first : first + size])
        self._stop = start + size
        return True

    def _memory_is_short(self) -> bool:
        return self._chunks.pinned * 4 > self._chunks.arena.total * 3

    def _park(self) -> None:
        """Hold no memory while the client takes nothing: what is left of the chunk is fetched again.

        Otherwise clients that stop reading could pin the whole cache, and every miss would wait for them.
        """
        if self._stop and self._views:
            start, stop = self._stop - len(self._views.pop()), self._stop
            following = self._segments[0] if self._segments else None
            if isinstance(following, tuple) and following[0] == stop:
                self._segments.popleft()
                stop = following[1]
            self._segments.appendleft((start, stop))
            self._stop = 0
        self._release()
        self._drop_ahead()

    def _drop_ahead(self) -> None:
        """Neither hold the chunk after this one nor wait for it."""
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        if self._ahead is not None:
            self._chunks.unpin(self._ahead)
            self._ahead = None

    def _take(self, position: int) -> Chunk | None:
        """The chunk at `position`, pinned in place of the one before; None when it must be waited for."""
        assert self.entry is not None
        chunk, self._ahead = self._ahead, None
        if chunk is None:
            if self._waiter is not None:
                return None
            found = self._content.chunk_at(self.entry, position)
            if not isinstance(found, Chunk):
                self._release()
                self._waiter = self._pool.want(found, self._arrive, must=True)
                return None
            chunk = found
            self._chunks.pin(chunk)
            self._chunks.touch(chunk.key)
        self._release()
        self._pinned = chunk
        return chunk

    def _load_ahead(self, position: int) -> None:
        if self.entry is None or self._chunks.pinned * 2 > self._chunks.arena.total:
            return
        found = self._content.chunk_at(self.entry, position)
        if isinstance(found, Chunk):
            self._chunks.pin(found)
            self._ahead = found
        else:
            self._waiter = self._pool.want(found, self._arrive, must=True)

    def _arrive(self, in_hand: Any) -> None:
        self._waiter = None
        if not isinstance(in_hand, Chunk):
            self.trouble = in_hand
        elif self._resume is not None or not self._memory_is_short():
            self._chunks.pin(in_hand)
            self._ahead = in_hand
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def _release(self) -> None:
        if self._pinned is not None:
            self._chunks.unpin(self._pinned)
            self._pinned = None

    def close(self) -> None:
        """Unpin everything and wait for nothing; safe to call twice."""
        self._resume = None
        self._views.clear()
        self._segments.clear()
        self._drop_ahead()
        self._release()
