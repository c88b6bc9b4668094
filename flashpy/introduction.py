"""WORKER: a connection on a listener with `proxy_protocol`, until its PROXY header has said whose it is.

It stands where the client's connection will stand, gathers the header, and hands its socket over to a Connection: with
the address that the header gave, in the lane of that address, and with the bytes that came after the header. So nothing
of it is left in a request's way. Who does not introduce itself properly, in time, gets no reply but the end of the
connection, as the specification wants it: whoever that is, it does not speak HTTP with us. One log line says why.
"""

import socket

from flashpy.client import NOW, RECEIVE
from flashpy.http.proxyprotocol import BadHeader, Introduced, parse
from flashpy.loop import READ
from flashpy.service import Lanes, Service
from flashpy.traced import connection_of


class Introduction:
    """A peer that has yet to say whose connection it passes on. `address` is its own."""

    __slots__ = ("_buffer", "_fd", "_lanes", "_service", "_since", "_sock", "_watched", "address")

    def __init__(self, service: Service, lanes: Lanes, sock: socket.SocketType, address: str) -> None:
        self._service = service
        self._lanes = lanes
        self._sock = sock
        self._fd = sock.fileno()
        self._since = service.loop.now
        self._watched = False
        self._buffer = b""
        self.address = address

    def start(self) -> None:
        """The connection was accepted: where only some are trusted to introduce clients, others must not."""
        if not self._lanes.may_introduce(self.address):
            self._refuse("a PROXY header is expected, and the peer is no trusted proxy")
            return
        self._read(READ)

    def _read(self, _mask: int) -> None:
        try:
            data = self._sock.recv(RECEIVE, NOW)
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            data = b""
        if not data:
            self._end_of_input()
            return
        self._buffer += data
        try:
            found = parse(self._buffer)
        except BadHeader as problem:
            self._refuse(str(problem))
            return
        if found is None:
            self._watch()
        else:
            self._hand_over(found)

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._service.loop.add(self._fd, READ, self._read)

    def _hand_over(self, found: Introduced) -> None:
        """From here on it is a client's connection like any other."""
        service, address = self._service, found.address or self.address
        if self._watched:
            service.loop.remove(self._fd)
        connection = connection_of(service)(service, self._lanes.of(address), self._sock, address)
        service.connections[self._fd] = connection
        try:
            connection.start(self._buffer[found.size :])
        except Exception as problem:  # whoever called us knows only of this introduction
            connection.fail(problem)

    def _end_of_input(self) -> None:
        """Whoever has said nothing only looked whether somebody listens, as health checks do."""
        if self._buffer:
            self._refuse("the connection ended within the PROXY header")
        else:
            self.close()

    def _refuse(self, reason: str) -> None:
        self._service.counts.proxy_refused += 1
        self._service.log.info(f"{self.address}: closed: {reason}")
        self.close()

    # What a worker asks of each of its connections

    def check_time(self, now: float) -> None:
        """Close when the header takes longer than `header_timeout`, from the beginning of the connection."""
        if now - self._since > self._service.limits.header_timeout:
            self._service.counts.timeouts += 1
            self._refuse("no whole PROXY header in time")

    def idle_for(self, _now: float) -> float:
        """Seconds without anything to do: none, as for any newcomer."""
        return 0.0

    def fail(self, problem: Exception) -> None:
        """A bug of ours: it costs this connection and nobody else anything."""
        self._service.log.bug(f"{self.address}: internal error", problem)
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        if self._service.connections.pop(self._fd, None) is None:
            return
        if self._watched:
            self._service.loop.discard(self._fd, self._sock.close)
        else:
            self._sock.close()
