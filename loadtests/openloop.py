"""An open-loop client: requests leave when they are due, whatever has become of those before.

A load client in one process and one loop; it should have a core of its own. Latency is counted
from the instant for which a request was scheduled, so a server that stalls for a second is charged
with every request of that second (a closed loop would just send fewer). How late the client itself
was is measured too. Beside the hot requests it can run closed-loop clients that ask for cold files,
one after the other. Every reply is checked (`replay.Connection`).
"""

import contextlib
import gc
import math
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests import make_root, replay

CLIENT_PRIORITY = -10
DRAIN_SECONDS = 60.0
"""How long replies are awaited after the last request is due."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is asked for: so many hot requests a second, and cold files by so many clients."""

    hot: Sequence[str]
    hot_size: int
    rate: float
    seconds: float
    connections: int = 50
    cold: Sequence[str] = ()
    cold_size: int = 0
    cold_clients: int = 0


@dataclass(slots=True)
class Outcome:
    """Times in seconds."""

    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """How long after its instant the client itself noticed each request."""
    cold_latencies: list[float] = field(default_factory=list)
    cold_done: int = 0
    """Cold files that came within the schedule's time."""
    unanswered: int = 0
    reconnected: int = 0
    """Idle connections that the server closed."""
    errors: list[str] = field(default_factory=list)


class Client(replay.Connection):
    """A connection that remembers for when its request was scheduled."""

    __slots__ = ("cold", "scheduled")

    def __init__(self, address: tuple[str, int], *, cold: bool) -> None:
        super().__init__(address)
        self.cold = cold
        self.scheduled = 0.0


class OpenLoop:
    """One run against one server."""

    def __init__(self, port: int, schedule: Schedule) -> None:
        self.schedule, self.outcome = schedule, Outcome()
        self.address = ("127.0.0.1", port)
        self.poller = select.epoll()  # Made first: its number must be one that select() takes.
        self.clients: dict[int, Client] = {}
        self.free: deque[Client] = deque()
        self.backlog: deque[float] = deque()
        self.cold: Iterator[str] = iter(schedule.cold)
        self.turn = 0
        self.requests = {path: self._request(path) for path in (*schedule.hot, *schedule.cold)}

    def run(self) -> Outcome:
        """Connect, send everything, await everything."""
        self.free.extend(self._connect(cold=False) for _ in range(self.schedule.connections))
        gc.collect()
        gc.disable()
        with contextlib.suppress(PermissionError):  # Only root may: the client must not be late.
            os.setpriority(os.PRIO_PROCESS, 0, CLIENT_PRIORITY)
        try:
            self._loop()
        finally:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, 0)
            gc.enable()
            for client in self.clients.values():
                client.sock.close()
            self.poller.close()
        return self.outcome

    def _loop(self) -> None:
        schedule = self.schedule
        begin = now = time.monotonic() + 0.01
        for _ in range(schedule.cold_clients):
            self._ask_cold(self._connect(cold=True), now)
        self.end = begin + schedule.seconds
        total, sent = int(schedule.rate * schedule.seconds), 0
        due = begin
        while sent < total or (self._waiting() and now < self.end + DRAIN_SECONDS):
            now = time.monotonic()
            while due <= now and sent < total:
                self.backlog.append(due)
                self.outcome.lags.append(now - due)
                sent += 1
                due = begin + sent / schedule.rate
            while self.backlog and self.free:
                self._ask_hot(self.free.popleft(), self.backlog.popleft())
            # epoll_wait counts in milliseconds; select on the epoll descriptor in microseconds.
            pause = max(0.0, due - time.monotonic()) if sent < total else 0.1
            select.select([self.poller.fileno()], [], [], pause)
            for number, _ in self.poller.poll(0):
                self._on_readable(self.clients[number])
        self._give_up(now)

    def _give_up(self, now: float) -> None:
        free = set(map(id, self.free))
        busy = [c for c in self.clients.values() if not c.cold and id(c) not in free]
        waiting = [*self.backlog, *(client.scheduled for client in busy)]
        self.outcome.unanswered = len(waiting)
        # Left out they would make a server that never answers look fast.
        self.outcome.latencies.extend(now - scheduled for scheduled in waiting)

    def _waiting(self) -> int:
        return len(self.backlog) + self.schedule.connections - len(self.free)

    def _connect(self, *, cold: bool) -> Client:
        client = Client(self.address, cold=cold)
        self.poller.register(client.sock, select.EPOLLIN)
        self.clients[client.sock.fileno()] = client
        return client

    def _request(self, path: str) -> bytes:
        host = f"{self.address[0]}:{self.address[1]}"
        return f"GET {make_root.target(path)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def _ask_hot(self, client: Client, scheduled: float) -> None:
        path = self.schedule.hot[self.turn % len(self.schedule.hot)]
        self.turn += 1
        client.scheduled = scheduled
        client.send(path, self.schedule.hot_size, self.requests[path])

    def _ask_cold(self, client: Client, now: float) -> None:
        path = next(self.cold, None)
        if path is None:
            raise RuntimeError("there are too few cold files for a server as fast as this one")
        client.scheduled = now
        client.send(path, self.schedule.cold_size, self.requests[path])

    def _on_readable(self, client: Client) -> None:
        if client in self.free:  # Closed by the server while it was idle, as it may.
            self.free.remove(client)
            self.free.append(self._reconnect(client))
            self.outcome.reconnected += 1
            return
        try:
            if not client.receive():
                return
            expected = make_root.digest(client.path, 0, client.size)
            if client.body.digest() != expected:
                raise replay.WrongReply("wrong bytes")
        except (replay.WrongReply, OSError) as error:
            self.outcome.errors.append(f"{client.path}: {error}")
            client = self._reconnect(client)
        self._count(client, time.monotonic())

    def _count(self, client: Client, now: float) -> None:
        if not client.cold:
            self.outcome.latencies.append(now - client.scheduled)
            self.free.append(client)
        elif now < self.end:
            self.outcome.cold_latencies.append(now - client.scheduled)
            self.outcome.cold_done += 1
            self._ask_cold(client, now)

    def _reconnect(self, client: Client) -> Client:
        del self.clients[client.sock.fileno()]
        client.sock.close()
        fresh = self._connect(cold=client.cold)
        fresh.scheduled = client.scheduled
        return fresh


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share - 1e-9) - 1)]


def in_milliseconds(values: Sequence[float]) -> dict[str, float]:
    """p50, p99, p99.9 and the greatest of some times, in milliseconds; empty for none."""
    if not values:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: round(percentile(values, share) * 1000, 3) for name, share in shares.items()}
