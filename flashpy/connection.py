"""WORKER: one client connection: bytes in, answer, bytes out. The state machine of the server.

READING -> WAITING (for a helper) -> SENDING -> READING ... -> LINGERING -> CLOSED. What is asked of epoll, which limit of
time holds and what is done on an event follow from the state, by the tables at the end. WAITING asks for no event at all: a
client that half-closed would make the loop spin, and still gets its reply.

The hot path is `_read`: the whole bytes of a request are looked up in the listener's memo, and a hit is sent in one
system call without parsing, formatting or allocating anything for the request.
"""

import socket
from collections.abc import Callable
from typing import Any, Final

from flashpy import accesslog
from flashpy.answer import Wanted
from flashpy.cache.pathnames import Entry
from flashpy.helperpool import QueueFull, Trouble
from flashpy.http import framing
from flashpy.http.accesstext import quote
from flashpy.http.body import Body
from flashpy.http.request import Gist, Request, Special
from flashpy.http.response import CLOSE, KEEP, KEEP_OLD, Reply, refusal
from flashpy.http.status import Refusal
from flashpy.http.target import parse_target
from flashpy.loop import HANGUP, READ, WRITE
from flashpy.outgoing import BLOCKED, BROKEN, DONE, Outgoing
from flashpy.service import Lane, Service
from flashpy.sites import Site
from flashpy.tasks import Waiter

READING, WAITING, SENDING, LINGERING, CLOSED = range(5)
RECEIVE = 16384
MEMO_HEAD = 4096
LINGER_SECONDS = 5.0
LINGER_BYTES = 1 << 20
PARTING_SECONDS = 1.0
CLIENT_GONE = 499  # nginx's number for a client that did not wait; in the log only
_NOW = socket.MSG_DONTWAIT
# A last reply waits for the FIN that follows in the same turn: one segment and one wakeup of the client less.
_FLAGS: Final = (_NOW, _NOW, _NOW | socket.MSG_MORE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection:
    """A client, from accept to close."""

    __slots__ = (
        "_body",
        "_buffer",
        "_familiar",
        "_fd",
        "_gist",
        "_head",
        "_lane",
        "_lingered",
        "_memo",
        "_outgoing",
        "_recv",
        "_repeats",
        "_reply",
        "_request",
        "_send",
        "_service",
        "_since",
        "_sock",
        "_tail",
        "_tries",
        "_waiter",
        "_watched",
        "address",
        "prefix",
        "served",
        "state",
    )

    def __init__(self, service: Service, lane: Lane, sock: socket.SocketType, address: str) -> None:
        self._service = service
        self._lane = lane
        self._memo = lane.heads.get
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.sendmsg
        self.address = address
        self.prefix = accesslog.prefix(address)
        self.state = READING
        self.served = 0
        self._since = service.loop.now
        self._watched = -1
        self._buffer = b""
        self._head = b""
        self._request: Request | None = None
        self._gist: Gist = ()
        self._familiar = self._repeats = False
        self._reply: Reply | None = None
        self._outgoing: Outgoing | None = None
        self._waiter: Waiter | None = None
        self._body: Body | None = None
        self._tail = KEEP
        self._tries = 0
        self._lingered = 0

    # Reading

    def start(self) -> None:
        """The connection was accepted: its first request is mostly there already (TCP_DEFER_ACCEPT)."""
        self._read(READ)
        if self.state == READING:
            self._watch()

    def _read(self, _mask: int) -> None:
        """Bytes, or the end, of a client that we read from. The hot path: see docs/performance.md."""
        try:
            data = self._recv(RECEIVE, _NOW)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        service = self._service
        found = self._memo(data)
        if found is not None and not self._buffer and self._body is None:
            reply, rest, size = found
            now = service.loop.now
            if (now <= reply.entry.fresh_until or service.usable(reply.entry)) and (
                self.served < service.kept_requests
            ):
                self.served += 1
                self._since = now
                try:
                    sent = self._send((reply.head, service.tail, reply.body), (), _NOW)
                except OSError:
                    sent = 0
                if sent == size:
                    service.answered.append((self, rest, reply))
                    return
                self._gist = self._lane.parser.read(data.split(b"\r\n"))
                self._fell_short(reply, KEEP, sent)
                return
        if not data:
            self._end_of_input()
        elif self._buffer or self._body is not None:
            self._buffer += data
            self._proceed()
        else:
            self._since = service.loop.now
            self._read_first(data)

    def _read_first(self, data: bytes) -> None:
        """Bytes that begin a request: mostly they are exactly one head, and what matters of it was answered before."""
        lane, service = self._lane, self._service
        if data.endswith(b"\r\n\r\n") and len(data) <= service.limits.header_bytes:
            parser = lane.parser
            learned = parser.memory.learned
            try:
                gist = parser.read(data.split(b"\r\n"))
            except Refusal:
                gist = ()  # which of several heads it is, the long way finds out
            known = lane.gists.get(gist)
            if known is not None and self.served < service.kept_requests:
                reply, rest, kind = known
                if self._since <= reply.entry.fresh_until or service.usable(reply.entry):
                    self._gist = gist
                    self.served += 1
                    service.counts.hits += 1
                    self._send_short(reply, rest, kind, data if parser.memory.learned == learned else None)
                    if self._watched != self.state:
                        self._proceed()
                    return
        self._buffer = data
        self._proceed()

    def _fell_short(self, reply: Reply, kind: int, sent: int) -> None:
        """The socket did not take all of a remembered reply: go on as for any other."""
        self._request, _ = self._lane.parser.request(self._gist)
        self._reply = reply
        self._tail = kind
        self._dispatch_rest(reply, sent)
        self._watch()

    def _proceed(self) -> None:
        """Take whole requests from the buffer, in order, until one has to wait or there is none."""
        while self.state == READING and self._buffer:
            try:
                if self._body is not None:
                    self._buffer = self._body.drop(self._buffer)
                    if not self._body.done:
                        break
                    self._body = None
                    self._decide(None)
                elif not self._take_head():
                    break
            except Refusal as problem:
                self._refuse(problem)
        if self.state != CLOSED:
            self._watch()

    def _take_head(self) -> bool:
        """One request head from the buffer; False when it is not complete. Raises Refusal."""
        buffer, limits = self._buffer, self._service.limits
        if buffer[0] in b"\r\n" and framing.is_blank_start(buffer):
            self._head = b""
            if len(buffer) > 1:
                self._buffer = buffer[2:]
            return len(buffer) > 1
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4 or end > limits.header_bytes:
            self._head = buffer
            framing.check_partial(buffer, limits.request_line, limits.header_bytes)
            return False
        self._head = head = buffer[:end]
        self._buffer = buffer[end:]
        self._take_request(head)
        return True

    def _take_request(self, head: bytes) -> None:
        """Parse a head; drop its body first when there is one, then decide. Raises Refusal."""
        parser = self._lane.parser
        learned = parser.memory.learned
        self._request = None
        self._gist = parser.read(head.split(b"\r\n"))
        self._request, self._familiar = parser.request(self._gist)
        self._repeats = self._familiar and parser.memory.learned == learned
        self.served += 1
        self._tries = 0
        special = self._request.special
        if special is not None and (special.length or special.expects):
            self._expect_body(self._request, special)
        else:
            self._decide(None)

    def _expect_body(self, request: Request, special: Special) -> None:
        limit = self._service.limits.body
        if special.length > limit:
            raise Refusal(413, reason="body too large")
        if special.expects and special.length:
            if request.line.method not in (b"GET", b"HEAD", b"OPTIONS"):
                # The client may send its body or not, so this connection's next request could not be found.
                self.served = max(self.served, self._service.kept_requests + 1)
                self._decide(None)
                return
            self._say_continue()
        if special.length:
            self._body = Body(special.length, limit)
        else:
            self._decide(None)

    def _say_continue(self) -> None:
        try:
            self._send((_CONTINUE,), (), _NOW)
        except OSError:
            pass  # full: the client goes on after a while without it; gone: the next read tells

    def _end_of_input(self) -> None:
        """The client will send nothing more."""
        if self._buffer or self._body is not None:
            self._service.counts.disconnects += 1
        self.close()

    # Deciding

    def _decide(self, in_hand: Entry | None) -> None:
        """Answer the request, now or when a helper has brought what it wants."""
        service, request = self._service, self._request
        assert request is not None
        try:
            site = self._choose_site(request)
            answer = service.answerer.answer(request, site, service.loop.now, service.wall, in_hand)
        except Refusal as problem:
            self._refuse(problem)
            return
        if isinstance(answer, Wanted):
            self._want(answer)
            return
        if in_hand is None:
            service.counts.hits += 1
        self._respond(answer)

    def _choose_site(self, request: Request) -> Site:
        """By Host, which must be valid even where the target's host is stronger. Raises Refusal."""
        sites, line = self._service.sites, request.line
        site = sites.choose(request.host) if request.host or line.minor else sites.all[0]
        if line.target.startswith(b"/") or line.target == b"*" or line.method == b"CONNECT":
            return site
        host = parse_target(line.target, dotfiles=True).host
        return sites.choose(host) if host else site

    def _want(self, wanted: Wanted) -> None:
        self._service.counts.misses += 1
        try:
            self._waiter = self._service.pool.want(wanted.job, self._resume)
        except QueueFull:
            raise_busy = Refusal(503, close=False, headers=((b"Retry-After", b"1"),), reason="too many jobs wait")
            self._refuse(raise_busy)
            return
        self._enter(WAITING)

    def _resume(self, in_hand: Any) -> None:
        """A helper has answered: the same step again, with the answer in hand."""
        self._waiter = None
        self._enter(READING)
        try:
            if isinstance(in_hand, Trouble):
                self._refuse_trouble(in_hand)
            else:
                self._decide(in_hand)
            self._proceed_after_event()
        except Exception as problem:
            self.fail(problem)

    def _refuse_trouble(self, trouble: Trouble) -> None:
        if trouble.status == 504:
            self._service.counts.timeouts += 1
        headers = ((b"Retry-After", b"1"),) if trouble.status == 503 else ()
        self._refuse(Refusal(trouble.status, close=False, headers=headers, reason=trouble.reason))

    def _refuse(self, problem: Refusal) -> None:
        """An error is a reply like any other; when the request's end is uncertain, the last one."""
        request = self._request
        if request is None or problem.close:
            self._buffer = b""
            self._body = None
        if problem.reason:
            self._service.log.info(f"{self.address}: {problem.status}: {problem.reason}")
        keep = request is not None and request.keeps and not problem.close
        is_head = request is not None and request.line.method == b"HEAD"
        self._tail = self._choose_tail(keep)
        self._send_reply(refusal(problem, with_body=not is_head))

    def _choose_tail(self, keep: bool) -> int:
        service, request = self._service, self._request
        if not keep or self.served > service.kept_requests:
            return CLOSE
        return KEEP if request is None or request.line.minor else KEEP_OLD

    # Sending

    def _respond(self, reply: Reply) -> None:
        request = self._request
        assert request is not None
        self._tail = self._choose_tail(request.keeps)
        if not reply.lasting or request.special is not None:
            self._send_reply(reply)
            return
        rest = accesslog.rest(request, reply.said)
        if self._familiar and self.served <= self._service.kept_requests:
            self._lane.gists.put(self._gist, (reply, rest, self._tail), reply.entry, len(rest))
        self._send_short(reply, rest, self._tail, self._head if self._repeats else None)

    def _send_short(self, reply: Reply, rest: bytes, kind: int, head: bytes | None) -> None:
        """Send a lasting reply: one system call and one record for the log; a familiar `head` is given to the memo."""
        service = self._service
        tail = service.tails[kind]
        try:
            sent = self._send((reply.head, tail, reply.body), (), _FLAGS[kind])
        except OSError:
            sent = 0  # full or gone: the long way finds out which
        if sent != reply.size + len(tail):
            self._fell_short(reply, kind, sent)
            return
        service.counts.parsed += 1
        service.answered.append((self, rest, reply))
        self._request = None
        if kind == KEEP:
            self._since = service.loop.now
            self.state = READING
            if head and len(head) <= MEMO_HEAD:
                self._lane.heads.put(head, (reply, rest, sent), reply.entry, len(head) + len(rest))
        elif kind == CLOSE:
            self._leave()

    def _leave(self) -> None:
        """The last reply is out: close, or linger when bytes came that nobody read."""
        if self._buffer:
            self.linger()
        else:
            self.close()

    def _send_reply(self, reply: Reply) -> None:
        self._reply = reply
        if reply.stream is not None:
            outgoing = self._new_outgoing(reply)
            outgoing.add(reply.head, self._service.tails[self._tail])
            outgoing.follow(reply.stream)
            self._pump()
            return
        tail = self._service.tails[self._tail]
        try:
            sent = self._send((reply.head, tail, reply.body), (), _FLAGS[self._tail])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        if sent == len(reply.head) + len(tail) + len(reply.body):
            self._finish(reply.length if reply.body else 0)
        else:
            self._dispatch_rest(reply, sent)

    def _dispatch_rest(self, reply: Reply, sent: int) -> None:
        outgoing = self._new_outgoing(reply)
        outgoing.add(reply.head, self._service.tails[self._tail], reply.body)
        if reply.chunk is not None:
            outgoing.hold(reply.chunk)
        outgoing.consume(sent)
        self._since = self._service.loop.now
        self._enter(SENDING)

    def _new_outgoing(self, reply: Reply) -> Outgoing:
        service = self._service
        self._outgoing = Outgoing(service.chunks, service.content, service.pool, reply.entry)
        return self._outgoing

    def _write(self, _mask: int) -> None:
        """The socket takes more."""
        self._pump()
        self._proceed_after_event()

    def _unblocked(self) -> None:
        """A chunk that the reply waited for has come, or will not."""
        try:
            self._pump()
            self._proceed_after_event()
        except Exception as problem:
            self.fail(problem)

    def _pump(self) -> None:
        outgoing = self._outgoing
        assert outgoing is not None
        before = outgoing.sent
        try:
            outcome = outgoing.pump(self._send, self._unblocked)
        except OSError:
            self._lost()
            return
        if outgoing.sent > before:
            self._since = self._service.loop.now
        if outcome == DONE:
            self._finish(self._content_sent(outgoing))
        elif outcome == BLOCKED:
            self._enter(WAITING)
        elif outcome == BROKEN:
            self._break_off(outgoing)
        else:
            self._enter(SENDING)

    def _content_sent(self, outgoing: Outgoing) -> int:
        reply = self._reply
        assert reply is not None
        head = len(reply.head) + len(self._service.tails[self._tail])
        return max(0, outgoing.sent - head)

    def _break_off(self, outgoing: Outgoing) -> None:
        """The file changed or cannot be read. Before the first byte it is decided anew; after it the reply is cut short."""
        trouble, entry = outgoing.trouble, outgoing.entry
        assert trouble is not None and entry is not None
        if self._service.pathnames.is_current(entry) and trouble.status != 504:
            self._service.pathnames.drop(entry.key)
        if outgoing.sent:
            self._service.log.info(f"{self.address}: reply cut short: {trouble.reason}")
            self.close()
            return
        outgoing.close()
        self._outgoing = None
        self._enter(READING)
        self._tries += 1
        if self._tries < 3 and trouble.status != 504:
            self._decide(None)
        else:
            self._refuse_trouble(trouble)

    def _finish(self, content_sent: int) -> None:
        """The reply is out: log it, remember it, and go on as its last field said."""
        reply, request = self._reply, self._request
        assert reply is not None
        self._account(reply.status, content_sent)
        if self._outgoing is not None:
            self._outgoing.close()
            self._outgoing = None
        self._reply = self._request = None
        self._since = self._service.loop.now
        if self._tail != CLOSE:
            self._enter(READING)
        elif request is None or (request.special is not None and request.special.length):
            self.linger()
        else:
            self._leave()

    def _account(self, status: int, content_sent: int) -> None:
        """Count and log a request that is over, well or badly."""
        request = self._request
        if request is not None:
            rest = accesslog.rest(request, accesslog.said(status, content_sent))
        else:
            line = self._head.partition(b"\r\n")[0].partition(b"\n")[0][:1024]
            rest = accesslog.unparsed(quote(line), status)
        self._service.count(status, content_sent, self.prefix, rest)

    # Ending

    def _proceed_after_event(self) -> None:
        if self.state == READING:
            self._proceed()

    def linger(self) -> None:
        """Say that we send no more, and read what the client still sends: a reset could destroy the last reply."""
        self._since = self._service.loop.now
        self._buffer = b""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._enter(LINGERING)
        self._watch()

    def _discard(self, _mask: int) -> None:
        try:
            data = self._recv(RECEIVE, _NOW)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._lingered += len(data)
        if not data or self._lingered > LINGER_BYTES:
            self.close()

    def fail(self, problem: Exception) -> None:
        """A bug of ours: it costs this client a 500 and the connection, and nobody else anything."""
        self._service.log.bug(f"{self.address}: internal error", problem)
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        try:
            if self._reply is None and self.state in (READING, WAITING):
                self._refuse(Refusal(500))
            else:
                self.close()
        except Exception as another:
            self._service.log.bug(f"{self.address}: while closing", another)
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
        if self._reply is not None:
            self._account(self._reply.status, self._content_sent(self._outgoing) if self._outgoing else 0)
        elif self._request is not None:
            self._account(CLIENT_GONE, 0)
        if self._waiter is not None:
            self._waiter.cancel()
        if self._outgoing is not None:
            self._outgoing.close()
        self._waiter = self._outgoing = self._reply = self._request = self._body = None
        self.state = CLOSED
        self._service.connections.pop(self._fd, None)
        self._service.loop.discard(self._fd, self._sock)

    # Time

    def check_time(self, now: float) -> None:
        """Close or answer 408 when the state's limit of time is over. About once a second."""
        if now - self._since > self.patience():
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
            if self._buffer or not self.served:
                return limits.header_timeout
            if self._body is not None:
                return limits.send_timeout
            if self._service.draining:  # counted from its beginning: a request may have set out just before
                return PARTING_SECONDS + max(0.0, self._service.drain_began - self._since)
            return limits.idle_timeout
        return limits.send_timeout if self.state == SENDING else _PATIENCE[self.state]

    def idle_for(self, now: float) -> float:
        """Seconds for which this connection has had no request under way; 0 when it has one."""
        idle = self.state == READING and not self._buffer and self._body is None and self.served > 0
        return now - self._since if idle else 0.0

    # State

    def _enter(self, state: int) -> None:
        assert (self.state, state) in TRANSITIONS, (self.state, state)
        self.state = state
        if state != READING:
            self._watch()

    def _watch(self) -> None:
        """Ask epoll for what the state wants, when that has changed."""
        state = self.state
        if self._watched == state or state == CLOSED:
            return
        loop, action = self._service.loop, ACTIONS[state].__get__(self)
        if self._watched < 0:
            loop.add(self._fd, EVENTS[state], action)
        else:
            loop.modify(self._fd, EVENTS[state], action)
        self._watched = state


TRANSITIONS: Final = frozenset(
    {
        (READING, READING),
        (READING, WAITING),
        (READING, SENDING),
        (READING, LINGERING),
        (WAITING, READING),
        (WAITING, WAITING),
        (WAITING, SENDING),
        (WAITING, LINGERING),
        (SENDING, READING),
        (SENDING, WAITING),
        (SENDING, SENDING),
        (SENDING, LINGERING),
    }
)
EVENTS: Final = (READ, 0, WRITE, READ)
ACTIONS: Final[tuple[Callable[..., None], ...]] = (
    Connection._read,
    Connection._hung_up,
    Connection._write,
    Connection._discard,
)
_PATIENCE: Final = (0.0, 1e9, 0.0, LINGER_SECONDS)
