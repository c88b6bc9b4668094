"""A file system that is slow, or hangs, as its files' names say. A process of its own, run as root:

    python tests/slowfs.py FOLDER

It speaks the kernel's FUSE protocol (version 7) on /dev/fuse itself, so it decides for each request
when it is answered, and a thousand unanswered ones cost it nothing. Nothing that it says may be
cached by the kernel. The one folder has every file that somebody asks for:

    slow-look...   its lookup takes 200 ms        slow-read...   each read takes 200 ms
    hang...        its lookup is read and never answered
    none...        does not exist                 others         are there at once

Commands come as lines on standard input and are answered with a line: ``hang NAME`` (from now on it
hangs too), ``held`` (how many requests wait without an end), ``release`` (answer them all, nothing
hangs any more). At the end of its input it goes, and its mount with it: the kernel then fails what
is unanswered, so no process stays stuck whatever happened to the test.
"""

import ctypes
import errno
import heapq
import os
import select
import stat
import struct
import sys
import time
from collections.abc import Callable
from enum import IntEnum

SLOW_SECONDS = 0.2
SIZE = 3000
"""Of every file, in bytes."""
MODIFIED = 1_500_000_000

_PARALLEL_LOOKUPS = 1 << 18
_DIRECT_IO = 1
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2
_ROOT = 1

_HEAD = struct.Struct("<IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, extras
_REPLY = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QQQQII")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTR_HEAD = struct.Struct("<QII")
_OPENED = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQI")
_STARTED = struct.Struct("<IIIIHHIIHHI28x")
_STATFS_OUT = struct.Struct("<QQQQQIII28x")

libc = ctypes.CDLL(None, use_errno=True)


class Op(IntEnum):
    """The requests that are known; any other is answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


_UNANSWERED = {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT}


def content(name: str) -> bytes:
    """The bytes of a file; no two files are alike."""
    return (f"{name}|".encode() * SIZE)[:SIZE]


def _check(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class SlowFs:
    """One mounted file system and what it has not answered yet."""

    def __init__(self, folder: str) -> None:
        self.folder = folder.encode()
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        flags = _MS_NOSUID | _MS_NODEV
        _check(libc.mount(b"slowfs", self.folder, b"fuse.slowfs", flags, options), "mount")
        self.names = {0: "", _ROOT: ""}
        self.nodes: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.held: list[Callable[[], None]] = []
        self.late: list[tuple[float, int, Callable[[], None]]] = []
        self.released = False

    def unmount(self) -> None:
        """Go, also while somebody is inside."""
        libc.umount2(self.folder, _MNT_DETACH)
        os.close(self.fd)

    def run(self) -> None:
        """Serve until standard input ends."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(0, select.POLLIN)
        commands = b""
        while True:
            ready = dict(poll.poll(self._patience()))
            while self.late and self.late[0][0] <= time.monotonic():
                heapq.heappop(self.late)[2]()
            if self.fd in ready and not self._take():
                return
            if 0 in ready:
                data = os.read(0, 4096)
                if not data:
                    return
                *lines, commands = (commands + data).split(b"\n")
                for line in lines:
                    print(self._obey(*line.decode().split()), flush=True)

    def _patience(self) -> float | None:
        if not self.late:
            return None
        return max(0.0, self.late[0][0] - time.monotonic()) * 1000

    def _obey(self, command: str, name: str = "") -> str:
        if command == "hang":
            self.hanging.add(name)
        elif command == "release":
            self.released = True
            held, self.held = self.held, []
            for answer in held:
                answer()
        return str(len(self.held))

    def _take(self) -> bool:
        """Read one request; False when it was unmounted."""
        try:
            record = os.read(self.fd, 1 << 18)
        except OSError as error:
            # EINTR and ENOENT: the one who asked has given up.
            return error.errno in (errno.EAGAIN, errno.ENOENT, errno.EINTR)
        _, opcode, unique, node, *_ = _HEAD.unpack_from(record)
        body = record[_HEAD.size :]
        if opcode not in _UNANSWERED:
            self._serve(opcode, unique, node, body)
        return True

    def _serve(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        name = body.rstrip(b"\0").decode() if opcode == Op.LOOKUP else self.names[node]
        if opcode == Op.LOOKUP and self._hangs(name):
            self.held.append(lambda: self._answer(opcode, unique, node, body))
        elif _is_slow(opcode, name):
            due = time.monotonic() + SLOW_SECONDS
            answer = lambda: self._answer(opcode, unique, node, body)  # noqa: E731
            heapq.heappush(self.late, (due, unique, answer))
        else:
            self._answer(opcode, unique, node, body)

    def _hangs(self, name: str) -> bool:
        return not self.released and (name.startswith("hang") or name in self.hanging)

    def _answer(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        answer = self._result(opcode, node, body)
        error, data = (-answer, b"") if isinstance(answer, int) else (0, answer)
        try:
            os.write(self.fd, _REPLY.pack(_REPLY.size + len(data), error, unique) + data)
        except OSError as problem:
            if problem.errno != errno.ENOENT:  # the one who asked was killed
                raise

    def _result(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """What to answer: bytes, or an error number."""
        match opcode:
            case Op.INIT:
                version = min(struct.unpack_from("<II", body)[1], 31)
                return _STARTED.pack(7, version, 0, _PARALLEL_LOOKUPS, 64, 48, 65536, 1, 0, 0, 0)
            case Op.LOOKUP:
                return self._look(node, body.rstrip(b"\0").decode())
            case Op.GETATTR:
                return _ATTR_HEAD.pack(0, 0, 0) + _attributes(node)
            case Op.OPEN:
                return _OPENED.pack(0, _DIRECT_IO, 0)
            case Op.READ:
                _, offset, size = _READ_IN.unpack_from(body)
                return content(self.names[node])[offset : offset + size]
            case Op.STATFS:
                return _STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096)
            case Op.OPENDIR:
                return _OPENED.pack(0, 0, 0)
            case Op.RELEASE | Op.READDIR | Op.RELEASEDIR:
                return b""
        return errno.ENOSYS

    def _look(self, parent: int, name: str) -> bytes | int:
        if parent != _ROOT or name.startswith("none"):
            return errno.ENOENT
        node = self.nodes.setdefault(name, len(self.nodes) + 2)
        self.names[node] = name
        return _ENTRY.pack(node, 0, 0, 0, 0, 0) + _attributes(node)


def _is_slow(opcode: int, name: str) -> bool:
    if opcode == Op.LOOKUP:
        return name.startswith("slow-look")
    return opcode == Op.READ and name.startswith("slow-read")


def _attributes(node: int) -> bytes:
    folder = node == _ROOT
    mode = stat.S_IFDIR | 0o755 if folder else stat.S_IFREG | 0o644
    size = 0 if folder else SIZE
    times = (MODIFIED,) * 3 + (0,) * 3
    return _ATTR.pack(node, size, 8, *times, mode, 1, 0, 0, 0, 4096, 0)


def main(folder: str) -> None:
    """Mount, say so with a line, serve, unmount."""
    files = SlowFs(folder)
    try:
        print("ready", flush=True)
        files.run()
    finally:
        files.unmount()


if __name__ == "__main__":
    main(sys.argv[1])
