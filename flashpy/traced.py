"""WORKER: a client where ids of requests or traces are logged or sent back (see loglines.Lines.traces).

No reply depends on them, so they are in no key of a memo. What was remembered is sent here with what this one request
has of its own: two more looks at its head, a last field more, and its line at once. A whole head is no shortcut then.
"""

import time
from typing import Any

from flashpy.connection import Connection
from flashpy.http.response import CLOSE, Reply
from flashpy.http.tracing import traceparent
from flashpy.loglines import HIT, STALE
from flashpy.replying import FLAGS
from flashpy.service import Lane, Service
from flashpy.states import READING


def connection_of(service: Service) -> type[Connection]:
    """What a client becomes."""
    return Traced if service.lines.traces else Connection


def _unknown(_head: bytes) -> Any:
    """What is known of a whole head: nothing."""


class Traced(Connection):
    """A client whose every request has something of its own."""

    __slots__ = ()

    def __init__(self, service: Service, lane: Lane, sock: Any, address: str) -> None:
        super().__init__(service, lane, sock, address)
        self._memo = _unknown

    def _send_short(self, reply: Reply, rest: bytes, kind: int, prefix: bytes, head: bytes) -> None:
        """Send what was found by a part of this head."""
        self._head, self._kind, self._id, self._began = head, kind, b"", self._since
        tail = self._tail()
        try:
            sent = self._sock.sendmsg((reply.head, tail, reply.body), (), FLAGS[kind])
        except OSError:
            sent = 0
        if sent != reply.size + len(tail):
            self._fell_short(reply, kind, sent, head)
            return
        self._service.count(reply.status, reply.length, self._line_of(reply, prefix or self.prefix, rest))
        self._id = b""
        if kind != CLOSE:
            self.state = READING
        else:
            self._leave(unexpected=False)

    def _line_of(self, reply: Reply, prefix: bytes, rest: bytes) -> bytes:
        written = self._service.lines.written
        if written is None:
            return prefix + self._service.stamp + rest
        served = STALE if written.is_stale(reply.entry, self._began) else HIT
        trace = traceparent(self._head) if written.wants_traceparent else b""
        return written.line(prefix, rest, time.monotonic() - self._began, served, self._name(), trace)
