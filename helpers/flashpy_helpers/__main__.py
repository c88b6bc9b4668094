"""The programs of the helper side: spawner (and the helpers that it forks), log helper and watcher.

The master starts them with ``-I -S``, so they load nothing from a site or a user, and what a helper
runs is what the server was started with, even when the files have been replaced since. A fork of
the spawner costs a millisecond or two and no disk; a fork of a worker would hold its clients open.

    spawner CONTROL REQUESTS UID GID GROUPS     log RECORDS ACCESS ERROR UID GID GROUPS
    watch CONTROL UID GID GROUPS

Numbers are descriptors; UID -1 keeps the rights, ACCESS -1 is off, GROUPS is "4,24" or "".
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
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

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


def main() -> None:
    """Run the program that the arguments name; the first one is the folder of this package."""
    match sys.argv[2:]:
        case ["spawner", control, requests, uid, gid, groups]:
            _enter("flashpy-spawner", {int(control), int(requests)}, int(uid), int(gid), groups)
            _spawner(socket.socket(fileno=int(control)), socket.socket(fileno=int(requests)))
        case ["log", records, access, error, uid, gid, groups]:
            kept = {int(records), int(access), int(error)}
            _enter("flashpy-log", kept, int(uid), int(gid), groups)
            logfile.run(socket.socket(fileno=int(records)), int(access), int(error))
        case ["watch", control, uid, gid, groups]:
            _enter("flashpy-watcher", {int(control)}, int(uid), int(gid), groups)
            watcher.run(socket.socket(fileno=int(control)))
        case _:
            sys.exit("flashpy_helpers is started by flashpy")


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


def _spawner(control: socket.socket, requests: socket.socket) -> None:
    """Fork a helper for each request, until master and workers are gone."""
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
            _fork(fds[0], fds[1], (control, requests), roots)
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


def _fork(end: int, memory: int, foreign: tuple[socket.socket, ...], roots: list[wire.Root]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        # The worker sees the end of its channel and asks again.
        _log_error(f"no helper: {error.strerror}")
        return
    if not pid:
        _run_helper(end, memory, foreign, roots)


def _run_helper(end: int, memory: int, foreign: tuple[socket.socket, ...], roots: list[wire.Root]) -> NoReturn:
    status = 1
    try:
        _name("flashpy-helper")
        for sock in foreign:
            sock.close()
        if stat.S_ISSOCK(os.fstat(end).st_mode):
            helper(socket.socket(fileno=end), memory, dict(enumerate(roots)))
            status = 0
    except BaseException as error:
        _log_error(f"helper: {_describe(error)}")
    finally:
        os._exit(status)


def helper(sock: socket.socket, fd: int, roots: Mapping[int, wire.Root]) -> None:
    """Do one job after the other, until the worker has closed its end of the channel.

    ``fd`` is the memory of the worker's content cache, sealed against shrinking; it is closed.
    """
    memory = memoryview(mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED))
    os.close(fd)
    # A helper that wakes does not push its worker off the processor: hits go before misses.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
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
            answer = _answer(record, roots, memory)


def _answer(record: bytes, roots: Mapping[int, wire.Root], memory: memoryview) -> wire.Answer:
    try:
        return pathname.do(records.unpack_job(record), roots, memory)
    except MemoryError:
        raise
    except Exception as error:  # a bug costs the one request, never the helper
        _log_error(f"helper: {_describe(error)}")
        return wire.Failure(records.job_id(record), wire.BROKEN, 0)


def _describe(error: BaseException) -> str:
    """Say what and where, without source lines: those would be read from the disk."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{where}"


def _log_error(text: str) -> None:
    with suppress(OSError):
        os.write(2, logfile.error_line("error", text))
