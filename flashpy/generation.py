"""The workers of one configuration, as the master sees them. The master runs this.

A generation is made by a start or a reload and never changes its settings: a reload makes a new
one beside it, and dismisses the old when all of the new are ready. What is to happen to a worker
that shall end is a list of (time, signal), so that no part of the master ever waits for one; the
last step is to leave it, since a process stuck in the kernel ends for no signal.
"""

import contextlib
import socket
import time
from collections import deque
from signal import Signals

from flashpy.companions import Backoff, Companion
from flashpy.config import Settings
from flashpy.heritage import READY, watched
from flashpy.processes import Child
from flashpy.scoreboard import Slot
from flashpy.sockets import Listener
from flashpy_helpers import channel, news

BOOT_SECONDS = 30.0
"""How long a worker, or a whole new generation, may take to be ready."""

Escalation = deque[tuple[float, Signals | None]]
"""When to send which signal; None = it ends for none, leave it."""


def graceful(now: float, timeout: float) -> Escalation:
    """Drain; then be quick; then be killed."""
    end = now + timeout
    steps = (now, Signals.SIGTERM), (end, Signals.SIGQUIT), (end + 1, Signals.SIGKILL)
    return deque((*steps, (end + 2, None)))


def at_once(now: float) -> Escalation:
    """Finish nothing."""
    return deque(((now, Signals.SIGQUIT), (now + 1, Signals.SIGKILL), (now + 2, None)))


def stuck(now: float) -> Escalation:
    """Say where it hangs (faulthandler), then be killed."""
    return deque(((now, Signals.SIGABRT), (now + 2, Signals.SIGKILL), (now + 4, None)))


class Worker:
    """One worker process. ``number`` is its place in its generation, ``index`` its slot."""

    def __init__(
        self,
        child: Child,
        sock: socket.socket,
        generation: "Generation",
        number: int,
        index: int,
        slot: Slot,
    ) -> None:
        self.child = child
        self.sock: socket.socket | None = sock
        self.generation = generation
        self.number = number
        self.index = index
        self.born = time.monotonic()
        self.ready: float | None = None
        self.leaving = False
        """Whether its end is wanted; a worker that is stuck is not leaving, it is replaced."""
        self.lost = False
        """Whether it was left: no signal ends it."""
        self.escalation: Escalation = deque()
        self._slot = slot
        self._unsent: dict[bytes, Companion] = {}
        self._news_lost = False

    def __str__(self) -> str:
        return f"worker {self.number} ({self.child.pid})"

    def send_channel(self, companion: Companion) -> None:
        """It must get the new channel of a companion; at once, or as soon as there is room."""
        self._unsent[companion.kind] = companion
        self.flush()

    def pass_on(self, record: bytes) -> None:
        """It must hear these news, or when its channel is full, as soon as there is room, that it has missed some."""
        if self.sock is not None and not self._news_lost:
            with contextlib.suppress(OSError):
                self._news_lost = not channel.send(self.sock, record)

    def flush(self) -> None:
        """Send what is still unsent. A full channel means that it is stuck; the heartbeat will tell."""
        if self._news_lost:
            self._news_lost = False
            self.pass_on(news.EVERYTHING)
        for kind, companion in list(self._unsent.items()):
            if self.sock is None:
                return
            # A peer that is gone is seen by its pidfd.
            with contextlib.suppress(OSError):
                if not channel.send(self.sock, kind, (companion.sock().fileno(),)):
                    return
            del self._unsent[kind]

    def listen(self) -> bool:
        """Read what it says; False at the end of its channel."""
        while self.sock is not None:
            try:
                message = channel.receive(self.sock)
            except EOFError:
                return False
            except ValueError:
                continue
            if message is None:
                break
            record, fds = message
            channel.close(fds)
            if record == READY and self.ready is None:
                self.ready = time.monotonic()
        return True

    def silent(self, now: float) -> float:
        """Seconds since its loop last turned."""
        return now - self._slot.heard_ns() / 1e9

    def due(self, now: float) -> list[Signals | None]:
        """Steps of its escalation whose time has come."""
        steps = []
        while self.escalation and self.escalation[0][0] <= now:
            steps.append(self.escalation.popleft()[1])
        return steps


class Generation:
    """Numbered workers with one configuration, and the sockets they listen on."""

    def __init__(self, settings: Settings, listeners: tuple[Listener, ...], roots: tuple[int, ...]) -> None:
        self.settings = settings
        self.listeners = listeners
        self.roots = roots
        self.watched = watched(settings, roots)
        self.wanted = settings.server.workers
        self.workers: dict[int, Worker] = {}
        self.boot_seconds = BOOT_SECONDS
        self._backoff = Backoff()

    def missing(self, now: float) -> list[int]:
        """Numbers for which a worker is to be forked now."""
        if not self._backoff.due(now):
            return []
        return [number for number in range(self.wanted) if number not in self.workers]

    def all_ready(self) -> bool:
        """Whether every wanted worker serves."""
        return len(self.workers) >= self.wanted and all(worker.ready is not None for worker in self.workers.values())

    def failed(self, worker: Worker) -> float:
        """A worker of ours ended and nobody wanted it to: seconds until the next try.

        One that had served is replaced at once, one that died while booting after 1, 2, 4 ... 30 s.
        """
        now = time.monotonic()
        booted = worker.ready is not None
        age = now - worker.born if booted else 0.0
        return self._backoff.failed(now, age, free=1 if booted else 0)

    def put_off(self) -> float:
        """A worker could not be forked: seconds until the next try."""
        return self._backoff.failed(time.monotonic(), 0.0, free=0)

    def remove(self, worker: Worker) -> None:
        """Its number is vacant."""
        if self.workers.get(worker.number) is worker:
            del self.workers[worker.number]

    def surplus(self) -> list[Worker]:
        """Workers above the wanted number, highest first; they are no longer ours."""
        numbers = sorted((n for n in self.workers if n >= self.wanted), reverse=True)
        return [self.workers.pop(number) for number in numbers]
