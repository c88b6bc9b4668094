"""Read a range of a file into the content cache: one version of it or none. Helpers run this.

The file is looked at before and after the read: if nothing has changed, all bytes are of the one
version. Two things would hide a change. Older kernels (before 6.13) count a file's times in ticks,
so it may be changed twice in one tick: a file that was changed just now is left to rest. And a
write call sets the times when it begins, so while one is at work a file has the new times and old
bytes: asking where the data lies (SEEK_DATA) waits for the lock that such a call holds, in ext4,
btrfs, tmpfs and overlayfs (in XFS the read itself does). Elsewhere a single write call that lasts
longer than the rest may still be seen in the middle.
"""

import os
import time
from contextlib import suppress

from flashpy_helpers.wire import Identity

STEP_BYTES = 4 << 20
"""How much of a large file the kernel is asked for at once, one such step ahead. Large requests
keep the disk as busy as a reader in order does, and not each Load pays for asking."""

RESTED_NS = 20_000_000
"""The age of the last change from which on a file is read: two ticks at 100 Hz."""

_WRITING_NS = 10_000_000_000  # no write call is expected to last longer


class MovingError(Exception):
    """The file was changed while it was read, or is no longer the version that was asked for."""


def identity(facts: os.stat_result) -> Identity:
    """Return what tells this version of a file from all others."""
    return Identity(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def read_version(fd: int, view: memoryview, start: int, wanted: Identity | None) -> Identity:
    """Fill ``view`` with the bytes from ``start`` on; return the version that they belong to.

    Raises MovingError when they are not all of one version, or not of the one that is ``wanted``.
    Then the bytes in ``view`` mean nothing. The range must lie within the file.
    """
    before = identity(os.fstat(fd))
    if wanted is not None and before != wanted:
        raise MovingError
    if not view:
        return before
    if start + len(view) > before.size:
        raise MovingError
    _let_writers_end(fd, start, before)
    if _fill(fd, view, start) < len(view) or identity(os.fstat(fd)) != before:
        raise MovingError
    return before


def read_ahead(fd: int, start: int, length: int, size: int) -> None:
    """Have the kernel begin to read what follows ``start``, when a new step begins there.

    The second range of a file begins one too: somebody reads on. Without this the disk would rest
    between two Loads, since each one opens the file anew and the kernel may not see that it is read
    in order. A file system that cannot do it says so in vain.
    """
    behind = start % STEP_BYTES
    if length < size and (behind < length or start == length):
        with suppress(OSError):
            os.posix_fadvise(fd, start, 2 * STEP_BYTES - behind, os.POSIX_FADV_WILLNEED)


def _let_writers_end(fd: int, start: int, version: Identity) -> None:
    age = time.time_ns() - version.ctime_ns
    if 0 <= age < RESTED_NS:
        time.sleep((RESTED_NS - age) / 1e9)
    if age < _WRITING_NS:
        with suppress(OSError):  # a hole, or a file system that does not know
            os.lseek(fd, start, os.SEEK_DATA)


def _fill(fd: int, view: memoryview, start: int) -> int:
    done = 0
    while done < len(view):
        count = os.preadv(fd, (view[done:],), start + done)
        if not count:
            break
        done += count
    return done
