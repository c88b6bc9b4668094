"""Signals become bytes on a socket. The master and the workers run this.

No handler does anything: ``signal.set_wakeup_fd`` makes the interpreter write the number of the
signal to a socketpair, the loop sees the socket like any other, and one ``match`` acts. A process
that forks blocks all signals before, and the child opens them when it has a socketpair of its own:
until then it has its parent's, and a signal to the child would wake the parent.

What each signal means is in SIGNALS.md.
"""

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from signal import Signals
from typing import ClassVar

MASTER = (
    Signals.SIGTERM,
    Signals.SIGINT,
    Signals.SIGQUIT,
    Signals.SIGHUP,
    Signals.SIGUSR1,
    Signals.SIGTTIN,
    Signals.SIGTTOU,
)
"""What the master acts on."""

WORKER = (Signals.SIGTERM, Signals.SIGINT, Signals.SIGQUIT)
"""What a worker acts on: TERM = drain, INT and QUIT = now. All else is the master's business."""

_STRAY = (
    Signals.SIGHUP,
    Signals.SIGUSR1,
    Signals.SIGUSR2,
    Signals.SIGTTIN,
    Signals.SIGTTOU,
    Signals.SIGPIPE,
)
"""Signals that would end a process that did not ask for them, or stop it."""


class Wakeup:
    """The socket on which this process's signals arrive; register it for reading.

    Makes the socketpair, installs the handlers, ignores stray signals and unblocks all, in this
    order. One for each process.
    """

    _current: ClassVar["Wakeup | None"] = None
    """Keeps it alive to the end of the process, whoever lets go: a late signal is still written."""

    def __init__(self, wanted: Iterable[Signals]) -> None:
        Wakeup._current = self
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        chosen = frozenset(wanted)
        for number in chosen:
            signal.signal(number, _nothing)
        for number in frozenset(_STRAY) - chosen:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._reading.fileno()

    def read(self) -> list[Signals]:
        """The signals that came since the last call, in order; never waits."""
        try:
            return [Signals(number) for number in self._reading.recv(4096)]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the signals back to the interpreter, ignored."""
        signal.set_wakeup_fd(-1)
        for number in MASTER:
            signal.signal(number, signal.SIG_IGN)
        self._reading.close()
        self._writing.close()


@contextmanager
def blocked() -> Iterator[None]:
    """Block every signal, for a fork; the child leaves the block to its ``Wakeup``."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forget_parent() -> None:
    """First act of a forked child: its signals no longer wake the parent."""
    signal.set_wakeup_fd(-1)


def _nothing(number: int, frame: object) -> None:
    """A handler must exist for the wakeup byte to be written."""
