"""Many clients in one process, without threads: each asks for one path after the other.

A crowd is strict: a request that was sent must get a whole reply. Only a connection on which
nothing was asked may be closed by the server; its client makes another one.
"""

import heapq
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.server import SECONDS, Reply, Server, wait_until

Address = tuple[str, int] | str
_RECEIVE = 1 << 18


class Crowd:
    """Clients and the time; ``check(path, reply)`` looks at each whole reply, and may raise."""

    def __init__(self, check: Callable[[str, Reply], None]) -> None:
        self.check = check
        self.replies = 0
        self.lost: list[str] = []
        """What was asked and not answered."""
        self.closing = False
        self._poll = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.visitors: list[Visitor] = []

    def add(
        self,
        address: Address,
        choose: Callable[[], str | None],
        *,
        keep: bool = True,
        pause: float = 0.0,
    ) -> None:
        """One more client, who asks for what ``choose`` says, until it says None."""
        self.visitors.append(Visitor(self, address, choose, keep, pause))
        self.visitors[-1].ask()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` in so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def watch(self, sock: socket.socket, action: Callable[[], None]) -> None:
        """Call ``action`` when the socket has something."""
        self._poll.register(sock, selectors.EVENT_READ, action)

    def forget(self, sock: socket.socket) -> None:
        """The opposite of ``watch``."""
        self._poll.unregister(sock)

    def run(self, seconds: float = 0.0, until: Callable[[], object] = lambda: False) -> None:
        """Let them ask for so long, or until the condition is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._turn()

    def finish(self) -> None:
        """Ask for nothing more, and wait for what was asked. Raises AssertionError."""
        self.closing = True
        self.run(SECONDS, lambda: all(visitor.path is None for visitor in self.visitors))
        waiting = [visitor.path for visitor in self.visitors if visitor.path is not None]
        for visitor in self.visitors:
            visitor.leave()
        self._poll.close()
        assert not waiting, f"without an answer in {SECONDS} s: {waiting}"
        assert not self.lost, f"{len(self.lost)} of {self.replies}: {self.lost[:10]}"

    def _turn(self) -> None:
        for key, _ in self._poll.select(0.02):
            key.data()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()


class Visitor:
    """One client. ``path`` is what it waits for, or None."""

    def __init__(
        self,
        crowd: Crowd,
        address: Address,
        choose: Callable[[], str | None],
        keep: bool,
        pause: float,
    ) -> None:
        self.path: str | None = None
        self._crowd, self._address, self._choose = crowd, address, choose
        self._keep, self._pause = keep, pause
        self._socket: socket.socket | None = None
        self._data = bytearray()
        self._wanted = 0
        """How long the reply is, head and content; 0 = not known yet."""

    def ask(self) -> None:
        """Send the next request, on a new connection when there is none."""
        path = None if self._crowd.closing else self._choose()
        if path is None:
            self.leave()
            return
        self._hear_end()
        if self._socket is None:
            family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
            self._socket = socket.socket(family)
            self._socket.settimeout(SECONDS)
            self._socket.connect(self._address)
            self._socket.setblocking(False)
            self._crowd.watch(self._socket, self._read)
        self.path = path
        fields = "" if self._keep else "Connection: close\r\n"
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())

    def leave(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._crowd.forget(self._socket)
            self._socket.close()
            self._socket = None
        self.path = None
        self._data.clear()
        self._wanted = 0

    def _hear_end(self) -> None:
        """The server may have closed a connection on which nothing was asked."""
        if self._socket is not None:
            try:
                data = self._socket.recv(1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            assert not data, "bytes that nobody had asked for"
            self.leave()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError as problem:
            self._lose(repr(problem))
            return
        if not data:
            self._lose("closed")
            return
        self._data += data
        if not self._wanted:
            self._wanted = whole_length(self._data)
        if self._wanted and len(self._data) >= self._wanted:
            self._take()

    def _lose(self, how: str) -> None:
        if self.path is not None:
            self._crowd.lost.append(f"{self.path}: {how} after {len(self._data)} bytes")
        asked = self.path is not None
        self.leave()
        if asked:
            self.ask()

    def _take(self) -> None:
        assert self.path is not None
        assert len(self._data) == self._wanted, "more than one reply to one request"
        path, reply = self.path, parse(bytes(self._data))
        self._crowd.check(path, reply)
        self._crowd.replies += 1
        self.path, self._wanted = None, 0
        self._data.clear()
        if reply.headers.get("connection") == "close":
            self.leave()
        if self._pause:
            self._crowd.later(self._pause, self.ask)
        else:
            self.ask()


@contextmanager
def only(server: Server, worker: int) -> Iterator[None]:
    """All other workers are stopped meanwhile, so this one gets every new connection."""
    others = [pid for pid in server.workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(is_stopped(pid) for pid in others), f"{others} stopped")
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped the process. One that is traced also stops at every system call, and goes on."""
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return fields["State"][0] in "Tt" and not pending >> (signal.SIGSTOP - 1) & 1


def whole_length(data: bytes | bytearray) -> int:
    """How long the reply to a GET is, when its head has come; else 0."""
    end = data.find(b"\r\n\r\n") + 4
    return end + int(_fields(bytes(data[:end])).get("content-length", "0")) if end >= 4 else 0


def parse(data: bytes) -> Reply:
    """A whole reply."""
    head, _, body = data.partition(b"\r\n\r\n")
    return Reply(int(head[9:12]), _fields(head), body)


def _fields(head: bytes) -> dict[str, str]:
    lines: Iterable[str] = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}
