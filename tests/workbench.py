"""The parts of a worker wired together in the test's own process, with real helpers.

Everything is as `flashpy.worker` wires it, but for signals, the master and the scoreboard: a real
loop, a real spawner and its helpers, a real channel to the log. The test is the client, and turns
the loop itself: `until(goal)`.
"""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import flashpy_helpers
from flashpy.answer import Answerer
from flashpy.cache.chunks import Chunks
from flashpy.cache.pathnames import Pathnames
from flashpy.config import Limits, Mount, Settings, Site
from flashpy.connection import Connection
from flashpy.content import Content
from flashpy.findings import Findings
from flashpy.guard import Guard
from flashpy.helperpool import HelperPool
from flashpy.loglines import Lines
from flashpy.logs import Log
from flashpy.loop import Loop
from flashpy.processes import libraries
from flashpy.representations import Representations
from flashpy.service import Lane, Service
from flashpy.sites import Sites
from flashpy.store import HelperStore
from flashpy.worker import make_memory
from flashpy_helpers import channel, records, wire

FOLDER = str(Path(flashpy_helpers.__file__).parent.parent)
START = "import sys; sys.path += sys.argv[1].split('\\n'); from flashpy_helpers.__main__ import main; main()"
PATIENCE = 20.0


class Spawner:
    """A spawner process that knows `roots`; `requests` is the end that workers hold.

    `places` are where it imports from besides the standard library.
    """

    def __init__(self, *roots: Path, program: str = "spawner", places: Sequence[str] = (FOLDER,)) -> None:
        self.control, control = channel.pair()
        self.requests, requests = channel.pair()
        numbers = [control.fileno(), requests.fileno()]
        arguments = ["\n".join(places), program, *map(str, numbers), "-1", "-1", ""]
        with control, requests:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", START, *arguments],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        for root in roots:
            record = wire.Root(bytes(root), (b"index.html",), wire.INSIDE)
            assert channel.send(self.control, records.pack_root(record))

    def kill(self) -> None:
        """As the out-of-memory killer does it."""
        self.process.kill()
        self.process.wait()

    def helpers(self) -> list[int]:
        """The process ids of its helpers, oldest first."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(map(int, children.split()))

    def close(self) -> bytes:
        """End it by the end of its channels; what it said."""
        self.control.close()
        self.requests.close()
        try:
            return self.process.communicate(timeout=PATIENCE)[1]
        finally:
            self.process.kill()
            self.process.wait()


def heavy_spawner(*roots: Path) -> Spawner:
    """A spawner of heavy helpers, with the libraries of this process."""
    return Spawner(*roots, program="heavy-spawner", places=[FOLDER, *libraries()])


class Bench:
    """A worker's parts over `roots`: the first is the site's, the others are mounts /m1/, /m2/ ...

    `spawner` forks the pool's helpers, one of our own unless it is given.
    """

    def __init__(
        self,
        *roots: Path,
        memory: int = 4 << 20,
        chunk: int = 65536,
        least: int = 1,
        most: int = 4,
        queue: int = 64,
        timeout: float = 30.0,
        paths: int = 100,
        revalidate: float = 1.0,
        max_stale: float = 10.0,
        limits: Limits | None = None,
        spawner: Spawner | None = None,
    ) -> None:
        self.problems: list[Exception] = []
        self.noise = b""
        self.said: list[str] = []
        self.greetings = 0
        self.spawner = spawner or Spawner(*roots)
        self.loop = loop = Loop(self._on_error)
        near, self._log_end = channel.pair()
        self.log = Log(near, "debug")
        self._log_near = near
        self.memory_fd, mapped = make_memory(memory, lock=False)
        self.memory = memoryview(mapped)
        self.chunks = chunks = Chunks(self.memory, chunk)
        self.pathnames = Pathnames(paths, chunks, revalidate, max_stale)
        findings = Findings()
        self.store = HelperStore(chunks, self.pathnames, time.time, self.said.append, self.said.append, findings)
        self._pool_end = self.spawner.requests.dup()
        self.pool = HelperPool(
            loop,
            self.store,
            self._pool_end,
            self.memory_fd,
            least=least,
            most=most,
            queue=queue,
            timeout=timeout,
            roots=len(roots),
            report=self.said.append,
            on_greeting=self._greeted,
        )
        content = Content(chunks, "seed")
        self.service = Service(
            loop,
            self.log,
            limits or Limits(),
            Sites(_settings(roots), list(range(len(roots)))),
            self.pathnames,
            chunks,
            content,
            Answerer(self.pathnames, content, chunk, Representations(chunks, findings, lambda: False), Guard(findings)),
            self.pool,
            Lines(),
        )
        self.lane = Lane(self.service.limits)
        loop.every_turn(self._end_turn)
        self.pool.start()

    def _greeted(self) -> None:
        self.greetings += 1

    def _on_error(self, fd: int, problem: Exception) -> None:
        connection = self.service.connections.get(fd)
        if connection is None:
            self.problems.append(problem)
        else:
            connection.fail(problem)

    def _end_turn(self) -> None:
        self.service.read_clock()
        self.service.settle_answered()
        self.store.end_turn()
        self.store.check_stale(self.pool)
        self.loop.stop()

    def turn(self, seconds: float = 0.01) -> None:
        """One turn of the loop, at most `seconds` long."""
        self.loop.stopped = False
        self.loop.later(seconds, _nothing)
        self.loop.run()
        if self.problems:
            raise self.problems[0]

    def until(self, goal: Callable[[], object]) -> None:
        """Turn the loop until the goal is reached."""
        end = time.monotonic() + PATIENCE
        while not goal():
            assert time.monotonic() < end, f"waited in vain; reported: {self.said}"
            self.turn()

    def settle(self) -> None:
        """Turn until all that is ready now has been dealt with."""
        for _ in range(3):
            self.turn(0.0)

    def ready(self) -> None:
        """Turn until the least number of helpers has said hello."""
        self.until(lambda: self.greetings >= self.pool._least)

    def connect(self, kind: type[Connection] = Connection) -> tuple[socket.socket, Connection]:
        """A client's socket, and its connection, which was accepted just now."""
        client, server = socket.socketpair()
        client.setblocking(False)
        return client, self.adopt(server, kind)

    def adopt(self, server: socket.socket, kind: type[Connection] = Connection) -> Connection:
        """The connection of an accepted socket."""
        connection = kind(self.service, self.lane, server, "test")
        self.service.connections[server.fileno()] = connection
        connection.start()
        return connection

    def receive(self, client: socket.socket) -> bytes:
        """All that has come for the client by now; at the end of file too."""
        got = bytearray()
        with suppress(BlockingIOError, ConnectionResetError):
            while data := client.recv(1 << 20):
                got += data
        return bytes(got)

    def receive_all(self, client: socket.socket) -> bytes:
        """All that comes for the client until the end of file."""
        got = bytearray()

        def ended() -> bool:
            try:
                while data := client.recv(1 << 20):
                    got.extend(data)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                pass
            return True

        self.until(ended)
        return bytes(got)

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces, each in a turn of its own, half-close, and return all that comes back."""
        client, _ = self.connect()
        with client:
            for piece in pieces:
                with suppress(BrokenPipeError, ConnectionResetError):
                    client.send(piece)
                self.turn(0.0)
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            return self.receive_all(client)

    def log_lines(self) -> list[str]:
        """The lines that were logged since this was last asked, with A or E in front."""
        self.log.flush()
        lines = []
        while (got := channel.receive(self._log_end)) is not None:
            kind = got[0][:1].decode()
            lines += [kind + line for line in got[0][1:].decode().splitlines()]
        return lines

    def lookup(self, path: bytes, root: int = 0) -> wire.Lookup:
        """A job for the pool."""
        return wire.Lookup(0, root, path, 0, self.chunks.arena.top, None)

    def close(self) -> None:
        """Close all; whatever should be free by then must be free."""
        for connection in list(self.service.connections.values()):
            connection.close()
        self.turn(0.0)
        self.pool.close()
        self._pool_end.close()
        said = self.spawner.close()
        self._log_near.close()
        self._log_end.close()
        os.close(self.memory_fd)
        assert all(self.noise and self.noise in line for line in said.splitlines()), said
        assert not self.problems


def _settings(roots: tuple[Path, ...]) -> Settings:
    mounts = tuple(Mount(at=f"/m{n}/", root=str(root)) for n, root in enumerate(roots) if n)
    return Settings(site=(Site(root=str(roots[0]), mount=mounts),))


def _nothing() -> None:
    """A timer that only ends the wait."""


def replies(data: bytes, *methods: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """(status, fields, content) of each reply in `data`; `methods` are those of the requests."""
    found = list(_replies(data, iter(methods)))
    return found


def _replies(data: bytes, methods: Iterator[bytes]) -> Iterator[tuple[int, Any, bytes]]:
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 "), lines[0]
        status = int(lines[0].split()[1])
        fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
        if status == 100:
            yield status, fields, b""
            continue
        bare = next(methods, b"GET") == b"HEAD" or status in (204, 304)
        length = 0 if bare else int(fields[b"content-length"])
        assert len(data) >= length, "cut short"
        yield status, fields, data[:length]
        data = data[length:]


def ended(pid: int) -> bool:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    done = bool(poll.poll(PATIENCE * 1000))
    os.close(handle)
    return done
