"""WORKER: whether a client has used up its share: of requests in time, of connections at a time.

Asked once for each connection and request, and only where a limit is set: without one there is no meter. A remembered
reply is looked up through the meter then, so what is answered from memory counts like everything else.

A client is known by the prefix of its log lines, which a remembered head of a proxy has as well. Who has no address is
never limited: a trusted proxy that does not say whose a request is (b""), and the peer on a unix socket.
"""

from collections.abc import Callable
from typing import Any

from flashpy.config import Limits
from flashpy.http.peers import UNIX
from flashpy.loop import Loop
from flashpy.shares import Share, place_of

_LOCAL = UNIX.encode()
Find = Callable[[bytes], Any]


class Meter:
    """The limits for each client, by what all workers together know of it."""

    def __init__(self, share: Share, limits: Limits, loop: Loop) -> None:
        self._share, self._loop = share, loop
        self._connections = limits.client_connections
        self._seconds = 1.0 / limits.client_requests if limits.client_requests else 0.0
        # So far ahead may the time be when the bucket is full: the burst but for the request itself.
        self._ahead = self._seconds * ((limits.client_burst or limits.client_requests) - 1) + 1e-9

    def enter(self, prefix: bytes) -> None:
        """A connection of this client began."""
        place = place_of(prefix)
        if self._share.own[place] < 0xFFFF:
            self._share.own[place] += 1

    def leave(self, prefix: bytes) -> None:
        """It is over."""
        place = place_of(prefix)
        if self._share.own[place]:
            self._share.own[place] -= 1

    def is_crowded(self, prefix: bytes) -> bool:
        """Whether this client has as many connections as it may have, so that another is one too many."""
        if not self._connections:
            return False
        place = place_of(prefix)
        return sum([row[place] for row in self._share.rows]) >= self._connections

    def wait(self, prefix: bytes) -> float:
        """Count a request: 0.0, or how long (seconds) the client has to wait, and the request is not counted."""
        if not self._seconds or not prefix or prefix.startswith(_LOCAL):
            return 0.0
        place, now = place_of(prefix), self._loop.now
        full_at = max(now, self._share.full_at[place])
        if full_at - now > self._ahead:
            return full_at - now - self._ahead
        self._share.full_at[place] = full_at + self._seconds
        return 0.0

    def finder(self, find: Find, prefix: bytes) -> Find:
        """A look into the memory of heads that counts: None, as for an unknown head, for a client who has to wait.

        The prefix that is remembered with a head of a proxy is its client's; `prefix` is the peer's own.
        """

        def look(head: bytes) -> Any:
            known = find(head)
            return None if known is None or self.wait(known[-1] or prefix) else known

        return look
