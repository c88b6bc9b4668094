"""The kernel's news of changed files: inotify(7), by ctypes. The watcher runs this.

The standard library has no module for it. One instance serves all folders, since a user may have but 128
of them; several who want to hear of one folder share its watch, as the kernel has one for each folder.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
OVERFLOW, IGNORED = 0x4000, 0x8000
ONLYDIR, DONT_FOLLOW = 0x1000000, 0x2000000
ISDIR = 0x40000000

_MASK_ADD = 0x20000000
_event = struct.Struct("=iIII")
_BUFFER = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Event(NamedTuple):
    """What has happened to ``name`` in the folder of ``watch``, or with ``b""`` to the folder itself."""

    watch: int
    mask: int
    name: bytes


class Listener(Protocol):
    """Whoever wants to hear of a folder."""

    def hear(self, event: Event) -> None:
        """Something has happened there."""


class Inotify:
    """One instance, and who listens to which of its watches."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE when the user has too many instances."""
        self._fd = _result(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._listeners: dict[int, list[Listener]] = {}

    def fileno(self) -> int:
        """The descriptor: readable when there are events."""
        return self._fd

    def close(self) -> None:
        """Let go of all watches, without the events that removing them one by one would make."""
        os.close(self._fd)
        self._listeners.clear()

    def add(self, path: bytes, mask: int, listener: Listener) -> int:
        """Have the listener hear of a folder; the number of the watch.

        Raises OSError: ENOSPC when the user has too many watches, EACCES for a folder that cannot be read.
        """
        watch = _result(_libc.inotify_add_watch(self._fd, path, mask | ONLYDIR | _MASK_ADD))
        self._listeners.setdefault(watch, []).append(listener)
        return watch

    def remove(self, watch: int, listener: Listener) -> None:
        """The listener hears no more; the watch goes with its last one. One that is gone is no error."""
        listeners = self._listeners.get(watch, [])
        if listener in listeners:
            listeners.remove(listener)
            if not listeners:
                del self._listeners[watch]
                _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Event]:
        """Some of the events that are there, oldest first; none when there are none."""
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return []
        return list(_unpack(data))

    def dispatch(self, event: Event) -> None:
        """Tell those who listen."""
        for listener in list(self._listeners.get(event.watch, ())):
            listener.hear(event)
        if event.mask & IGNORED:  # the kernel has removed the watch
            self._listeners.pop(event.watch, None)


def _unpack(data: bytes) -> Iterator[Event]:
    at = 0
    while at < len(data):
        watch, mask, _, length = _event.unpack_from(data, at)
        at += _event.size
        yield Event(watch, mask, data[at : at + length].rstrip(b"\0"))
        at += length


def _result(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value
