"""WORKER: what makes a client's connection: its state, its time, its end. `replying` and `connection` build on it.

One object for each client, in three rooms: here its life, in `replying` how a reply gets out, in `connection` how
requests come in and are decided. The arrows go down: what is here knows nothing of requests but that one is under way.
"""

import socket
import time

from flashpy import accesslog
from flashpy.http.accesstext import escape, quote
from flashpy.http.body import Body
from flashpy.http.lines import Gist
from flashpy.http.request import Request
from flashpy.http.response import CLOSE, KEEP, Reply
from flashpy.http.status import Refusal
from flashpy.http.tracing import request_id, traceparent
from flashpy.loglines import GONE, HIT, STALE, Written
from flashpy.loop import HANGUP
from flashpy.meter import Find
from flashpy.outgoing import Outgoing
from flashpy.service import NOBODY, Lane, Service
from flashpy.states import ACTIONS, CLOSED, EDGES, EVENTS, LINGERING, READING, SENDING, TRANSITIONS, WAITING
from flashpy.tasks import Waiter

RECEIVE = 16384
LINGER_SECONDS = 5.0
LINGER_BYTES = 1 << 20
PARTING_SECONDS = 1.0
_FOR_EVER = float("inf")  # waiting for a helper: its time is the pool's to watch
CLIENT_GONE = 499  # nginx's number for a client that did not wait; in the log only
NOW = socket.MSG_DONTWAIT
_SHOWN = 300  # bytes of what was asked for that stand in the error log; the access log has all


class Client:
    """A client's connection, from accept to close.

    `_buffer` is what has come and was not taken yet. Of the request under way are `_head`, `_gist` and `_request`; it
    is `_familiar` when its like came before, and only then its reply is remembered; so often it has waited (`_waits`).
    Of its reply are `_reply`, the `_kind` of its last fields and `_outgoing`, what is left of it. `_since` (monotonic
    seconds) is the last progress. What only some log formats want of it is when it `_began`, `_how` it is served, and
    its `_id`.

    `address` and `prefix` (of its log lines) are the peer's, which may be a proxy. What a trusted proxy says of the
    request under way is its `origin`: the client's address, and scheme and host as that client used them. It holds as
    long as there is a `_request`.
    """

    __slots__ = (
        "_began",
        "_blanks",
        "_body",
        "_buffer",
        "_edges",
        "_familiar",
        "_fd",
        "_gist",
        "_head",
        "_how",
        "_id",
        "_kind",
        "_lane",
        "_lingered",
        "_memo",
        "_outgoing",
        "_recv",
        "_reply",
        "_request",
        "_send",
        "_service",
        "_since",
        "_sock",
        "_tries",
        "_waiter",
        "_waits",
        "_watched",
        "address",
        "origin",
        "prefix",
        "served",
        "state",
    )

    def __init__(self, service: Service, lane: Lane, sock: socket.SocketType, address: str) -> None:
        self._service = service
        self._lane = lane
        self.prefix = accesslog.prefix(address)
        self._memo: Find = lane.heads.get
        if lane.meter is not None:
            lane.meter.enter(self.prefix)
            self._memo = lane.meter.finder(self._memo, b"" if lane.trusted else self.prefix)
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self.address = address
        self.state = READING
        self.served = 0
        self._since = service.loop.now
        self._watched = -1
        self._edges = True
        self._buffer = b""
        self._head = b""
        self._request: Request | None = None
        self.origin = NOBODY
        self._gist: Gist = ()
        self._familiar = False
        self._reply: Reply | None = None
        self._outgoing: Outgoing | None = None
        self._waiter: Waiter | None = None
        self._body: Body | None = None
        self._kind = KEEP
        self._tries = self._waits = 0
        self._lingered = self._blanks = 0
        self._began, self._how, self._id = self._since, HIT, b""

    # Whose request it is

    def client(self) -> str:
        """The address of whoever asks: as trusted proxies say for the request under way, else the peer's."""
        return (self.origin.address if self._request is not None else None) or self.address

    def _asked_for(self) -> str:
        """The request under way, as the end of a line of the error log; "" while none was read."""
        request = self._request
        if request is None:
            return ""
        host = escape((self.origin.host or request.host)[:_SHOWN]).decode("ascii")
        return f": {request.line.quoted[:_SHOWN].decode('ascii')} for {host or 'no host'}"

    def _client_prefix(self) -> bytes:
        """The beginning of the log line that is of `client`; b"" when that is the peer's own."""
        address = self.origin.address if self._request is not None else None
        return accesslog.prefix(address) if address is not None else b""

    # State

    def _enter(self, state: int) -> None:
        assert (self.state, state) in TRANSITIONS, (self.state, state)
        self.state = state
        if state != READING:
            self._watch()

    def _watch(self, *, anew: bool = False) -> None:
        """Ask epoll for what the state wants, when that has changed (or `anew`)."""
        state = self.state
        if (self._watched == state and not anew) or state == CLOSED:
            return
        loop, action = self._service.loop, getattr(self, ACTIONS[state])
        events = EDGES if state == READING and self._edges else EVENTS[state]
        if self._watched < 0:
            loop.add(self._fd, events, action)
        else:
            loop.modify(self._fd, events, action)
        self._watched = state

    def _distrust_edges(self) -> None:
        """From now on be told of bytes that were left unread, and of an end that came with the last of them."""
        if self._edges:
            self._edges = False
            if self._watched == READING:
                self._watch(anew=True)

    # Ending

    def linger(self) -> None:
        """Say that we send no more, and read what the client still sends: a reset could destroy the last reply."""
        self._since = self._service.loop.now
        self._buffer = b""
        if not self._say_end():
            self.close()
            return
        self._enter(LINGERING)
        self._watch()

    def _say_end(self) -> bool:
        """Send what is still held back, and the FIN; False when the peer is gone."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def _discard(self, _mask: int) -> None:
        try:
            data = self._recv(RECEIVE, NOW)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._lingered += len(data)
        if not data or self._lingered > LINGER_BYTES:
            self.close()

    def fail(self, problem: Exception) -> None:
        """A bug of ours: it costs this client a 500 and the connection, and nobody else anything."""
        self._service.log.bug(f"{self.client()}: internal error", problem)
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        try:
            if self._reply is None and self.state in (READING, WAITING):
                self._refuse(Refusal(500))
            else:
                self.close()
        except Exception as another:
            self._service.log.bug(f"{self.client()}: while closing", another)
            self.close()

    def _hung_up(self, mask: int) -> None:
        """While waiting only a dead connection is of interest."""
        if mask & HANGUP:
            self._lost()

    def _lost(self) -> None:
        """A peer that disappears is not an error."""
        self._service.counts.disconnects += 1
        self.close()

    def close(self) -> None:
        """Let go of everything; a request that got no whole reply is logged with what was sent."""
        if self.state == CLOSED:
            return
        if self._reply is not None or self._request is not None:
            self._give_up()
        self.state = CLOSED
        self._service.connections.pop(self._fd, None)
        if self._lane.meter is not None:
            self._lane.meter.leave(self.prefix)
        close = self._push_and_close if self._kind == CLOSE else self._sock.close
        if self._watched < 0:
            close()  # epoll never knew it, so no event of this turn can mean it, and its memory is still warm
        else:
            self._service.loop.discard(self._fd, close)

    def _give_up(self) -> None:
        """The request under way gets no more of its reply."""
        if self._reply is not None:
            self._account(self._reply.status, self._content_sent(self._outgoing) if self._outgoing else 0)
        else:
            self._account(CLIENT_GONE, 0)
        if self._waiter is not None:
            self._waiter.cancel()
        if self._outgoing is not None:
            self._outgoing.close()
        self._waiter = self._outgoing = self._reply = self._request = None

    def _push_and_close(self) -> None:
        """Let out what MSG_MORE holds back: closing over bytes that nobody read would reset it away."""
        self._say_end()
        self._sock.close()

    def _account(self, status: int, content_sent: int) -> None:
        """Count and log a request that is over, well or badly."""
        service, request = self._service, self._request
        written = service.lines.written
        prefix = self._client_prefix() or self.prefix
        user = self._reply.user if self._reply is not None else b""
        if written is not None:
            line = self._write_line(written, prefix, accesslog.said(status, content_sent), user)
        else:
            if request is not None:
                rest = accesslog.rest(request, accesslog.said(status, content_sent))
            else:
                rest = accesslog.unparsed(quote(self._first_line()), status, content_sent)
            line = (accesslog.with_user(prefix, user) if user else prefix) + service.stamp + rest
        service.count(status, content_sent, line)
        self._id = b""

    def _write_line(self, written: Written, prefix: bytes, outcome: bytes, user: bytes) -> bytes:
        request, reply, served = self._request, self._reply, self._how
        if reply is None:
            served = GONE
        elif served is HIT and reply.entry is not None and written.is_stale(reply.entry, self._began):
            served = STALE
        scheme = self.origin.scheme if request is not None else None
        rest = written.rest(request or self._first_line(), outcome, scheme, user)
        trace = traceparent(self._head) if written.wants_traceparent else b""
        return written.line(prefix, rest, time.monotonic() - self._began, served, self._name(), trace)

    def _first_line(self) -> bytes:
        """Of what could not be parsed."""
        return self._head.partition(b"\r\n")[0].partition(b"\n")[0][:1024]

    def _name(self) -> bytes:
        """The id of the request under way: what a trusted proxy calls it, or one of our own; b"" when nobody asks."""
        ids = self._service.lines.ids
        if ids is not None and not self._id:
            self._id = (request_id(self._head) if self._lane.trusted is not None else b"") or ids.new()
        return self._id

    def _tail(self) -> bytes:
        """The last fields of the reply under way."""
        tail = self._service.tails[self._kind]
        return b"X-Request-ID: %b\r\n%b" % (self._name(), tail) if self._service.lines.echo else tail

    def _content_sent(self, outgoing: Outgoing) -> int:
        reply = self._reply
        assert reply is not None
        head = len(reply.head) + len(self._tail())
        return max(0, outgoing.sent - head)

    # Time

    def check_time(self, now: float) -> None:
        """Close or answer 408 when the state's limit of time is over. About once a second."""
        if self.state != CLOSED and now - self._since > self.patience():
            if self.state == READING and self._service.draining and not self._buffer and self._body is None:
                self.linger()
                return
            self._service.counts.timeouts += 1
            if self.state == READING and (self._buffer or self._body is not None):
                self._refuse(Refusal(408, reason="request not complete in time"))
            else:
                self.close()

    def patience(self) -> float:
        """Seconds that this state may last without progress."""
        limits = self._service.limits
        if self.state == READING:
            if self._body is not None:
                return limits.send_timeout
            if self._buffer or not self.served:
                return limits.header_timeout
            if self._service.draining:  # counted from its beginning: a request may have set out just before
                return PARTING_SECONDS + max(0.0, self._service.drain_began - self._since)
            return limits.idle_timeout
        if self.state == LINGERING:
            return PARTING_SECONDS if self._service.draining else LINGER_SECONDS
        return limits.send_timeout if self.state == SENDING else _FOR_EVER

    def idle_for(self, now: float) -> float:
        """Seconds for which this connection has had no request under way; 0 when it has one."""
        idle = self.state == READING and not self._buffer and self._body is None and self.served > 0
        return now - self._since if idle else 0.0

    # What the rooms above add

    def _refuse(self, problem: Refusal) -> None:
        """Answer with an error."""
        raise NotImplementedError
