"""Clients of a connection in the test's process, and a way to bring one into any state."""

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flashpy.connection import Connection
from flashpy.states import LINGERING, SENDING, WAITING
from tests.workbench import Bench

HOT = b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LARGE = b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n"
COLD = b"GET /cold%d HTTP/1.1\r\nHost: x\r\n\r\n"
SIZE = 3 << 20
TAKEN: set[tuple[int, int]] = set()


class Watched(Connection):
    """A connection whose every change of state is noted."""

    __slots__ = ("_now",)

    _now: int

    @property
    def state(self) -> int:
        return self._now

    @state.setter
    def state(self, value: int) -> None:
        with suppress(AttributeError):
            TAKEN.add((self._now, value))
        self._now = value


def make_root(folder: Path) -> Path:
    """A folder with a.txt and large.bin."""
    (folder / "a.txt").write_bytes(b"a text\n")
    (folder / "large.bin").write_bytes(os.urandom(SIZE))
    return folder


@contextmanager
def open_bench(root: Path) -> Iterator[Bench]:
    """A bench with one helper and little memory, which knows a.txt."""
    bench = Bench(root, memory=16 * 65536, least=1, most=1)
    bench.ready()
    assert bench.exchange(HOT)
    yield bench
    close(bench)


def close(bench: Bench) -> None:
    """Close all clients; then nobody may be waited for, and nothing may be pinned."""
    for connection in list(bench.service.connections.values()):
        connection.close()
    assert not bench.service.connections
    assert not any(task.wanted() for task in bench.pool._tasks.values())
    pause(bench, signal.SIGCONT)
    bench.until(lambda: not bench.pool._tasks and not bench.chunks.pinned)
    bench.close()


def pause(bench: Bench, number: int = signal.SIGSTOP) -> None:
    """Stop the helpers, so that whoever needs them waits."""
    for pid in bench.spawner.helpers():
        os.kill(pid, number)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    client.setblocking(False)
    return client, server


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def receive(bench: Bench, client: socket.socket, size: int) -> bytes:
    """At least so many bytes."""
    got = bytearray()

    def enough() -> bool:
        got.extend(bench.receive(client))
        return len(got) >= size

    bench.until(enough)
    return bytes(got)


def in_state(bench: Bench, state: int, *, tcp: bool = False) -> tuple[socket.socket, Connection]:
    """A connection in this state and its client."""
    if tcp:
        client, server = tcp_pair()
        connection: Connection = bench.adopt(server, Watched)
    else:
        client, connection = bench.connect(Watched)
    if state == WAITING:
        pause(bench)
        client.send(COLD % 0)
    elif state == SENDING:
        client.send(LARGE)
    elif state == LINGERING:
        client.send(b"nonsense \r\n\r\n")
    bench.until(lambda: connection.state == state)
    return client, connection


def reached(bench: Bench, connection: Connection, state: int) -> None:
    """Turn until the connection is in this state."""
    bench.until(lambda: connection.state == state)
