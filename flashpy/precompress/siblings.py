"""The siblings of one file: judged, written, removed. Forked processes run this.

A sibling gets its original's modification time, to the nanosecond. The server takes one that is no
older than its original, so one of a version that has gone is not sent, even when the original
changes just now. Ours is what has its original's time and decodes to it: nothing else is removed.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from flashpy.precompress.plan import Act, File, Mode, Plan, sibling_name
from flashpy.precompress.walk import open_folder
from flashpy_helpers.codings import Coding, compress, matches

# Less than 5 % is not worth a file, its block on the disk and its place in the server's cache.
_PAYS = 0.95
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Of an original: it was removed, or a link took its place.
_GONE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR})


class ChangedError(Exception):
    """A file is no longer the one that was opened."""


class Regular:
    """A regular file in an open folder, as it was when it was opened."""

    def __init__(self, folder: int, name: str) -> None:
        """Raises OSError, and ChangedError for what is no regular file."""
        self.folder = folder
        self.name = name
        self._fd = os.open(name, _READING, dir_fd=folder)
        self.facts = os.fstat(self._fd)
        self._content: bytes | None = None
        if not stat.S_ISREG(self.facts.st_mode):
            self.close()
            raise ChangedError

    def content(self) -> bytes:
        """All of it, read once. Raises OSError, ChangedError."""
        if self._content is None:
            with open(self._fd, "rb", closefd=False) as file:
                self._content = file.read()
            self.check()
        return self._content

    def check(self) -> None:
        """Raises ChangedError unless the name still stands for the same version."""
        try:
            now = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            raise ChangedError from None
        if _version(now) != _version(self.facts) or _version(os.fstat(self._fd)) != _version(self.facts):
            raise ChangedError

    def close(self) -> None:
        """The content stays."""
        os.close(self._fd)


def work(plan: Plan, file: File, temporary: str) -> list[Act]:
    """Do what the plan says for one file. `temporary` is a name of this process's own, for a file beside it."""
    acts: list[Act] = []
    try:
        with open_folder(file.root, file.folder) as folder:
            original = Regular(folder, file.name)
            try:
                for coding in plan.codings:
                    acts += _try(plan, original, coding, temporary)
            finally:
                original.close()
    except ChangedError:
        acts.append(Act(None, "changed"))
    except OSError as error:
        acts.append(Act(None, "changed") if error.errno in _GONE else Act(None, "failed", why=_words(error)))
    return acts


def _try(plan: Plan, original: Regular, coding: Coding, temporary: str) -> Iterator[Act]:
    """One sibling's fault does not keep the others from being made."""
    name = sibling_name(original.name, coding)
    try:
        there = os.stat(name, dir_fd=original.folder, follow_symlinks=False)
    except FileNotFoundError:
        there = None
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG  # nor can the server find one
        yield Act(coding, "useless") if too_long else Act(coding, "failed", why=_words(error))
        return
    try:
        if there is not None and not stat.S_ISREG(there.st_mode):
            yield Act(coding, "failed", why="is no regular file")
        elif plan.mode == "make":
            yield _make(plan, original, coding, there, temporary)
        elif there is not None:
            yield _JUDGES[plan.mode](plan, original, coding, there)
    except ChangedError:
        original.check()
        yield Act(coding, "changed")  # the sibling then
    except (OSError, MemoryError) as error:
        yield Act(coding, "failed", why=_words(error))


def _make(plan: Plan, original: Regular, coding: Coding, there: os.stat_result | None, temporary: str) -> Act:
    size = original.facts.st_size
    if there is not None and not plan.force and _is_current(original, coding, there):
        return Act(coding, "current", size, there.st_size)
    body = compress(coding, original.content(), "best")
    original.check()
    if len(body) >= size * _PAYS:
        return _give_up(plan, original, coding, there)
    if not plan.dry:
        _write(original, sibling_name(original.name, coding), body, temporary)
    return Act(coding, "written", size, len(body))


def _give_up(plan: Plan, original: Regular, coding: Coding, there: os.stat_result | None) -> Act:
    if there is None:
        return Act(coding, "useless")
    if not _is_ours(original, coding, there):
        return Act(coding, "left")
    _remove(plan, original, coding)
    return Act(coding, "removed")


def _check(plan: Plan, original: Regular, coding: Coding, there: os.stat_result) -> Act:
    if there.st_mtime_ns < original.facts.st_mtime_ns:
        return Act(coding, "wrong", why="is older than its original")
    if not _decodes(original, coding, there):
        return Act(coding, "wrong", why="does not decode to its original")
    return Act(coding, "right", original.facts.st_size, there.st_size)


def _clean(plan: Plan, original: Regular, coding: Coding, there: os.stat_result) -> Act:
    if not _is_ours(original, coding, there):
        return Act(coding, "left")
    _remove(plan, original, coding)
    return Act(coding, "removed")


_JUDGES: dict[Mode, Callable[[Plan, Regular, Coding, os.stat_result], Act]] = {"check": _check, "clean": _clean}


def _is_current(original: Regular, coding: Coding, there: os.stat_result) -> bool:
    """Whether the server may send it. A newer one was not made here, or its original went back to an older version.

    An empty one is no coding of anything: its name and time reached the disk before a power cut, its content did not.
    """
    if there.st_mtime_ns == original.facts.st_mtime_ns:
        return there.st_size > 0
    return there.st_mtime_ns > original.facts.st_mtime_ns and _decodes(original, coding, there)


def _is_ours(original: Regular, coding: Coding, there: os.stat_result) -> bool:
    return there.st_mtime_ns == original.facts.st_mtime_ns and _decodes(original, coding, there)


def _decodes(original: Regular, coding: Coding, there: os.stat_result) -> bool:
    """Whether the sibling is what its original needs. Raises ChangedError when another has taken its place meanwhile.

    It may take seconds, and what is removed next must not be what somebody has put there since.
    """
    sibling = Regular(original.folder, sibling_name(original.name, coding))
    try:
        if _version(sibling.facts) != _version(there):
            raise ChangedError
        alike = matches(coding, sibling.content(), original.content())
        sibling.check()
        original.check()
        return alike
    finally:
        sibling.close()


def _remove(plan: Plan, original: Regular, coding: Coding) -> None:
    if not plan.dry:
        os.unlink(sibling_name(original.name, coding), dir_fd=original.folder)


def _write(original: Regular, name: str, body: bytes, temporary: str) -> None:
    """Under another name first: nobody ever sees half of it, and a full disk leaves the one that was there."""
    folder, facts = original.folder, original.facts
    fd = os.open(temporary, _WRITING, 0o600, dir_fd=folder)
    try:
        with open(fd, "wb") as file:
            file.write(body)
            file.flush()
            _dress(fd, facts)
            os.utime(fd, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _dress(fd: int, facts: os.stat_result) -> None:
    """Owner and mode as the original's. Where its group may not be given, our group may do what all others may."""
    mode = stat.S_IMODE(facts.st_mode) & 0o777
    try:
        os.fchown(fd, facts.st_uid if os.geteuid() == 0 else -1, facts.st_gid)
    except OSError:
        mode = mode & 0o707 | (mode & 0o007) << 3
    os.fchmod(fd, mode)


def _version(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _words(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    return error.strerror or str(error)
