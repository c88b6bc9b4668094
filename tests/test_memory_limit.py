"""A data set five times the cache, and 500 slow readers: memory stays under its limit, every byte is right."""

import json
import random
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import Crowd
from tests.server import REPOSITORY, Reply, Server, wait_until
from tests.versions import content, where
from tests.web import head

ALTERED = (str(REPOSITORY / "tests" / "altered.py"),)

MEMORY = 16 << 20
LARGE, LARGE_SIZE = 40, 1_500_000
SMALL, SMALL_SIZE = 2000, 10_000
READERS = 500
PORTIONS = (5_000, 40_000, 90_000)
PAUSE = 0.1
BOUND = 40.0
"""Seconds in which all must be done."""

CONFIG = f"""
[server]
listen = ["127.0.0.1:0", "unix:SOCKET"]
[helpers]
max = 8
[cache]
chunk = "64KiB"
memory = {MEMORY}
[limits]
connections = 2000
"""


class Files:
    """What the files hold, and what they hold of it: nobody keeps two copies of 80 MB."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        sizes = {f"large{n}.bin": LARGE_SIZE for n in range(LARGE)} | {f"{n}.bin": SMALL_SIZE for n in range(SMALL)}
        self.contents = {name: content(name, 1, size) for name, size in sizes.items()}
        for name, data in self.contents.items():
            (root / name).write_bytes(data)
        assert sum(sizes.values()) >= 5 * MEMORY * 0.95


class Reader:
    """One client who takes a large file a portion at a time, and looks at each.

    It comes over a unix socket, where the kernel holds 200 KB of a reply: over TCP it would hold all.
    """

    def __init__(self, server: Server, files: Files, name: str) -> None:
        self.name, self.data = name, memoryview(files.contents[name])
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(server.addresses[1]))
        self.socket.setblocking(False)
        self.socket.sendall(head(f"/{name}"))
        self._head = b""
        self._choice = random.Random(self.socket.fileno())
        self.seen = 0
        self.done = False

    def join(self, crowd: Crowd) -> None:
        """Begin to read, a portion and a pause in turn."""

        def read() -> None:
            crowd.forget(self.socket)
            self.take()
            if not self.done:
                crowd.later(PAUSE, lambda: crowd.watch(self.socket, read))

        crowd.watch(self.socket, read)

    def take(self) -> None:
        """At most one portion of what is there."""
        left = self._choice.choice(PORTIONS)
        while left > 0 and not self.done:
            try:
                data = self.socket.recv(left)
            except BlockingIOError:
                return
            assert data, f"{self.name}: closed after {self.seen} bytes"
            left -= len(data)
            self._look_at(data)

    def _look_at(self, data: bytes) -> None:
        if self.seen == 0 and b"\r\n\r\n" not in self._head:
            self._head += data
            first, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = first + end
            assert first.startswith(b"HTTP/1.1 200 "), first
            assert b"Content-Length: %d" % LARGE_SIZE in first
        expected = self.data[self.seen : self.seen + len(data)]
        assert data == expected, f"{self.name}, {self.seen}: {where(data, bytes(expected))}"
        self.seen += len(data)
        if self.seen == LARGE_SIZE:
            self.done = True
            self.socket.close()


class Meter:
    """The worker's memory, as it and as the kernel see it."""

    def __init__(self, server: Server, folder: Path) -> None:
        (self.worker,) = server.workers()
        self._file = folder / str(self.worker)
        self.before = self.resident()
        self.most_resident = self.most_used = self.most_pinned = 0

    def resident(self) -> int:
        """Bytes of memory that the worker has, its cache with it."""
        rollup = Path(f"/proc/{self.worker}/smaps_rollup").read_text()
        return int(rollup.partition("Rss:")[2].split()[0]) * 1024

    def look(self) -> None:
        """Measure now."""
        gauges = json.loads(self._file.read_text())
        self.most_resident = max(self.most_resident, self.resident())
        self.most_used = max(self.most_used, gauges["arena_used"])
        self.most_pinned = max(self.most_pinned, gauges["arena_pinned"])


@pytest.mark.slow
def test_500_slow_readers(start_server: StartServer, tmp_path: Path) -> None:
    files, gauges = Files(tmp_path / "files"), tmp_path / "gauges"
    gauges.mkdir()
    config = CONFIG.replace("SOCKET", str(tmp_path / "socket"))
    server = start_server(config, root=tmp_path / "files", program=ALTERED, env={"GAUGES": str(gauges)})
    meter = Meter(server, gauges)
    begin = time.monotonic()
    readers = [Reader(server, files, f"large{number % LARGE}.bin") for number in range(READERS)]
    small = serve_all(server, files, readers, meter)
    took = time.monotonic() - begin
    assert all(reader.done for reader in readers)
    assert took < BOUND
    assert small > 500
    assert MEMORY / 2 < meter.most_used <= MEMORY
    assert meter.most_pinned <= MEMORY
    # Beside the cache: Python, 500 connections, 2000 entries and what is prepared for them.
    assert meter.most_resident < meter.before + MEMORY + (24 << 20)
    pinned = f"arena_pinned is {meter.most_pinned}"
    wait_until(lambda: json.loads((gauges / str(meter.worker)).read_text())["arena_pinned"] == 0, pinned)
    assert server.stop() == 0
    counters = server.counters()
    assert counters["status_5xx"] == 0
    assert counters["evictions"] > 1000
    assert counters["requests"] == READERS + small


def serve_all(server: Server, files: Files, readers: list[Reader], meter: Meter) -> int:
    """Let all read to the end, while others ask for small files; how many of those were served."""
    choice = random.Random(5)

    def check(path: str, reply: Reply) -> None:
        assert reply.status == 200, (path, reply)
        assert reply.body == files.contents[path[1:]]

    crowd = Crowd(check)

    def measure() -> None:
        meter.look()
        crowd.later(0.25, measure)

    for reader in readers:
        reader.join(crowd)
    for _ in range(5):
        crowd.add(server.address, lambda: f"/{choice.randrange(SMALL)}.bin", pause=0.01)
    measure()
    crowd.run(BOUND, lambda: all(reader.done for reader in readers))
    crowd.finish()
    return crowd.replies


def test_clients_that_stop_reading_do_not_starve_the_others(start_server: StartServer, tmp_path: Path) -> None:
    files = Files(tmp_path / "files")
    server = start_server(CONFIG.replace("SOCKET", str(tmp_path / "socket")), root=tmp_path / "files")
    stalled = [Stalled(server, f"large{number % LARGE}.bin", number // LARGE * 100_000) for number in range(480)]
    for number in range(0, SMALL, 10):
        begin = time.monotonic()
        reply = server.get(f"/{number}.bin")
        assert (reply.status, reply.body) == (200, files.contents[f"{number}.bin"])
        assert time.monotonic() - begin < 5
    for client in stalled:
        with client.socket:
            assert client.rest() == files.contents[client.name][client.start :]


class Stalled:
    """A client who asks for a large file from byte `start` on, sees the reply begin, and takes no more for now."""

    def __init__(self, server: Server, name: str, start: int) -> None:
        self.name, self.start = name, start
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(server.addresses[1]))
        self.socket.sendall(head(f"/{name}", f"Range: bytes={start}-"))
        self._begin = self.socket.recv(2000)

    def rest(self) -> bytes:
        """Read on, to the end of the reply; its content."""
        first, _, data = self._begin.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 206 "), first
        while len(data) < LARGE_SIZE - self.start:
            more = self.socket.recv(1 << 20)
            assert more, f"{self.name}: closed after {len(data)} bytes"
            data += more
        return data
