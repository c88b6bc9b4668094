"""A small stand-in for a worker, to test the master with: what it does is said by the settings.

Run as ``python tests/standin.py FILE``. The field X-Behaviour of the first site says what workers
do: "" serve; "die" end while booting; "mute" never be ready; "stuck" stop turning at the first
request; "deaf" ignore every signal but KILL; "crash" end at the first request. BOOT_SECONDS in the
environment is how long the master waits for workers to be ready.
"""

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flashpy import generation, signals
from flashpy.arbiter import Arbiter, StartError
from flashpy.config import Settings, load
from flashpy.heritage import Heritage
from flashpy.logs import Log
from flashpy.scoreboard import COUNTERS
from flashpy_helpers import channel, records, wire


class StandIn:
    """Answers every connection with one line of JSON about itself."""

    def __init__(self, heritage: Heritage) -> None:
        self.heritage = heritage
        self.log = Log(heritage.log, heritage.settings.log.level)
        self.behaviour = heritage.settings.site[0].headers.get("X-Behaviour", "")
        self.open = [*heritage.listeners]
        self.spawner = heritage.spawner
        self.heavy = heritage.heavy
        self.running = True
        self.requests = 0
        self.connection: socket.socket | None = None

    def run(self) -> int:
        """Boot as a worker does, then serve."""
        if self.behaviour == "die":
            return 7
        wakeup = signals.Wakeup(() if self.behaviour == "deaf" else signals.WORKER)
        if self.behaviour == "deaf":
            for number in signals.WORKER:
                signal.signal(number, signal.SIG_IGN)
        with self.helper():
            if self.behaviour != "mute":
                channel.send(self.heritage.channel, b"R")
            while self.running:
                self.turn(wakeup)
        return 0

    def turn(self, wakeup: signals.Wakeup) -> None:
        """Wait for a client, the master or a signal."""
        poll = select.poll()
        for fd in (wakeup.fileno(), self.heritage.channel.fileno()):
            poll.register(fd, select.POLLIN)
        for sock in self.open:
            poll.register(sock, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(200)}
        if wakeup.fileno() in ready and wakeup.read() and self.behaviour != "deaf":
            self.running = False
        if self.heritage.channel.fileno() in ready:
            self.hear()
        for sock in self.open:
            if sock.fileno() in ready:
                self.serve(sock)
        self.heritage.slot.beat(time.monotonic_ns())
        values = dict.fromkeys(COUNTERS, 0) | {"requests": self.requests, "connections_open": 1}
        self.heritage.slot.store(values.values())

    def ask(self, fds: tuple[int, int], heavy: bool) -> None:
        """Send a request to a spawner, when there is one again."""
        while True:
            try:
                spawner = self.heavy if heavy else self.spawner
                assert spawner is not None
                assert channel.send(spawner, b"H", fds)
                return
            except OSError:
                self.hear(0)

    def hear(self, flags: int = socket.MSG_DONTWAIT) -> None:
        """A new channel, or the end of the master."""
        try:
            message = channel.receive(self.heritage.channel, flags)
        except EOFError:
            self.running = False
            return
        if message is not None:
            record, (fd,) = message
            sock = socket.socket(fileno=fd)
            if record == b"L":
                self.log.rebind(sock)
            elif record == b"H":
                self.heavy = sock
            else:
                self.spawner.close()
                self.spawner = sock

    def serve(self, listener: socket.socket) -> None:
        """Answer one request."""
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.settimeout(20)
            with connection:
                data = connection.recv(65536)
                if self.behaviour == "stuck":
                    time.sleep(1000)
                if self.behaviour == "crash":
                    raise RuntimeError("as it was told")
                self.requests += 1
                self.log.access(data.split(b"\r\n")[0] + b"\n")
                self.log.flush()
                body = json.dumps(self.facts()).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)

    def facts(self) -> dict[str, object]:
        """What a test may want to know."""
        with self.helper() as hello:
            helper = hello.pid
        heavy = None
        if self.heritage.heavy is not None:
            with self.helper(heavy=True) as hello:
                heavy = hello.pid
        return {
            "pid": os.getpid(),
            "number": self.heritage.number,
            "roots": self.heritage.roots,
            "charset": self.heritage.settings.site[0].charset,
            "rights": [os.getresuid(), os.getresgid(), os.getgroups()],
            "descriptors": len(os.listdir("/proc/self/fd")),
            "helper": helper,
            "heavy": heavy,
        }

    @contextlib.contextmanager
    def helper(self, *, heavy: bool = False) -> Iterator[wire.Hello]:
        """Ask a spawner for a helper and wait for its first word."""
        ours, its = channel.pair()
        memory = os.memfd_create("standin")
        os.ftruncate(memory, mmap.PAGESIZE)
        with ours:
            with its:
                self.ask((its.fileno(), memory), heavy)
            os.close(memory)
            message = channel.receive(ours, 0)
            assert message is not None
            hello = records.unpack_answer(message[0])
            assert isinstance(hello, wire.Hello)
            yield hello


def main() -> int:
    """Serve as the command line would."""
    file = Path(sys.argv[1])
    generation.BOOT_SECONDS = float(os.environ.get("BOOT_SECONDS", generation.BOOT_SECONDS))

    def read() -> Settings:
        return load(file)

    try:
        return Arbiter(read(), read, lambda heritage: StandIn(heritage).run()).run()
    except StartError as error:
        print(f"flashpy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
