"""WORKER: accepting clients, and not accepting them when there is no room.

Up to 64 at a time, so that a flood of newcomers does not starve those who are served, and no more than last time but by
half: to find nobody costs 4 microseconds, a quarter of a whole connection, and whoever is left knocks again. At the
limit of `connections` the one that has been idle longest makes room; when none is idle the listeners rest until a
connection closes: then the kernel's queue holds the newcomers, as it does while descriptors have run out.

A client's socket is the plain C type under `socket.socket`, made from what the listener's own `_accept` gives: the
wrapper asks for timeouts and copies attributes, and takes 2 of the 4.5 microseconds that `accept` does.
"""

import errno
import heapq
import socket

from flashpy.config import Listen
from flashpy.connection import Connection
from flashpy.http.peers import UNIX, Trusted
from flashpy.introduction import Introduction
from flashpy.loop import EXCLUSIVE, READ, Handler
from flashpy.service import Lane, Lanes, Service
from flashpy.traced import connection_of

ACCEPTS_PER_TURN = 64
IDLE_BEFORE_CLOSE = 1.0
REST_SECONDS = 0.25
# The family is only asked when an address has to be read, which nobody does with a client's socket.
_ANY_FAMILY = int(socket.AF_INET)
_STREAM = int(socket.SOCK_STREAM)
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listening:
    """One listener: its socket, the lanes of its peers, and whether each of them introduces a client first."""

    __slots__ = ("introduced", "lanes", "local", "sock")

    def __init__(self, sock: socket.socket, wanted: Listen, lanes: Lanes) -> None:
        self.sock = sock
        self.local = sock.family == socket.AF_UNIX
        self.introduced = wanted.proxy_protocol
        self.lanes = lanes


class Acceptor:
    """All listeners of a worker. `wanted` says of each, in their order, what it is; `trusted` are the proxies."""

    def __init__(
        self,
        service: Service,
        listeners: tuple[socket.socket, ...],
        wanted: tuple[Listen, ...],
        trusted: Trusted | None,
    ) -> None:
        self._service = service
        self._listeners = [
            Listening(sock, listen, Lanes(service.limits, trusted, service.meter))
            for sock, listen in zip(listeners, wanted, strict=True)
        ]
        self._resting = True
        self._expected = 1
        self._out_of_descriptors = 0.0
        self._idle: list[Connection | Introduction] = []
        self._kind = connection_of(service)

    @property
    def lanes(self) -> list[Lane]:
        """The memos, a pair for each listener and class of its peers."""
        return [lane for listening in self._listeners for lane in listening.lanes.all()]

    def open(self) -> None:
        """Listen; EPOLLEXCLUSIVE keeps one newcomer from waking every worker."""
        if self._resting:
            self._resting = False
            for listening in self._listeners:
                self._service.loop.add(listening.sock.fileno(), READ | EXCLUSIVE, self._handler(listening))

    def rest(self) -> None:
        """Leave newcomers in the kernel's queue."""
        if not self._resting:
            self._resting = True
            for listening in self._listeners:
                self._service.loop.remove(listening.sock.fileno())

    def close(self) -> None:
        """Drain: take the listeners out of epoll first, a shared one would keep firing."""
        self.rest()
        for listening in self._listeners:
            listening.sock.close()
        self._listeners.clear()

    def tick(self) -> None:
        """Listen again when there is room again, or could be: a newcomer takes the place of one who became idle."""
        now = self._service.loop.now
        may = self._resting and self._listeners and now > self._out_of_descriptors
        if may and (self._has_room() or self._longest_idle(now)):
            self.open()

    def _has_room(self) -> bool:
        return self._room() > 0

    def _room(self) -> int:
        return self._service.limits.connections - len(self._service.connections)

    def _handler(self, listening: Listening) -> Handler:
        take = listening.sock._accept  # type: ignore[attr-defined]

        def accept(_mask: int) -> None:
            room = min(self._room(), self._expected)
            if room <= 0 and self._make_room():
                room = 1  # the one who knocked: whether there is another is not known, and nobody goes for nobody
            for taken in range(room):
                try:
                    fd, address = take()
                except BlockingIOError:
                    self._expected = taken or 1
                    return
                except OSError as problem:
                    if problem.errno not in _NO_ROOM:
                        continue  # the newcomer went away again
                    if not taken:  # without a descriptor to spare accept fails before it looks who is there
                        self._run_out(problem)
                    return
                self._welcome(fd, UNIX if listening.local else address[0], listening)
            self._expected = min(ACCEPTS_PER_TURN, self._expected + self._expected // 2 + 1)

        return accept

    def _welcome(self, fd: int, address: str, listening: Listening) -> None:
        service = self._service
        service.counts.accepted += 1
        client = socket.SocketType(_ANY_FAMILY, _STREAM, 0, fd)
        connection: Connection | Introduction
        if listening.introduced:
            connection = Introduction(service, listening.lanes, client, address)
        else:
            connection = self._kind(service, listening.lanes.of(address), client, address)
        service.connections[fd] = connection
        try:
            connection.start()
        except Exception as problem:  # the event is the listener's, but the loss is the client's
            connection.fail(problem)

    def _run_out(self, problem: OSError) -> None:
        """No descriptor is free: an idle connection goes, and newcomers wait a moment."""
        service = self._service
        service.log.warning(f"cannot accept: {problem.strerror}; newcomers wait")
        self._make_room()
        self.rest()
        self._out_of_descriptors = service.loop.now + REST_SECONDS

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False when all are busy, and the listeners rest."""
        now = self._service.loop.now
        while True:
            if not self._idle:
                self._idle = self._longest_idle(now)
            if not self._idle:
                self.rest()
                return False
            connection = self._idle.pop()
            if connection.idle_for(now) > IDLE_BEFORE_CLOSE:
                connection.close()
                return True

    def _longest_idle(self, now: float) -> list[Connection | Introduction]:
        """The next to go, longest idle last: so many that a flood does not look through all of them each time."""
        idle = [
            connection
            for connection in self._service.connections.values()
            if connection.idle_for(now) > IDLE_BEFORE_CLOSE
        ]
        return heapq.nlargest(ACCEPTS_PER_TURN, idle, key=lambda connection: connection.idle_for(now))[::-1]
