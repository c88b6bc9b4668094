"""The watcher, as the master keeps it: while a site has ``watch``. The master runs this.

A companion like the others, but no worker needs it: without it changes show later. So it is started
beside the workers and not before them, and its end stops no boot. What it tells of changed files the
master passes on, unread; only a line for the log is for the master itself.
"""

import socket
from collections.abc import Callable, Mapping
from signal import Signals

from flashpy.companions import Companion
from flashpy.logs import Log
from flashpy.privileges import Rights
from flashpy.processes import Child, Watch, start_watcher
from flashpy_helpers import channel, news

_RECORDS = 64  # read at a time: the master has other things to do


class Watcher(Companion):
    """The process that hears of changed files, and the roots that it watches."""

    name, counter = "watcher", "watcher_restarts"

    def __init__(self, rights: Rights) -> None:
        super().__init__(rights)
        self._wanted: dict[int, bytes] = {}
        self._untold: dict[int, bytes | None] = {}
        self._control: socket.socket | None = None
        self._watch: Watch | None = None
        self._pass_on: Callable[[bytes], None] = _ignore
        self._log: Callable[[], Log] | None = None

    def connect(self, watch: Watch, pass_on: Callable[[bytes], None], log: Callable[[], Log]) -> None:
        """Hear it by ``watch``; its news go to ``pass_on``. Before the first start."""
        self._watch, self._pass_on, self._log = watch, pass_on, log

    def want(self, roots: Mapping[int, bytes]) -> None:
        """Have these roots watched, by their numbers, and no others; without any it is let go."""
        if self._wanted != roots:
            for number in self._wanted.keys() - roots.keys():
                self._untold[number] = None
            for number in roots.keys() - self._wanted.keys():
                self._untold[number] = roots[number]
            self._wanted = dict(roots)
            if not roots:
                self._let_go()
        self._tell()

    def missing(self, now: float) -> bool:
        """Whether a process is to be started now."""
        return bool(self._wanted) and super().missing(now)

    def ready(self) -> bool:
        """Nobody waits for it."""
        return True

    def _let_go(self) -> None:
        self.close()
        self._untold.clear()
        if self.child is not None:
            # It would end by itself, but not one that is stopped, and it has nothing to finish.
            self.child.kill(Signals.SIGKILL)
        self._make_former()

    def _tell(self) -> None:
        """Send the orders that it does not have yet; what does not go now goes in a later turn."""
        try:
            while self._control is not None and self._untold:
                number, path = next(iter(self._untold.items()))
                if not channel.send(self._control, news.pack_order(number, path)):
                    return
                del self._untold[number]
        except OSError:
            return  # it is dead: the next one is told all

    def _start(self) -> Child:
        control, its_control = channel.pair()
        try:
            with its_control:
                child = start_watcher(its_control.fileno(), self.rights)
        except OSError:
            control.close()
            raise
        self.attach(control)
        return child

    def attach(self, control: socket.socket) -> None:
        """Whoever is at the other end of ``control`` is the watcher now, and is told all that is wanted."""
        self.close()
        self._control = control
        if self._watch is not None:
            self._watch.add(control.fileno(), self._hear)
        self._untold = dict(self._wanted)
        self._tell()

    def _hear(self) -> None:
        """Pass on what it says."""
        for _ in range(_RECORDS):
            try:
                got = None if self._control is None else channel.receive(self._control)
            except EOFError:
                self.close()
                return
            except ValueError:  # nonsense is no reason for the master to end
                self._pass_on(news.EVERYTHING)
                continue
            if got is None:
                return
            record, fds = got
            channel.close(fds)
            self._judge(record)

    def _judge(self, record: bytes) -> None:
        kind = record[: len(news.CHANGES)]
        if kind == news.CHANGES:
            self._pass_on(record)
        elif kind == news.PROBLEM and self._log is not None:
            self._log().warning(record[len(kind) :].decode("utf-8", "replace"))

    def close(self) -> None:
        """Let it go: it ends."""
        if self._control is not None:
            if self._watch is not None:
                self._watch.forget(self._control.fileno())
            self._control.close()
            self._control = None


def _ignore(_record: bytes) -> None:
    """Nobody wants to hear of changes yet."""
