"""WORKER: how a reply gets out: the short way in one system call, or the long way piece by piece.

The short way is for lasting replies, which depend on the request and the entry alone: ready head, last fields and body
leave together, one record is kept for the log. Whatever does not fit the socket or is not in memory goes the long way,
through `outgoing`.
"""

import socket
from functools import partial
from typing import Any, Final

from flashpy import accesslog
from flashpy.client import NOW, Client
from flashpy.http.response import CLOSE, KEEP, KEEP_OLD, Reply, refusal
from flashpy.http.status import Refusal
from flashpy.loglines import HIT, REFUSED
from flashpy.outgoing import BLOCKED, BROKEN, DONE, PAUSED, Outgoing
from flashpy.states import READING, SENDING, WAITING
from flashpy.tasks import Trouble

TRIES = 3
# A last reply waits for the FIN that follows in the same turn: one segment and one wakeup of the client less.
FLAGS: Final = (NOW, NOW, NOW | socket.MSG_MORE)


class Replying(Client):
    """The sending side of a connection."""

    __slots__ = ()

    def _respond(self, reply: Reply) -> None:
        request = self._request
        assert request is not None
        self._kind = self._choose_kind(request.keeps)
        if not reply.lasting or request.has_body or self._is_measured(reply):
            self._send_reply(reply)
            return
        lines, prefix = self._service.lines, self._client_prefix()
        if lines.written is None:
            rest = accesslog.rest(request, reply.said)
        else:
            rest = lines.written.rest(request, reply.said, self.origin.scheme)
        if self._familiar and self.served <= self._service.kept_requests:
            size = reply.size + len(self._service.tails[self._kind])
            known = (reply, rest, self._kind, size, prefix)
            self._lane.gists.put(self._gist, known, reply.entry, len(rest) + request.weight)
        if lines.written is None and not lines.traces:
            self._send_short(reply, rest, self._kind, prefix, b"")
        else:
            self._send_reply(reply)  # its line is of its own, for it may have waited

    def _send_short(self, reply: Reply, rest: bytes, kind: int, prefix: bytes, head: bytes) -> None:
        """Send a lasting reply: one system call, and one record for the counters and the log.

        `head` is what the client sent, unless the request is known already.
        """
        service = self._service
        tail, whole = service.tails[kind], reply.whole[kind]
        try:
            if whole:
                send = self._send
                sent = send(whole, FLAGS[kind])
            else:
                sent = self._sock.sendmsg((reply.head, tail, reply.body), (), FLAGS[kind])
                service.warm(reply, kind)
        except OSError:
            sent = 0  # full or gone: the long way finds out which
        if sent != reply.size + len(tail):
            self._fell_short(reply, kind, sent, head)
            return
        append = service.append_hit
        append((prefix or self.prefix, rest, reply))
        service.answered_otherwise += 1
        request, self._request = self._request, None
        if kind != CLOSE:
            self._since = service.loop.now
            self.state = READING
        else:
            self._kind = kind
            self._leave((request is not None and request.keeps) or self._waits > 0)

    def _leave(self, unexpected: bool) -> None:
        """The last reply is out: close, or linger when the client did not ask for it and may still send, or has had
        time to send more all the same: bytes that nobody read would reset away what is on its way to it.
        """
        if self._buffer or unexpected:
            self.linger()
            return
        self.close()

    def _send_reply(self, reply: Reply) -> None:
        self._reply = reply
        if reply.stream is not None:
            outgoing = self._new_outgoing(reply)
            outgoing.add(reply.head, self._tail())
            outgoing.follow(reply.stream)
            self._pump()
            return
        if self._is_measured(reply):
            self._ready_outgoing(reply)
            self._pump()
            return
        tail = self._tail()
        try:
            sent = self._sock.sendmsg((reply.head, tail, reply.body), (), FLAGS[self._kind])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        if sent == len(reply.head) + len(tail) + len(reply.body):
            self._finish(reply.length if reply.body else 0)
        else:
            self._dispatch_rest(reply, sent)

    def _ready_outgoing(self, reply: Reply) -> Outgoing:
        """A reply that is all at hand."""
        outgoing = self._new_outgoing(reply)
        outgoing.add(reply.head, self._tail(), reply.body)
        if reply.chunk is not None:
            outgoing.hold(reply.chunk, reply.stop)
        return outgoing

    def _dispatch_rest(self, reply: Reply, sent: int) -> None:
        self._ready_outgoing(reply).consume(sent)
        self._since = self._service.loop.now
        self._enter(SENDING)

    def _new_outgoing(self, reply: Reply) -> Outgoing:
        service = self._service
        limits = service.limits
        self._outgoing = Outgoing(
            service.chunks, service.content, service.pool, reply.entry, limits.rate, limits.rate_after
        )
        return self._outgoing

    def _is_measured(self, reply: Reply) -> bool:
        """Whether the reply is so long that it must not be sent as fast as it can."""
        limits = self._service.limits
        return limits.rate > 0 and reply.length > limits.rate_after

    def _fell_short(self, reply: Reply, kind: int, sent: int, head: bytes) -> None:
        """The socket did not take all of a remembered reply: go on as for any other."""
        if self._request is None:
            parser = self._lane.parser
            self._gist = parser.read(head.split(b"\r\n"))
            self._request, self._familiar = parser.request(self._gist)
            self.origin = self._lane.origin(self._request)
            self._tries = 0
            self._began, self._how = self._since, HIT
        self._reply = reply
        self._kind = kind
        self._dispatch_rest(reply, sent)
        self._watch()

    def _choose_kind(self, keep: bool) -> int:
        service, request = self._service, self._request
        if not keep or self.served > service.kept_requests:
            return CLOSE
        return KEEP if request is None or request.line.minor else KEEP_OLD

    def _refuse_trouble(self, trouble: Trouble) -> None:
        if trouble.status == 504:
            self._service.counts.timeouts += 1
        self._refuse(trouble.refusal())

    def _refuse(self, problem: Refusal) -> None:
        """An error is a reply like any other; when the request's end is uncertain, the last one."""
        request = self._request
        self._how = REFUSED
        if request is None or problem.close:
            self._buffer = b""
            self._body = None
        if problem.reason:
            self._service.log.info(f"{self.client()}: {problem.status}: {problem.reason}{self._asked_for()}")
        keep = request is not None and request.keeps and not problem.close
        is_head = request is not None and request.line.method == b"HEAD"
        self._kind = self._choose_kind(keep)
        self._send_reply(refusal(problem, with_body=not is_head))

    def _write(self, _mask: int) -> None:
        """The socket takes more."""
        self._pump()
        self._proceed_after_event()

    def _go_on(self, outgoing: Outgoing) -> None:
        """The pause of a reply is over, if it is still the one under way."""
        if self._outgoing is outgoing:
            self._unblocked()

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
            outcome = outgoing.pump(self._sock.sendmsg, self._unblocked)
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
        elif outcome == PAUSED:
            self._enter(WAITING)
            self._service.loop.later(outgoing.pause, partial(self._go_on, outgoing))
        else:
            self._enter(SENDING)

    def _break_off(self, outgoing: Outgoing) -> None:
        """The file changed or cannot be read: before the first byte decide anew, after it cut the reply short."""
        trouble, entry = outgoing.trouble, outgoing.entry
        assert trouble is not None
        assert entry is not None
        if self._service.pathnames.is_current(entry.source) and trouble.status != 504:
            self._service.pathnames.drop(entry.key)
        if outgoing.sent:
            self._service.log.info(f"{self.client()}: reply cut short: {trouble.reason}{self._asked_for()}")
            self.close()
            return
        outgoing.close()
        self._outgoing = self._reply = None
        self._enter(READING)
        self._tries += 1
        if self._tries < TRIES and trouble.status != 504:
            self._decide(None)
        else:
            self._refuse_trouble(trouble)

    def _finish(self, content_sent: int) -> None:
        """The reply is out: log it, and go on as its last field said."""
        reply, request = self._reply, self._request
        assert reply is not None
        self._account(reply.status, content_sent)
        took_long = self._outgoing is not None or self._waits > 0
        if self._outgoing is not None:
            self._outgoing.close()
            self._outgoing = None
        self._reply = self._request = None
        self._since = self._service.loop.now
        if self._kind != CLOSE:
            self._enter(READING)
        else:
            has_body = request is None or (request.special is not None and request.special.length != 0)
            self._leave(took_long or has_body or (request is not None and request.keeps))

    # What the room above adds

    def _proceed(self) -> None:
        """Take the next requests from the buffer."""
        raise NotImplementedError

    def _decide(self, in_hand: Any) -> None:
        """Answer the request under way."""
        raise NotImplementedError

    def _proceed_after_event(self) -> None:
        if self.state == READING:
            self._proceed()
