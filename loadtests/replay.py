"""Replay a trace over plain keep-alive sockets, in order, and check every byte.

A test or load client; needs the standard library only. One loop over epoll keeps one request on its
way on each connection. The connections share one cursor, so every request of the trace is sent
exactly once and is never repeated: a connection that the server closes in the middle of a request
is a failed request, and the next one gets a new connection. `Connection: close` is obeyed.
"""

import argparse
import contextlib
import hashlib
import itertools
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests import make_root

KEPT_ERRORS = 20
"""Errors told in words; the others are only counted."""
RECEIVE = 262144


@dataclass(slots=True)
class Result:
    """What a replay saw: `requests` were sent, `failed` of them had a wrong reply or none."""

    requests: int = 0
    failed: int = 0
    received: int = 0
    """Bytes of all bodies."""
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    """The first failures, in words."""

    def fail(self, path: str, why: str) -> None:
        """Count a failed request."""
        self.failed += 1
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append(f"{path}: {why}")


class WrongReply(Exception):
    """The reply is not the one that the path must have."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a reply says that matters here."""

    status: int
    length: int
    """Of the body in bytes; -1 when it is not given."""
    etag: bytes
    close: bool


def parse_head(data: bytes) -> Head:
    """Read the head of a reply up to its blank line; raises WrongReply."""
    lines = data.split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
        raise WrongReply(f"not a status line: {lines[0][:80]!r}")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    length = fields.get(b"content-length", b"-1")
    close = fields.get(b"connection", b"").lower() == b"close" or version == b"HTTP/1.0"
    return Head(int(rest[:3]), int(length), fields.get(b"etag", b""), close)


class Connection:
    """One keep-alive connection and the reply that it is receiving."""

    __slots__ = ("body", "head", "left", "path", "size", "sock", "start")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.path = ""
        self.left = 0

    def send(self, path: str, size: int, request: bytes) -> None:
        """Ask for a path whose document has size bytes; raises OSError."""
        self.path, self.size = path, size
        self.start = b""
        self.head: Head | None = None
        self.body = hashlib.sha256()
        self.left = 0
        self.sock.send(request)

    def receive(self) -> bool:
        """Take what has come; True when the reply is whole. Raises WrongReply and OSError."""
        data = self.sock.recv(RECEIVE)
        if not data:
            raise WrongReply(f"closed by the server, {self.left} bytes of the body missing")
        if self.head is None:
            self.start += data
            end = self.start.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.head = parse_head(self.start[:end])
            self._check_head(self.head)
            data = self.start[end + 4 :]
            self.left = self.size
        self.body.update(data)
        self.left -= len(data)
        if self.left < 0:
            raise WrongReply(f"{-self.left} bytes too many")
        return self.left == 0

    def _check_head(self, head: Head) -> None:
        if head.status != 200:
            raise WrongReply(f"status {head.status}")
        if head.length != self.size:
            raise WrongReply(f"length {head.length}, not {self.size}")


class Replayer:
    """The state of one replay: a cursor, the connections, the ETags seen, the result."""

    def __init__(self, address: tuple[str, int], trace: make_root.Trace, prefix: str) -> None:
        self.address, self.trace, self.prefix = address, trace, prefix
        self.result = Result()
        self.etags: dict[str, bytes] = {}
        self.requests: dict[str, bytes] = {}
        self.poller = select.epoll()
        self.active: dict[int, Connection] = {}

    def run(self, paths: Iterator[str], connections: int, timeout: float) -> Result:
        """Send all, receive all; a request that has no answer in timeout seconds is a failure."""
        began = time.monotonic()
        for path in itertools.islice(paths, connections):
            self._ask(Connection(self.address), path)
        while self.active:
            events = self.poller.poll(timeout)
            if not events:
                self._give_up(timeout)
            for number, _ in events:
                self._on_readable(self.active[number], paths)
        self.poller.close()
        self.result.seconds = time.monotonic() - began
        return self.result

    def _ask(self, connection: Connection, path: str) -> None:
        request = self.requests.get(path)
        if request is None:
            host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
            line = f"GET {self.prefix}{make_root.target(path)} HTTP/1.1\r\n"
            request = f"{line}Host: {host}:{self.address[1]}\r\n\r\n".encode()
            self.requests[path] = request
        number = connection.sock.fileno()
        if number not in self.active:
            self.poller.register(number, select.EPOLLIN)
            self.active[number] = connection
        self.result.requests += 1
        size = self.trace.sizes[make_root.document(path)]
        with contextlib.suppress(OSError):  # The receiving end says so too, and is counted.
            connection.send(path, size, request)

    def _on_readable(self, connection: Connection, paths: Iterator[str]) -> None:
        try:
            if not connection.receive():
                return
            keep = self._check(connection)
        except (WrongReply, OSError, ValueError) as error:
            self.result.fail(connection.path, str(error))
            keep = False
        path = next(paths, None)
        if path is None or not keep:
            self._drop(connection)
        if path is not None:
            self._ask(connection if keep else Connection(self.address), path)

    def _check(self, connection: Connection) -> bool:
        head, path = connection.head, connection.path
        assert head is not None
        self.result.statuses[head.status] += 1
        self.result.received += connection.size
        if connection.body.digest() != make_root.digest(path, 0, connection.size):
            raise WrongReply("wrong bytes")
        if self.etags.setdefault(make_root.document(path), head.etag) != head.etag:
            raise WrongReply(f"ETag changed to {head.etag!r}")
        return not head.close

    def _drop(self, connection: Connection) -> None:
        number = connection.sock.fileno()
        self.poller.unregister(number)
        del self.active[number]
        connection.sock.close()

    def _give_up(self, timeout: float) -> None:
        for connection in list(self.active.values()):
            self.result.fail(connection.path, f"no answer in {timeout:g} s")
            self._drop(connection)


def replay(
    host: str,
    port: int,
    trace: make_root.Trace,
    *,
    prefix: str = "",
    connections: int = 16,
    limit: int | None = None,
    timeout: float = 30.0,
) -> Result:
    """Replay a trace, or its first limit requests, against a server.

    The root of the trace is served under the path prefix. Timeout is the longest silence of all
    connections together, in seconds. Raises OSError when the server refuses a connection.
    """
    paths = itertools.islice(trace.requests, limit)
    return Replayer((host, port), trace, prefix).run(paths, connections, timeout)


def main(arguments: list[str]) -> int:
    """Command line: exit status 1 when a reply was wrong."""
    parser = argparse.ArgumentParser(prog="replay.py", description="Replay a trace, check it all.")
    parser.add_argument("url", help="http://HOST:PORT[/PREFIX], under which the trace's root lies")
    parser.add_argument("trace", help="name of a folder in loadtests/traces, or the path of one")
    parser.add_argument("--limit", type=int, help="stop after so many requests")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args(arguments)
    url = urlsplit(options.url)
    result = replay(
        url.hostname or "127.0.0.1",
        url.port or 80,
        make_root.load(options.trace),
        prefix=url.path.rstrip("/"),
        connections=options.connections,
        limit=options.limit,
    )
    rate = result.requests / result.seconds if result.seconds else 0
    print(
        f"{result.requests} requests, {result.failed} failed, {result.received} bytes,"
        f" {result.seconds:.1f} s, {rate:.0f} requests/s"
    )
    for error in result.errors:
        print(f"  {error}", file=sys.stderr)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
