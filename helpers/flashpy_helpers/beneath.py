"""Open what a path names under a root, and nothing outside it. Helpers run this.

The kernel does the work (openat2), so no file can be swapped for a link between a test and its use.
It refuses every absolute link, also one into the root, and some systems refuse openat2 itself: then
``_Walk`` goes from name to name on descriptors, follows links by itself, and asks at the end
whether the place that it has reached lies under the root.

Whatever is found is opened with O_PATH first: this starts no device, wakes no writer of a FIFO and
waits for nobody. Only a regular file is then opened for reading, through the descriptor itself.
"""

import ctypes
import errno
import os
import stat
import struct

from flashpy_helpers.wire import DENY, FOLLOW, INSIDE

_OPENAT2 = 437  # the same number on every architecture that CPython builds for today
_PATH = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
_PATH_MAX = 4096
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_RESOLVE = {
    INSIDE: _BENEATH | _NO_MAGICLINKS,
    DENY: _BENEATH | _NO_MAGICLINKS | _NO_SYMLINKS,
    FOLLOW: _NO_MAGICLINKS,
}
# EXDEV: perhaps an absolute link into the root. EAGAIN: a rename while ".." was resolved.
# The others: no openat2 here, or a filter that does not know it.
_WALK = frozenset({errno.EXDEV, errno.EAGAIN, errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL})
_LINKS = 40  # as in the kernel
_STEPS = 20_000

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)
_syscall.restype = ctypes.c_long


def open_root(path: bytes) -> int:
    """Return a descriptor (O_PATH) of a root folder, links in its own path followed afresh."""
    return os.open(path, _PATH | os.O_DIRECTORY)


def open_path(root: int, path: bytes, symlinks: int, *, walk: bool = False) -> int:
    """Return a descriptor (O_PATH) of what ``path`` names under the descriptor ``root``.

    Raises OSError: EXDEV when a link leaves the root or links are denied, else what the kernel
    says. ``walk`` keeps off openat2, as on a system that refuses it.
    """
    return _open(root, path, symlinks, _PATH, walk)


def open_file(
    root: int,
    path: bytes,
    symlinks: int,
    found: int,
    *,
    walk: bool = False,
    proc: str = "/proc/self/fd",
) -> int:
    """Return a readable descriptor of the regular file that open_path has found.

    Raises OSError: ESTALE when the path names another file by now (only where ``proc``, the
    kernel's list of own descriptors, is not mounted).
    """
    try:
        return os.open(f"{proc}/{found}", _READ)
    except FileNotFoundError:
        pass
    # No /proc here. O_NONBLOCK, for a FIFO may have come in its place.
    fd = _open(root, path, symlinks, _READ | os.O_NONBLOCK, walk)
    if _place(fd) == _place(found):
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, "another file has taken its place")


def is_plain(path: bytes) -> bool:
    """Whether a path can name something under a root at all: relative, no NUL, no ``..``."""
    return not path.startswith(b"/") and b"\0" not in path and b".." not in path.split(b"/")


def _open(root: int, path: bytes, symlinks: int, flags: int, walk: bool) -> int:
    if not is_plain(path):
        raise OSError(errno.ENOENT, "not a path under a root")
    try:
        if walk:
            return _open_by_walk(root, path, symlinks, flags)
        return _openat2(root, path or b".", flags, _RESOLVE[symlinks])
    except OSError as error:
        if symlinks == DENY and error.errno == errno.ELOOP:
            raise OSError(errno.EXDEV, "links are denied") from None
        if walk or error.errno not in _WALK:
            raise
    return _open_by_walk(root, path, symlinks, flags)


def _openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags, 0, resolve)
    while True:
        fd: int = _syscall(_OPENAT2, folder, path, how, len(how))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _open_by_walk(root: int, path: bytes, symlinks: int, flags: int) -> int:
    if len(path) >= _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if symlinks == FOLLOW:
        return os.open(path or b".", flags, dir_fd=root)
    walk = _Walk(root, path, symlinks == DENY)
    try:
        return walk.run(flags)
    except BaseException:
        os.close(walk.fd)
        raise


class _Walk:
    """A path followed name by name, holding one descriptor at a time.

    ``inside`` lists the names between the root and ``fd``, or is None while a link has led
    outside. The way back in is met by the identity of the root folder, so an absolute link may use
    any path that leads there. Under the root ``..`` is never asked of the kernel (a folder that is
    moved meanwhile has another parent): the walk starts again from the root instead.
    """

    def __init__(self, root: int, path: bytes, deny: bool) -> None:
        self.root = root
        self.deny = deny
        self.place = _place(root)
        self.todo = path.split(b"/")[::-1]
        self.inside: list[bytes] | None = []
        self.links = 0
        self.fd = os.dup(root)

    def run(self, flags: int) -> int:
        for _ in range(_STEPS):
            if not self.todo:
                break
            self._step(self.todo.pop(), flags)
        else:
            raise OSError(errno.ELOOP, "too many names to follow")
        if self.inside is None:
            raise OSError(errno.EXDEV, "a link leaves the root")
        return self.fd

    def _step(self, name: bytes, flags: int) -> None:
        if name in (b"", b"."):  # b"" also stands for a slash at the end
            if not stat.S_ISDIR(os.fstat(self.fd).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        elif name == b"..":
            self._up()
        else:
            self._down(name, flags)

    def _up(self) -> None:
        if self.inside:
            self.todo += self.inside[-2::-1]
            self._move(os.dup(self.root), [])
        else:
            self._move(os.open(b"..", _PATH | os.O_DIRECTORY, dir_fd=self.fd), None)

    def _down(self, name: bytes, flags: int) -> None:
        fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=self.fd)
        try:
            target = self._target(fd)
            if target is None and not self.todo and flags != _PATH:
                found, fd = fd, os.open(name, flags | os.O_NOFOLLOW, dir_fd=self.fd)
                os.close(found)
        except BaseException:
            os.close(fd)
            raise
        if target is None:
            self._move(fd, None if self.inside is None else [*self.inside, name])
            return
        os.close(fd)
        if target.startswith(b"/"):
            self._move(os.open(b"/", _PATH | os.O_DIRECTORY), None)
        self.todo += target.split(b"/")[::-1]

    def _target(self, fd: int) -> bytes | None:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            return None
        self.links += 1
        if self.deny:
            raise OSError(errno.EXDEV, "links are denied")
        if self.links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.readlink(b"", dir_fd=fd)

    def _move(self, fd: int, inside: list[bytes] | None) -> None:
        os.close(self.fd)
        self.fd = fd
        self.inside = [] if inside is None and _place(fd) == self.place else inside


def _place(fd: int) -> tuple[int, int]:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino
