"""Start, watch and kill the other processes. The master runs this.

Workers are forked (they share what the master has imported), the spawners, the log helper and the
watcher are exec'd (they shall share nothing). Every child is watched and signalled through its
pidfd, so no number is ever taken for the process that had it before. A forked child leaves by
``os._exit``: no exit handler and no destructor of the master's runs twice.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import flashpy_helpers
from flashpy import signals
from flashpy.heritage import Heritage
from flashpy.logs import Log
from flashpy.privileges import Rights, current, drop

FAILED = 70
"""Exit status of a worker that ended by an exception (EX_SOFTWARE)."""

_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(flashpy_helpers.__file__)))
# PYTHONPATH would put site-packages before the standard library; the end of sys.path does not.
_PROGRAM = "import sys; sys.path += sys.argv[1].split('\\n'); from flashpy_helpers.__main__ import main; main()"

Work = Callable[[Heritage], int]
"""What a worker does: returns its exit status."""


class Child:
    """A process that the master started and has not yet reaped."""

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._process = process
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """The pidfd: readable when the process has ended."""
        return self._pidfd

    def kill(self, number: int) -> None:
        """Send a signal; a process that has ended already is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def reap(self) -> int | None:
        """The exit status (a signal is negative) if the process has ended; closes the pidfd."""
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        os.close(self._pidfd)
        status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        if self._process is not None:
            self._process.returncode = status
        return status


class Watch:
    """Descriptors that the master waits for, and what to call when one has something."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call ``call`` in each turn in which ``fd`` has something."""
        self._calls[fd] = call
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Forget a descriptor; before it is closed. An unknown one is no error."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def turn(self, seconds: float) -> None:
        """Wait at most so long, then make the calls. They may forget descriptors, not add them."""
        for fd, _ in self._poll.poll(seconds * 1000):
            call = self._calls.get(fd)
            if call is not None:
                call()


def fork_worker(work: Work, heritage: Heritage, rights: Rights) -> Child:
    """Fork a process that does ``work`` with its heritage and nothing else.

    Signals are blocked in the child until it makes its own ``signals.Wakeup``. Raises OSError.
    """
    with signals.blocked():
        pid = os.fork()
        if pid == 0:
            _be_worker(work, heritage, rights)
    return Child(pid)


def _be_worker(work: Work, heritage: Heritage, rights: Rights) -> None:
    # The caller's frames stay on the stack below, and with them the master's objects: none of them
    # is finalised here, where its descriptor is closed and its number may be another's.
    status = FAILED
    try:
        signals.forget_parent()
        close_others(heritage.descriptors())
        _take_name()
        _detach_terminal()
        drop(rights)
        status = work(heritage)
    except BaseException as problem:  # the last resort of this process
        Log(heritage.log, form=heritage.settings.log.error_format).bug(f"worker {heritage.number} ended", problem)
    finally:
        os._exit(status)


def _take_name() -> None:
    """As ps and top show it, told from the master; the other programs do the same."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:
        file.write(b"flashpy-worker")


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and those to keep.

    By the kernel's list: counting up to a limit of a thousand million takes minutes.
    """
    kept = {0, 1, 2, *keep}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def open_standard() -> None:
    """Open the standard descriptors that are closed, lest a socket gets their number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stderr is None:  # it was closed when Python started
        sys.stderr = os.fdopen(2, "w", closefd=False)


def start_spawner(control: int, requests: int, rights: Rights) -> Child:
    """Start the spawner with its ends of the two channels. Raises OSError."""
    return _start("spawner", (control, requests), rights)


def start_heavy_spawner(control: int, requests: int, rights: Rights) -> Child:
    """Start the heavy spawner, which finds the libraries that this process finds. Raises OSError."""
    return _start("heavy-spawner", (control, requests), rights, libraries())


def libraries() -> list[str]:
    """The folders that this process imports from, after those of the standard library.

    Said one by one, since no flag of the interpreter gives the same: site-packages of a virtual
    environment or of the user, PYTHONPATH. The first is where the program lies or, with ``-m``, the
    current folder: no place for libraries, and nothing in it is to be run with the master's rights.
    """
    return [place for place in sys.path[0 if sys.flags.safe_path else 1 :] if os.path.isabs(place)]


def start_log_helper(records: int, access: int, error: int, rights: Rights, *, as_json: bool) -> Child:
    """Start the log helper with its end of the channel and the open files. Raises OSError.

    What it says itself is text, or ``as_json``.
    """
    return _start("log", (records, access, error), rights, extra=("1" if as_json else "0",))


def start_watcher(control: int, rights: Rights) -> Child:
    """Start the watcher with its end of the channel. Raises OSError."""
    return _start("watch", (control,), rights)


def _start(
    kind: str, fds: Sequence[int], rights: Rights, places: Iterable[str] = (), extra: Sequence[str] = ()
) -> Child:
    """Run a program of flashpy_helpers in a session of its own: Ctrl-C is for the master.

    It imports from the standard library, its own folder and these ``places``. ``extra`` is told after the descriptors.
    """
    groups = ",".join(map(str, rights.groups))
    # -1 means "off" for a log and "as it is" for rights: only root may set groups, even the same.
    uid = -1 if rights == current() else rights.uid
    numbers = [*map(str, fds), *extra, str(uid), str(rights.gid), groups]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, "\n".join((_FOLDER, *places)), kind, *numbers],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd for fd in fds if fd >= 0],
        cwd="/",
        start_new_session=True,
    )
    return Child(process.pid, process)


def _detach_terminal() -> None:
    """A worker reads no input and writes no output; errors (faulthandler) it may write."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
