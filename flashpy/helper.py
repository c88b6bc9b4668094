"""WORKER: one helper as the worker knows it, and how another is asked of the spawner.

A fork of a worker would hold its clients open, so helpers are forked by the spawner: the worker makes a channel and
sends the spawner one end, with the content cache's descriptor. Nothing comes back but the helper's own hello.
"""

import socket

from flashpy.tasks import Task
from flashpy_helpers import channel

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0


class Helper:
    """The worker's end of one helper. `task` is what it does now; `since` when (monotonic seconds) it was hired or fell
    idle. One that `checks` is kept for that, one that is `written_off` is stuck.
    """

    __slots__ = ("checks", "greeted", "since", "sock", "task", "written_off")

    def __init__(self, sock: socket.socket, now: float, checks: bool) -> None:
        self.sock = sock
        self.since = now
        self.checks = checks
        self.greeted = False
        self.written_off = False
        self.task: Task | None = None

    @property
    def idle(self) -> bool:
        """Whether it can be given a job."""
        return self.greeted and self.task is None

    @property
    def occupied(self) -> bool:
        """Whether it is at a job that somebody may wait for, and not stuck."""
        return self.task is not None and not (self.checks or self.written_off)


class SpawnerClient:
    """The way to the spawner, left alone for a while after each failure in a row: 0.1 s, 0.2 s ... 5 s."""

    def __init__(self, sock: socket.socket, memory_fd: int) -> None:
        self._sock = sock
        self._memory_fd = memory_fd
        self._failures = 0
        self._not_before = 0.0

    def rebind(self, sock: socket.socket) -> None:
        """The master has started another spawner, which may be asked at once; the old channel is closed."""
        self._sock.close()
        self._sock = sock
        self._not_before = 0.0

    def is_away(self, now: float) -> bool:
        """Whether no helper can be had of it at `now`, since the last request came to nothing."""
        return now < self._not_before

    def request(self, now: float) -> socket.socket | None:
        """The worker's end of a channel to a new helper; None when there can be none at `now` (monotonic seconds)."""
        if now < self._not_before:
            return None
        try:
            ours, theirs = channel.pair()
        except OSError:  # no descriptor is free: the helpers that are there do the work
            self.failed(now)
            return None
        with theirs:
            if self._send(theirs):
                return ours
        ours.close()
        self.failed(now)
        return None

    def _send(self, end: socket.socket) -> bool:
        try:
            return channel.send(self._sock, b"H", (end.fileno(), self._memory_fd))
        except OSError:
            return False

    def failed(self, now: float) -> None:
        """No helper came of a request, or none that said hello."""
        self._not_before = now + min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(self._failures, 10))
        self._failures += 1

    def succeeded(self) -> None:
        """A helper has said hello."""
        self._failures = 0
