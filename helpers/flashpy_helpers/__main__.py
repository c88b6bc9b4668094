"""The programs of the helper side: two spawners (and the helpers that they fork), log helper, watcher.

The master starts them with ``-I -S``, so they load nothing from a site or a user, and what a helper
runs is what the server was started with, even when the files have been replaced since. The heavy
spawner gets the folders that the server itself imports from: its helpers need libraries. A fork of
a spawner costs a millisecond or two and no disk; a fork of a worker would hold its clients open.

    spawner CONTROL REQUESTS UID GID GROUPS     heavy-spawner CONTROL REQUESTS UID GID GROUPS
    log RECORDS ACCESS ERROR UID GID GROUPS     watch CONTROL UID GID GROUPS

Numbers are descriptors; UID -1 keeps the rights, ACCESS -1 is off, GROUPS is "4,24" or "". For ps
they are flashpy-spawner and its flashpy-helper, flashpy-heavy and its flashpy-press, flashpy-log,
flashpy-watcher.

Signals do not end these programs, the end of file does: a ctrl-C in the terminal reaches every
process, and the workers still need helpers and log until they are drained.
"""

import ctypes
import gc
import mmap
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn

from flashpy_helpers import channel, logfile, pathname, records, watcher, wire

_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_IGNORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGXFSZ,
)

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


class Trade(NamedTuple):
    """What the helpers of one spawner are: their name, how they do a job, and how far they stand back.

    ``nice`` is added to that of the server.
    """

    name: str
    do: Callable[[wire.Job, Mapping[int, wire.Root], memoryview], wire.Answer]
    nice: int = 0


def main() -> None:
    """Run the program that the arguments name; the first one says where it may import from."""
    match sys.argv[2:]:
        case ["spawner", *arguments]:
            _spawner("flashpy-spawner", Trade("flashpy-helper", pathname.do), *arguments)
        case ["heavy-spawner", *arguments]:
            _spawner("flashpy-heavy", _heavy_trade(), *arguments)
        case ["log", records, access, error, as_json, uid, gid, groups]:
            kept = {int(records), int(access), int(error)}
            _enter("flashpy-log", kept, int(uid), int(gid), groups)
            logfile.run(socket.socket(fileno=int(records)), int(access), int(error), as_json == "1")
        case ["watch", control, uid, gid, groups]:
            _enter("flashpy-watcher", {int(control)}, int(uid), int(gid), groups)
            watcher.run(socket.socket(fileno=int(control)))
        case _:
            sys.exit("flashpy_helpers is started by flashpy")


def _heavy_trade() -> Trade:
    """Import all that heavy jobs need, with the rights of the start: the libraries may be root's alone."""
    from flashpy_helpers import heavy

    for library in heavy.MISSING:
        _log("warning", f"{library} is not installed: what needs it is not done")
    # Not SCHED_IDLE: beside workers that never rest a password would wait a minute. So it gets a tenth of a core.
    return Trade("flashpy-press", heavy.do, 10)


def _enter(name: str, kept: set[int], uid: int, gid: int, groups: str) -> None:
    """Become a process of its own with few rights, before the first byte of input."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with suppress(PermissionError):  # it already leads a session
        os.setsid()
    _close_all_but(kept)
    if uid >= 0:
        os.setgroups([int(group) for group in groups.split(",") if group])
        os.setgid(gid)
        os.setuid(uid)
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    _name(name)


def _name(name: str) -> None:
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()), 0, 0, 0)


def _close_all_but(kept: set[int]) -> None:
    low = 3
    for fd in sorted(kept | {os.sysconf("SC_OPEN_MAX")}):
        if fd >= low:
            os.closerange(low, fd)
            low = fd + 1


def _spawner(name: str, trade: Trade, control_fd: str, requests_fd: str, uid: str, gid: str, groups: str) -> None:
    """Fork a helper of this trade for each request, until master and workers are gone."""
    _enter(name, {int(control_fd), int(requests_fd)}, int(uid), int(gid), groups)
    control, requests = socket.socket(fileno=int(control_fd)), socket.socket(fileno=int(requests_fd))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    roots: list[wire.Root] = []
    gc.freeze()  # else a collection in a helper would copy every page that they share
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        poll.poll()
        try:
            fds = _receive_request(requests)
        except EOFError:
            return
        # After the request: what it may name was sent before it.
        if control.fileno() >= 0 and not _take_roots(control, roots):
            poll.unregister(control)
            control.close()
        if len(fds) == 2:
            _fork(trade, fds[0], fds[1], (control, requests), roots)
        channel.close(fds)


def _receive_request(requests: socket.socket) -> list[int]:
    """What comes with a request: the helper's end of a channel, and the memory of the cache. Raises EOFError."""
    try:
        got = channel.receive(requests)
    except ValueError:
        return []
    return [] if got is None else got[1]


def _take_roots(control: socket.socket, roots: list[wire.Root]) -> bool:
    """Read all that the master has sent; whether it is still there."""
    while True:
        try:
            got = channel.receive(control)
        except EOFError:
            return False
        if got is None:
            return True
        record, fds = got
        channel.close(fds)
        roots.append(records.unpack_root(record))


def _fork(trade: Trade, end: int, memory: int, foreign: tuple[socket.socket, ...], roots: list[wire.Root]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        # The worker sees the end of its channel and asks again.
        _log("error", f"no helper: {error.strerror}")
        return
    if not pid:
        _run_helper(trade, end, memory, foreign, roots)


def _run_helper(
    trade: Trade, end: int, memory: int, foreign: tuple[socket.socket, ...], roots: list[wire.Root]
) -> NoReturn:
    status = 1
    try:
        _name(trade.name)
        for sock in foreign:
            sock.close()
        if stat.S_ISSOCK(os.fstat(end).st_mode):
            helper(trade, socket.socket(fileno=end), memory, dict(enumerate(roots)))
            status = 0
    except BaseException as error:
        _log("error", f"helper: {_describe(error)}")
    finally:
        os._exit(status)


def helper(trade: Trade, sock: socket.socket, fd: int, roots: Mapping[int, wire.Root]) -> None:
    """Do one job after the other, until the worker has closed its end of the channel.

    ``fd`` is the memory of the worker's content cache, sealed against shrinking; it is closed.
    """
    memory = memoryview(mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED))
    os.close(fd)
    # A helper that wakes does not push its worker off the processor: hits go before misses.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(trade.nice)
    answer: wire.Answer = wire.Hello(wire.VERSION, os.getpid())
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            while not channel.send(sock, records.pack_answer(answer), flags=0):
                time.sleep(0.01)  # the kernel is short of memory
            got = None
            while got is None:
                got = channel.receive(sock, 0)
            record, fds = got
            channel.close(fds)
            answer = _answer(trade, record, roots, memory)


def _answer(trade: Trade, record: bytes, roots: Mapping[int, wire.Root], memory: memoryview) -> wire.Answer:
    try:
        return trade.do(records.unpack_job(record), roots, memory)
    except MemoryError:
        raise
    except Exception as error:  # a bug costs the one request, never the helper
        _log("error", f"helper: {_describe(error)}")
        return wire.Failure(records.job_id(record), wire.BROKEN, 0)


def _describe(error: BaseException) -> str:
    """Say what and where, without source lines: those would be read from the disk."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{where}"


def _log(level: str, text: str) -> None:
    with suppress(OSError):
        os.write(2, logfile.error_line(level, text))
