"""Signals as bytes: in processes of their own, since handlers belong to the whole process."""

import os
import select
import signal
import time
from collections.abc import Callable
from signal import Signals

import pytest

from flashpy.signals import MASTER, WORKER, Wakeup, blocked, forget_parent

# The threads are the test runner's (pytest-xdist); the children here never use them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def status_of(do: Callable[[], bool]) -> int:
    """Exit status of a forked process: 0 when ``do`` returns true, -N for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if do() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait(wakeup: Wakeup, seconds: float = 20) -> list[Signals]:
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    poll.poll(seconds * 1000)
    return wakeup.read()


@pytest.mark.parametrize("number", MASTER)
def test_each_signal_arrives_as_a_byte(number: Signals) -> None:
    def do() -> bool:
        wakeup = Wakeup(MASTER)
        os.kill(os.getpid(), number)
        return wait(wakeup) == [number]

    assert status_of(do) == 0


def test_signals_keep_their_order_and_number() -> None:
    def do() -> bool:
        wakeup = Wakeup(MASTER)
        sent = [Signals.SIGHUP, Signals.SIGTERM, Signals.SIGTERM]
        for number in sent:
            os.kill(os.getpid(), number)
        return wait(wakeup) == sent and wakeup.read() == []

    assert status_of(do) == 0


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGPIPE"])
def test_a_worker_is_not_ended_by_what_is_meant_for_the_master(name: str) -> None:
    def do() -> bool:
        wakeup = Wakeup(WORKER)
        os.kill(os.getpid(), Signals[name])
        os.kill(os.getpid(), Signals.SIGTERM)
        return wait(wakeup) == [Signals.SIGTERM]

    assert status_of(do) == 0


def test_a_signal_to_a_new_child_waits_for_its_own_wakeup() -> None:
    """And never wakes the parent, whose socketpair the child still has."""

    def do() -> bool:
        parent = Wakeup(MASTER)
        reading, writing = os.pipe()
        with blocked():
            pid = os.fork()
            if pid == 0:
                forget_parent()
                os.read(reading, 1)  # the signal is there, and blocked
                own = Wakeup(WORKER)
                os._exit(0 if wait(own) == [Signals.SIGTERM] else 1)
        os.kill(pid, Signals.SIGTERM)
        os.write(writing, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status == 0 and parent.read() == []

    assert status_of(do) == 0


def test_the_mask_is_restored_after_a_fork() -> None:
    def do() -> bool:
        signal.pthread_sigmask(signal.SIG_SETMASK, {Signals.SIGUSR2})
        with blocked():
            inside = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        after = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return Signals.SIGTERM in inside and after == {Signals.SIGUSR2}

    assert status_of(do) == 0


def test_a_full_socket_loses_signals_but_never_waits() -> None:
    def do() -> bool:
        wakeup = Wakeup(MASTER)
        start = time.monotonic()
        for _ in range(20000):
            os.kill(os.getpid(), Signals.SIGHUP)
        return time.monotonic() - start < 20 and bool(wakeup.read())

    assert status_of(do) == 0


def test_closing_ignores_what_comes_late() -> None:
    def do() -> bool:
        Wakeup(MASTER).close()
        os.kill(os.getpid(), Signals.SIGTERM)
        return True

    assert status_of(do) == 0
