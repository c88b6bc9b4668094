"""A file system that is slow or hangs costs the requests that need it, and no others.

Root A is a FUSE file system (tests/slowfs.py) whose lookups and reads take 200 ms or for ever, as
its files' names say; root B is a folder of this machine, mounted at /b/. While clients wait for A,
one more asks for hot files of both and for cold files of B, one after the other. Each of those
replies must come in under 100 ms, plus the longest that a bare relay of two ``cat`` took meanwhile:
what that one waits for is the machine, since it does nothing but what a miss does at the least,
three processes taking turns.
"""

import select
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Protocol, Self

import pytest

from tests import slowfs
from tests.conftest import StartServer
from tests.needs import may_not_skip, needs_root
from tests.server import Reply, Server, wait_until

pytestmark = [
    needs_root(),
    pytest.mark.skipif(not Path("/dev/fuse").exists() and not may_not_skip(), reason="needs /dev/fuse: modprobe fuse"),
]

PROMPT = 0.1
"""Seconds in which a request that does not need A is answered."""
HOT = [f"hot-{number}.txt" for number in range(20)]
COLD = 2000
"""Files of B that are asked for once, in at most so many rounds."""
SHARE = 8
"""The helpers that one of several roots may hold: half of [helpers] max."""

CONFIG = """
[server]
graceful_timeout = "1s"
[helpers]
max = 16
queue = {queue}
timeout = "{timeout}"
[cache]
memory = "32MiB"
revalidate = "300ms"
max_stale = "{max_stale}"
[log]
level = "warning"
[[site]]
root = "{a}"
[[site.mount]]
at = "/b/"
root = "{b}"
"""


class Start(Protocol):
    """Start a server over A and B."""

    def __call__(self, *, timeout: str = ..., queue: int = ..., max_stale: str = ...) -> Server: ...


class SlowDisk:
    """A mounted tests/slowfs.py. Leaving it unmounts, and fails whatever waits."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, slowfs.__file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.__exit__()
            complain = pytest.fail if may_not_skip() else pytest.skip
            complain("cannot mount a FUSE file system (why is on standard error)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.communicate(timeout=10)

    def say(self, command: str) -> int:
        """Give a command; how many requests the file system holds without an end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def held(self) -> int:
        """How many requests of the kernel it has read and will not answer."""
        return self.say("held")


class Relay:
    """Bytes through two processes and back: how long the machine itself takes for turns."""

    def __init__(self) -> None:
        pipe, both = subprocess.PIPE, ["cat", "-u"]
        self._first = subprocess.Popen(both, stdin=pipe, stdout=pipe, bufsize=0)
        self._second = subprocess.Popen(both, stdin=self._first.stdout, stdout=pipe, bufsize=0)
        assert self._first.stdin is not None
        assert self._second.stdout is not None
        self._in, self._out = self._first.stdin, self._second.stdout

    def turn(self) -> None:
        """There and back."""
        self._in.write(b"x")
        assert self._out.read(1) == b"x"

    def close(self) -> None:
        """End both."""
        self._in.close()
        for process in (self._first, self._second):
            process.wait()
            for end in (process.stdin, process.stdout):
                if end is not None:
                    end.close()


def _cold(number: int) -> str:
    return f"cold-{number}.txt"


class Bystander:
    """The client that needs nothing slow. It is timed here, one request after the other."""

    def __init__(self, server: Server, b: Path, hot: list[str]) -> None:
        self.hot = hot
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.cold = 0
        self._client = server.connect()
        self._relay = Relay()
        self._turns = count()
        for name in (_cold(number) for number in range(COLD)):
            (b / name).write_bytes(slowfs.content(name))
        for name in HOT:
            (b / name).write_bytes(slowfs.content(name))
            assert self._get("/" + name) == slowfs.content(name)
            assert self._get("/b/" + name) == slowfs.content(name)

    def close(self) -> None:
        """Leave."""
        self._client.socket.close()
        self._relay.close()

    def _get(self, path: str) -> bytes:
        reply = self._client.request(path)
        assert reply.status == 200, (path, reply.status)
        return reply.body

    def watch(self, seconds: float) -> None:
        """Ask and time for so long; every byte is checked."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = self.hot[next(self._turns) % len(self.hot)]
            cold = _cold(self.cold)
            self.cold += 1
            self._time("machine", self._relay.turn)
            for kind, path in (("hot A", f"/{name}"), ("hot B", f"/b/{name}"), ("miss B", f"/b/{cold}")):
                started = time.monotonic()
                body = self._get(path)
                self.seconds[kind].append(time.monotonic() - started)
                assert body == slowfs.content(path.rpartition("/")[2])
            time.sleep(0.004)  # a rate, not a wait: others need the processor too

    def _time(self, kind: str, action: Callable[[], None]) -> None:
        started = time.monotonic()
        action()
        self.seconds[kind].append(time.monotonic() - started)

    def check(self, least: int) -> None:
        """Every single reply was prompt, and there were enough of them to mean something."""
        limit = PROMPT + max(self.seconds["machine"])
        worst = {kind: round(max(times) * 1000, 1) for kind, times in self.seconds.items()}
        assert min(map(len, self.seconds.values())) >= least
        for kind in ("hot A", "hot B", "miss B"):
            assert max(self.seconds[kind]) < limit, f"longest, in ms: {worst}"


class Crowd:
    """Many clients that ask for one path each, all at once, and wait."""

    def __init__(self, server: Server, names: list[str]) -> None:
        self.names = names
        self.clients = [server.connect() for _ in names]
        for client, name in zip(self.clients, names, strict=True):
            client.send(f"GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def answered(self) -> int:
        """How many have something to read."""
        poll = select.poll()
        for client in self.clients:
            poll.register(client.socket, select.POLLIN)
        return len(poll.poll(0))

    def replies(self) -> list[Reply]:
        """What they got, in order."""
        return [client.read_reply() for client in self.clients]

    def leave(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.socket.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    with SlowDisk(tmp_path / "a") as mounted:
        yield mounted


@pytest.fixture
def cleanup(disk: SlowDisk, start_server: StartServer) -> Iterator[ExitStack]:
    """What is left in it is done before the servers are stopped; then nothing hangs any more.

    The order matters: the servers stop while the disk is still there.
    """
    with ExitStack() as stack:
        stack.callback(disk.say, "release")
        yield stack


@pytest.fixture
def b(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    return tmp_path / "b"


@pytest.fixture
def start(cleanup: ExitStack, disk: SlowDisk, b: Path, start_server: StartServer) -> Start:
    """Start a server over A and B."""

    def started(*, timeout: str = "30s", queue: int = 1024, max_stale: str = "2s") -> Server:
        config = CONFIG.format(a=disk.folder, b=b, timeout=timeout, queue=queue, max_stale=max_stale)
        return start_server(config)

    return started


def hanging(cleanup: ExitStack, server: Server, names: list[str]) -> Crowd:
    """A crowd that leaves at the end."""
    crowd = Crowd(server, names)
    cleanup.callback(crowd.leave)
    return crowd


def bystander(cleanup: ExitStack, server: Server, b: Path, hot: list[str] = HOT) -> Bystander:
    """A client that needs nothing slow, with all hot files in the cache."""
    one = Bystander(server, b, hot)
    cleanup.callback(one.close)
    return one


def test_slow_files_come_and_delay_nobody(start: Start, b: Path, cleanup: ExitStack) -> None:
    server = start()
    other = bystander(cleanup, server, b)
    slow = [f"slow-{kind}-{number}" for kind in ("look", "read") for number in range(32)]
    started = time.monotonic()
    crowd = hanging(cleanup, server, slow)
    while crowd.answered() < len(slow):
        other.watch(0.1)
    took = time.monotonic() - started
    for name, reply in zip(slow, crowd.replies(), strict=True):
        assert (reply.status, reply.body) == (200, slowfs.content(name))
    other.check(least=50)
    # No more than half of the helpers did it.
    assert took >= len(slow) * slowfs.SLOW_SECONDS / SHARE


def test_hanging_files_cost_those_who_want_them(start: Start, disk: SlowDisk, b: Path, cleanup: ExitStack) -> None:
    server = start(timeout="1500ms")
    other = bystander(cleanup, server, b)
    rounds = 3
    for number in range(rounds):
        # Other names: for one that it waits for already the kernel would not ask again.
        crowd = hanging(cleanup, server, [f"hang-{number}-{name}" for name in range(200)])
        other.watch(0.5)
        # Those of the rounds before were written off; their helpers are still in there.
        assert disk.held() == SHARE * (number + 1)
        assert crowd.answered() == 0
        other.watch(1.5)
        assert Counter(reply.status for reply in crowd.replies()) == {504: 200}
    other.check(least=200)

    disk.say("release")
    assert server.stop() == 0
    counters = server.counters()
    assert counters["helpers_written_off"] == 2 * SHARE
    assert counters["timeouts"] == rounds * 200
    # None of the hot files ever had to be asked for again: all were checked in time.
    assert counters["misses"] == 2 * len(HOT) + rounds * 200 + other.cold


def test_a_full_queue_refuses_those_who_filled_it(start: Start, disk: SlowDisk, b: Path, cleanup: ExitStack) -> None:
    server = start(timeout="3s", queue=100)
    other = bystander(cleanup, server, b)
    first = hanging(cleanup, server, [f"hang-{number}" for number in range(SHARE)])
    wait_until(lambda: disk.held() == SHARE, "A's helpers are held")
    crowd = hanging(cleanup, server, [f"hang-too-{number}" for number in range(200)])
    other.watch(1.5)
    assert crowd.answered() == 100
    replies = crowd.replies()
    assert Counter(reply.status for reply in replies) == {503: 100, 504: 100}
    assert all("retry-after" in reply.headers for reply in replies if reply.status == 503)
    assert [reply.status for reply in first.replies()] == [504] * SHARE
    other.check(least=50)


def test_hot_files_are_checked_though_one_of_them_hangs(
    start: Start, disk: SlowDisk, b: Path, cleanup: ExitStack
) -> None:
    """One hot file begins to hang, and so does the check that it is part of."""
    server = start(max_stale="4s")
    other = bystander(cleanup, server, b, HOT[1:])
    hanging(cleanup, server, [f"hang-{number}" for number in range(200)])
    wait_until(lambda: disk.held() == SHARE, "A's helpers are held")
    other.watch(0.5)
    disk.say(f"hang {HOT[0]}")
    assert server.get("/" + HOT[0]).status == 200
    wait_until(lambda: disk.held() == SHARE + 1, "the check hangs")
    other.watch(6)
    other.check(least=200)

    disk.say("release")
    assert server.stop() == 0
    # No hot file became too old to be served without a look.
    assert server.counters()["misses"] == 2 * len(HOT) + 200 + other.cold


def test_the_server_stops_while_files_hang(start: Start, disk: SlowDisk, cleanup: ExitStack) -> None:
    server = start()
    crowd = hanging(cleanup, server, [f"hang-{number}" for number in range(200)])
    wait_until(lambda: disk.held() == SHARE, "A's helpers are held")
    stuck = set(server.named("flashpy-helper"))
    started = time.monotonic()
    assert server.stop(signal.SIGTERM) == 0
    assert time.monotonic() - started < 1 + 3
    assert all(client.read_to_end() == b"" for client in crowd.clients)

    # What is left are the helpers that the kernel does not let go, until it can.
    left = server.tree()
    assert set(left) <= stuck
    assert len(left) == SHARE
    disk.say("release")
    wait_until(lambda: not server.tree(), "the helpers have ended")
