"""Processes that share out numbered jobs. The command's own process runs this, and its children the loop at the end.

Each child has one job at a time and gets the next with its answer, so the faster ones do more. One that dies takes its
job with it and is replaced. A signal to stop kills them all: while a child is in a compressor, which may take minutes,
it hears nothing. What a killed child left behind is the caller's to remove.
"""

import os
import select
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from signal import Signals
from socket import socket
from typing import NamedTuple

from flashpy import signals
from flashpy.processes import FAILED, Child, close_others, describe
from flashpy_helpers import channel

Work = Callable[[int, int], bytes]
"""Does the job of a number, in the child of a number; what it returns is at most `channel.RECORD_BYTES` long."""

_STOP = (Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP, Signals.SIGQUIT)


class Done(NamedTuple):
    """A job and its answer."""

    job: int
    answer: bytes


class Lost(NamedTuple):
    """A job whose child ended in the middle of it: which child, its process id, and how it ended."""

    job: int
    child: int
    pid: int
    how: str


class Stopped(NamedTuple):
    """A signal came. These jobs were under way, each in its child, which has been killed."""

    signal: Signals
    lost: tuple[Lost, ...]


class _Fork(NamedTuple):
    child: Child
    number: int
    job: int


class Forks:
    """So many children at a time, for the jobs from 0 to `jobs` - 1."""

    def __init__(self, jobs: int, most: int, work: Work) -> None:
        self._waiting = deque(range(jobs))
        self._most = most
        self._work = work
        self._started = 0
        self._busy: dict[socket, _Fork] = {}
        self._poll = select.poll()

    def results(self) -> Iterator[Done | Lost | Stopped]:
        """What comes of each job, in the order of its end; nothing comes after a Stopped.

        Raises OSError for a fork that fails while there is no other child.
        """
        # Whoever started us may have wanted some of them ignored, as nohup does.
        wakeup = signals.Wakeup([number for number in _STOP if signal.getsignal(number) != signal.SIG_IGN])
        self._poll.register(wakeup, select.POLLIN)
        try:
            while self._waiting or self._busy:
                self._fill()
                ready = {fd for fd, _ in self._poll.poll()}
                if caught := wakeup.read():
                    yield Stopped(caught[0], self._kill())
                    return
                for end in [end for end in self._busy if end.fileno() in ready]:
                    yield self._hear(end)
        finally:
            self._kill()
            wakeup.close()

    def _fill(self) -> None:
        while self._waiting and len(self._busy) < self._most:
            try:
                self._fork()
            except OSError:
                if not self._busy:
                    raise
                return

    def _fork(self) -> None:
        near, far = channel.pair()
        number = self._started
        with far, signals.blocked():
            pid = os.fork()
            if pid == 0:
                _be_child(far, number, self._work)
        self._started += 1
        self._poll.register(near, select.POLLIN)
        self._busy[near] = _Fork(Child(pid), number, self._waiting[0])
        self._give(near)

    def _hear(self, end: socket) -> Done | Lost:
        fork = self._busy[end]
        try:
            answer, _ = channel.receive(end, flags=0) or (b"", [])
        except EOFError:
            return self._dismiss(end)
        if self._waiting:
            self._busy[end] = fork._replace(job=self._waiting[0])
            self._give(end)
        else:
            fork.child.kill(Signals.SIGKILL)  # it would end by itself, unless somebody has stopped it
            self._dismiss(end)
        return Done(fork.job, answer)

    def _give(self, end: socket) -> None:
        # Of a child that is gone the end of file comes next, and says so.
        with suppress(BrokenPipeError, ConnectionResetError):
            channel.send(end, b"%d" % self._waiting.popleft(), flags=0)

    def _dismiss(self, end: socket) -> Lost:
        """Let a child go: at the end of its channel it ends, unless it has already."""
        fork = self._busy.pop(end)
        self._poll.unregister(end)
        end.close()
        return Lost(fork.job, fork.number, fork.child.pid, describe(_wait(fork.child)))

    def _kill(self) -> tuple[Lost, ...]:
        for fork in self._busy.values():
            fork.child.kill(Signals.SIGKILL)
        return tuple(self._dismiss(end) for end in list(self._busy))


def _wait(child: Child) -> int:
    poll = select.poll()
    poll.register(child, select.POLLIN)
    while (status := child.reap()) is None:
        poll.poll()
    return status


def _be_child(end: socket, number: int, work: Work) -> None:
    status = FAILED
    try:
        signals.forget_parent()
        close_others((end.fileno(),))
        # Not its own: the parent kills it, and if the parent dies it brings its file to an end.
        signal.pthread_sigmask(signal.SIG_SETMASK, _STOP)
        while job := channel.receive(end, flags=0):
            channel.send(end, work(int(job[0]), number), flags=0)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
