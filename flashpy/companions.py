"""The spawners and the log helper, kept alive. The master runs this.

Each is one process for the whole server, at the end of a channel that the workers share: when one
is replaced the workers are sent the new channel, and the old process ends when the last of them
has let the old one go. There are heavy helpers, and their spawner, only while the settings need
them. One that dies is replaced at once, one that dies again and again after 1, 2, 4 ... 30 s. The
master keeps no end that is not its own, else nobody would see the other die.
"""

import contextlib
import os
import select
import socket
import time
from typing import NamedTuple

from flashpy.config import Settings
from flashpy.config.schema import Log as LogSettings
from flashpy.heritage import NEW_HEAVY, NEW_LOG, NEW_SPAWNER, rooted
from flashpy.logs import Log
from flashpy.privileges import Rights
from flashpy.processes import Child, start_heavy_spawner, start_log_helper, start_spawner
from flashpy_helpers import channel, records, wire

LONGEST_DELAY = 30.0
YOUNG = 5.0
"""A process that dies before this age (seconds) has failed; an older one had bad luck."""


class Backoff:
    """How long to wait before a process that failed is tried again: 0, 1, 2, 4 ... 30 s."""

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0

    def failed(self, now: float, age: float, free: int = 1) -> float:
        """Count a death at this age; the first ``free`` ones cost nothing. Returns the delay."""
        self._failures = self._failures + 1 if age < YOUNG else 1
        exponent = self._failures - free - 1
        delay = 0.0 if exponent < 0 else min(LONGEST_DELAY, 2.0 ** min(exponent, 10))
        self._not_before = now + delay
        return delay

    def due(self, now: float) -> bool:
        """Whether the delay is over."""
        return now >= self._not_before


class Companion:
    """What they have in common: at most one current process, and its replacement."""

    name: str
    counter: str
    """Under which name its replacements are counted."""
    kind: bytes = b""
    """The record that brings a worker the new channel; b"" when workers have none and can do without."""

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self.child: Child | None = None
        self.replaced = 0
        self._former: list[Child] = []
        self._backoff = Backoff()
        self._born = 0.0

    def start(self) -> Child:
        """Start a process and make it the current one. Raises OSError."""
        child = self._start()
        self._make_former()
        self.child = child
        self._born = time.monotonic()
        return child

    def died(self) -> float:
        """The current process is gone: when (in seconds from now) it may be replaced."""
        now = time.monotonic()
        self.child = None
        self.replaced += 1
        return self._backoff.failed(now, now - self._born)

    def forget_former(self, child: Child) -> bool:
        """Whether this one, which has ended, was no longer the current one: nothing follows from its end."""
        if child not in self._former:
            return False
        self._former.remove(child)
        return True

    def missing(self, now: float) -> bool:
        """Whether a process is to be started now."""
        return self.child is None and self._backoff.due(now)

    def ready(self) -> bool:
        """Whether a worker that needs it may be forked."""
        return self.child is not None

    def sock(self) -> socket.socket:
        """The end of the channel for the workers."""
        raise NotImplementedError

    def _start(self) -> Child:
        raise NotImplementedError

    def _make_former(self) -> None:
        """The current process, if there is one, is to end by itself; none is current then."""
        if self.child is not None:
            self._former.append(self.child)
            self.child = None


class Roots:
    """The folders that helpers may open. Every spawner is told them all, in the order of their numbers."""

    def __init__(self) -> None:
        self._numbers: dict[wire.Root, int] = {}

    def number(self, settings: Settings) -> tuple[int, ...]:
        """The numbers of a configuration's roots, in the order that ``rooted`` gives.

        A folder served in the same way keeps its number; none is ever taken back, since a worker
        that drains still uses it.
        """
        result = []
        for root in rooted(settings):
            if root not in self._numbers:
                self._numbers[root] = len(self._numbers)
            result.append(self._numbers[root])
        return tuple(result)

    def later(self, count: int) -> list[wire.Root]:
        """All but the first ``count``."""
        return list(self._numbers)[count:]


class Spawner(Companion):
    """The process that forks helpers."""

    name, counter = "spawner", "spawner_restarts"
    kind = NEW_SPAWNER
    program = staticmethod(start_spawner)

    def __init__(self, rights: Rights, roots: Roots) -> None:
        super().__init__(rights)
        self._roots = roots
        self._told = 0
        self._requests: socket.socket | None = None
        self._control: socket.socket | None = None

    def sock(self) -> socket.socket:
        """Where workers ask for helpers."""
        assert self._requests is not None
        return self._requests

    def ready(self) -> bool:
        """A worker may ask for a helper at once, and that one must know its roots."""
        return self.child is not None and self.tell()

    def tell(self) -> bool:
        """Send the roots that the spawner does not know yet; whether it has them all."""
        if self._control is None:
            return False
        try:
            for root in self._roots.later(self._told):
                if not channel.send(self._control, records.pack_root(root)):
                    return False
                self._told += 1
        except OSError:
            return False  # it is dead: the next one is told all
        return True

    def _start(self) -> Child:
        requests, its_requests = channel.pair()
        control, its_control = channel.pair()
        try:
            with its_requests, its_control:
                child = self.program(its_control.fileno(), its_requests.fileno(), self.rights)
        except OSError:
            requests.close()
            control.close()
            raise
        self.close()
        self._requests, self._control = requests, control
        self._told = 0
        self.tell()
        return child

    def close(self) -> None:
        """Let it go: it ends when the workers have let go too."""
        for sock in (self._requests, self._control):
            if sock is not None:
                sock.close()


class HeavySpawner(Spawner):
    """The process that forks heavy helpers, while it is ``wanted``."""

    name, counter = "heavy spawner", "heavy_restarts"
    kind = NEW_HEAVY
    program = staticmethod(start_heavy_spawner)

    def __init__(self, rights: Rights, roots: Roots, *, wanted: bool) -> None:
        super().__init__(rights, roots)
        self.wanted = wanted

    def ready(self) -> bool:
        """Whoever has its channel does without it until it is replaced: files are served all the same."""
        is_open = self._requests is not None and self._requests.fileno() >= 0
        return is_open and (self.child is None or self.tell())

    def release(self) -> None:
        """It is no longer wanted, and ends when the workers that had use for it are gone."""
        self.wanted = False
        self.close()
        self._make_former()


class Files(NamedTuple):
    """Open descriptors of the logs; -1 = off."""

    access: int
    error: int

    def close(self) -> None:
        """The log helper has its own copies."""
        for fd in self:
            if fd >= 0:
                os.close(fd)


def open_files(access: str, error: str) -> Files:
    """Open the logs with the master's rights. Raises OSError with the file's name."""
    error_fd = _open(error, 2)
    try:
        return Files(-1 if access == "off" else _open(access, 1), error_fd)
    except OSError:
        os.close(error_fd)
        raise


def _open(path: str, standard: int) -> int:
    if path == "-":
        return os.dup(standard)
    # O_NONBLOCK only until it is open: a pipe without a reader is an error, not a wait.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
    fd = os.open(path, flags, 0o644)
    os.set_blocking(fd, True)
    return fd


class LogHelper(Companion):
    """The process that writes the logs, and the master's own ``Log``."""

    name, counter = "log helper", "log_helper_restarts"
    kind = NEW_LOG

    def __init__(self, rights: Rights, wanted: LogSettings) -> None:
        super().__init__(rights)
        self.log = Log(None, wanted.level, wanted.error_format)
        self.paths = (wanted.access, wanted.error)
        self.form: str = wanted.error_format
        self._files: Files | None = None
        self._records: socket.socket | None = None

    def sock(self) -> socket.socket:
        """Where records go."""
        assert self._records is not None
        return self._records

    def set_level(self, level: str, form: str) -> None:
        """The master's own lines from this level up, and in this form; that of the log helper's own from its next
        start on.
        """
        self.log.flush()
        dropped, self.form = self.log.dropped, form
        self.log = Log(self.sock(), level, form)
        self.log.dropped = dropped

    def use(self, files: Files) -> None:
        """Take these files, already open, at the next start."""
        if self._files is not None:
            self._files.close()
        self._files = files

    def _start(self) -> Child:
        files = self._files or open_files(*self.paths)
        self._files = None
        try:
            records, its_records = channel.pair()
            try:
                with its_records:
                    child = start_log_helper(its_records.fileno(), *files, self.rights, as_json=self.form == "json")
            except OSError:
                records.close()
                raise
        finally:
            files.close()
        self._records = records
        self.log.rebind(records)
        return child

    def finish(self, last: str, deadline: float) -> None:
        """Write the last line, let the log helper go, and wait until it has written all, or ``deadline`` (monotonic).

        The line is written whatever the level is.
        """
        if self._records is not None:
            self._drain(self.log, deadline)
            farewell = Log(self._records, "info", self.form)
            farewell.info(last)
            self._drain(farewell, deadline)
            self._records.close()
        for child in (*self._former, *([self.child] if self.child is not None else [])):
            wait_for(child, deadline)

    def _drain(self, log: Log, deadline: float) -> None:
        poll = select.poll()
        poll.register(self.sock(), select.POLLOUT)
        while log.pending and (left := deadline - time.monotonic()) > 0:
            events = poll.poll(left * 1000)
            log.flush()
            if any(event & select.POLLERR for _, event in events):
                return


def wait_for(child: Child, deadline: float) -> bool:
    """Wait for the end of a process until ``deadline`` (monotonic); whether it has ended."""
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    with contextlib.suppress(ChildProcessError):
        return child.reap() is not None
    return True
