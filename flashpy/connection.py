"""WORKER: how requests come in on a client's connection, and how each is decided.

The hot path is `_read`: the whole bytes of a request are looked up in the listener's memo, and a hit is sent in one
system call without parsing, formatting or allocating anything for the request. A head that is not found goes to
`_read_first`: without its volatile lines, or by what matters of it, its reply may be ready too. Everything else goes
through the buffer: `_proceed` takes whole requests from it, in order, and `_decide` answers each, at once or when a
helper has answered.
"""

import contextlib
import math
from functools import partial
from typing import Any

from flashpy.asking import NOTHING, InHand, Wanted
from flashpy.client import NOW, RECEIVE
from flashpy.helperpool import QueueFull
from flashpy.http import framing
from flashpy.http.body import Body
from flashpy.http.lines import TRIMMED
from flashpy.http.request import Request, Special
from flashpy.http.response import CLOSE
from flashpy.http.status import Refusal
from flashpy.http.target import parse_target
from flashpy.loglines import HIT, MISS
from flashpy.loop import READ
from flashpy.replying import FLAGS, Replying
from flashpy.service import Remembered
from flashpy.sites import Site
from flashpy.states import CLOSED, READING, WAITING
from flashpy.tasks import Trouble
from flashpy_helpers.wire import HeavyJob

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BLANK_LINES = 8
# A longer head is not worth its place in the memo: its client will mostly send another one.
MEMO_HEAD = 4096
# A path, an index in its place and the page of an error are three, a password, three siblings and a digest five more.
# When a cache is so small that it cannot keep what was found for one of them until the other is there, a request could
# wait for them in turn for ever.
WAITS = 12


class Connection(Replying):
    """A client: reads its requests and decides them."""

    __slots__ = ()

    def start(self, data: bytes = b"") -> None:
        """The connection was accepted: its first request is mostly there already (TCP_DEFER_ACCEPT).

        `data` are bytes of it that came with what stood before it.
        """
        if data:
            self._read_first(data)
        else:
            self._read(READ)
        if self.state == READING:
            self._watch()

    def _read(self, mask: int) -> None:
        """Bytes, or the end, of a client that we read from. The hot path: see docs/performance.md.

        Bound methods are taken from their slots before they are called: CPython 3.11 looks up `self._recv(...)` as a
        method, in vain, which takes 30 ns each time.
        """
        if mask != READ:
            self._distrust_edges()
        receive, find = self._recv, self._memo
        try:
            data = receive(RECEIVE, NOW)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        service = self._service
        found = find(data)
        if found is not None and not self._buffer and self._body is None:
            reply, rest, kind, size, prefix = found
            now = service.loop.now
            if (now <= reply.entry.fresh_until or service.usable(reply.entry)) and (
                self.served < service.kept_requests
            ):
                self.served += 1
                self._since = now
                whole = reply.whole[kind]
                try:
                    if whole:
                        send = self._send
                        sent = send(whole, FLAGS[kind])
                    else:
                        sent = self._sock.sendmsg((reply.head, service.tails[kind], reply.body), (), FLAGS[kind])
                        service.warm(reply, kind)
                except OSError:
                    sent = 0
                if sent == size:
                    service.answered.append((prefix or self.prefix, rest, reply))
                    if kind == CLOSE:
                        self._kind = kind
                        self.close()
                    return
                self._fell_short(reply, kind, sent, data)
                return
        if len(data) == RECEIVE:
            self._distrust_edges()
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
        service = self._service
        if data.endswith(b"\r\n\r\n") and len(data) <= service.head_limit and self.served < service.kept_requests:
            known = self._recall(data)
            if known is not None and (self._lane.meter is None or not self._has_to_wait(known[-1])):
                reply, rest, kind, _, prefix = known
                if self._since <= reply.entry.fresh_until or service.usable(reply.entry):
                    self.served += 1
                    service.counts.hits += 1
                    self._send_short(reply, rest, kind, prefix, data)
                    return
        self._buffer = data
        self._proceed()

    def _recall(self, head: bytes) -> Remembered | None:
        """What was answered before to a head that means the same. It is remembered for the rest of the head, without
        its volatile lines, unless another line was new.
        """
        lane, key = self._lane, head
        memory = lane.memory
        if memory.trim is not None and len(head) <= MEMO_HEAD:
            key = memory.trim(b"", head, TRIMMED)
            known = lane.heads.get(key)
            if known is not None:
                return known
        learned, lines = memory.learned, head.split(b"\r\n")
        try:
            known = lane.gists.get(lane.parser.read(lines))
        except Refusal:
            return None  # which of several heads it is, the long way finds out
        if known is not None and len(head) <= MEMO_HEAD:
            # Volatile lines are looked at each time. A head found by this key may have up to TRIMMED lines more.
            trimmed = head.count(b"\r\n") - key.count(b"\r\n") if key is not head else 0
            if memory.learned - learned == trimmed and lane.parser.allows(len(lines) + TRIMMED):
                lane.heads.put(key, known, known[0].entry, len(key) + len(known[1]))
        return known

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
        self._began, self._how = self._since, HIT
        if buffer[0] in b"\r\n" and framing.is_blank_start(buffer):
            self._head = b""
            if len(buffer) > 1:
                self._buffer = buffer[2:]
                self._blanks += 1
            if self._blanks > _BLANK_LINES:
                raise Refusal(400, reason="empty lines instead of a request")
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
        self._request = None
        self._gist = parser.read(head.split(b"\r\n"))
        self._request, self._familiar = parser.request(self._gist)
        self.origin = self._lane.origin(self._request)
        self.served += 1
        self._tries = self._waits = self._blanks = 0
        if self._lane.meter is not None:
            self._admit(self._request)
        special = self._request.special
        if special is not None and (special.length or special.expects):
            self._expect_body(self._request, special)
        else:
            self._decide(None)

    def _has_to_wait(self, prefix: bytes) -> float:
        """Seconds, 0.0 when the request is within its client's share; `prefix` is the client's if a proxy says it."""
        meter = self._lane.meter
        if meter is None:
            return 0.0
        return meter.wait(prefix or (b"" if self._lane.trusted else self.prefix))

    def _admit(self, request: Request) -> None:
        """Raises Refusal 429 for a client that has used up its share (RFC 6585)."""
        wait = 1.0 if self._lane.crowded else self._has_to_wait(self._client_prefix())
        if wait:
            self._service.counts.limited += 1
            close = self._lane.crowded or request.has_body
            raise Refusal(429, close=close, headers=((b"Retry-After", b"%d" % math.ceil(wait)),))

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
        # Full: the client goes on after a while without it. Gone: the next read tells.
        with contextlib.suppress(OSError):
            self._sock.sendmsg((_CONTINUE,), (), NOW)

    def _end_of_input(self) -> None:
        """The client will send nothing more."""
        if self._buffer or self._body is not None:
            self._service.counts.disconnects += 1
        self.close()

    # Deciding

    def _decide(self, in_hand: InHand | None) -> None:
        """Answer the request, now or when a helper has brought what it wants."""
        service, request = self._service, self._request
        assert request is not None
        try:
            site = self._choose_site(request)
            secure = self.origin.scheme == b"https"
            answer = service.answerer.answer(request, site, service.loop.now, service.wall, in_hand or NOTHING, secure)
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
        """By Host, which must be valid even where another one is stronger: what a trusted proxy says that its client
        asked for, or the target's. Raises Refusal.
        """
        sites, line = self._service.sites, request.line
        site = sites.choose(request.host) if request.host or line.minor else sites.all[0]
        if self.origin.host is not None:
            return sites.choose(self.origin.host)
        if line.target.startswith(b"/") or line.target == b"*" or line.method == b"CONNECT":
            return site
        host = parse_target(line.target, dotfiles=True).host
        return sites.choose(host) if host else site

    def _want(self, wanted: Wanted) -> None:
        self._service.counts.misses += 1
        self._waits += 1
        self._how = MISS
        if self._waits > WAITS:
            self._refuse(Refusal(503, close=False, headers=((b"Retry-After", b"1"),), reason="no end of waiting"))
            return
        job = wanted.job
        try:
            if isinstance(job, HeavyJob):
                pool = self._service.heavy
                assert pool is not None
                self._waiter = pool.want(job, partial(self._resume_after, wanted))
            else:
                self._waiter = self._service.pool.want(job, self._resume)
        except QueueFull:
            trouble = Trouble(503, "too many jobs wait")
            if isinstance(job, HeavyJob):  # there may be another way
                self._decide(wanted.in_hand.without(job, trouble))
            else:
                self._refuse_trouble(trouble)
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
                self._decide(InHand(in_hand))
            self._proceed_after_event()
        except Exception as problem:
            self.fail(problem)

    def _resume_after(self, wanted: Wanted, trouble: Trouble | None) -> None:
        """A heavy helper has answered, or come to nothing."""
        self._waiter = None
        self._enter(READING)
        try:
            if trouble is not None and isinstance(wanted.job, HeavyJob):
                self._decide(wanted.in_hand.without(wanted.job, trouble))
            else:
                self._decide(wanted.in_hand)
            self._proceed_after_event()
        except Exception as problem:
            self.fail(problem)
