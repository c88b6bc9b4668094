"""What records are made of: versions of files, siblings, names, and numbers that are not any number.

Worker, master and helpers run this, for ``records``. Each function raises WireError for what no
record of ours holds. Times are split into seconds and nanoseconds, since a file system may hold a
time (year 2400) whose nanoseconds do not fit into 64 bits.
"""

import struct
from collections.abc import Iterable

from flashpy_helpers.wire import IDENTITY, MISSING, NO_ROOT, Identity, Siblings, WireError

FILE = "QQQqIqI"
"""An Identity: device, inode, size, mtime (seconds, nanoseconds), ctime (seconds, nanoseconds)."""
NONE = 255
"""A count: not even none."""

_count = struct.Struct("<B")
_sibling = struct.Struct("<B" + FILE)
_SECOND = 1_000_000_000
_VERDICTS = frozenset(range(MISSING, NO_ROOT + 1))


def pack_siblings(siblings: Siblings | None) -> bytes:
    """A count and the siblings; None has a count of its own."""
    if siblings is None:
        return _count.pack(NONE)
    files = [_sibling.pack(coding, *split(identity)) for coding, identity in siblings]
    return b"".join((_count.pack(len(files)), *files))


def take_siblings(record: bytes, at: int) -> tuple[Siblings | None, int]:
    """Return the siblings that begin at ``at``, and where they end."""
    (count,) = _count.unpack_from(record, at)
    at += _count.size
    if count == NONE:
        return None, at
    siblings = []
    for _ in range(count):
        coding, *facts = _sibling.unpack_from(record, at)
        siblings.append((known_coding(coding), join(facts)))
        at += _sibling.size
    return tuple(siblings), at


def some(siblings: Siblings | None) -> Siblings:
    """Return siblings that must not be None."""
    if siblings is None:
        raise WireError("no siblings, where there must be a list")
    return siblings


def known_coding(value: int) -> int:
    """Return a coding, or that of the file itself."""
    if value > IDENTITY:
        raise WireError(f"not a coding: {value}")
    return value


def known_compression(value: int) -> int:
    """Return a coding that is not that of the file itself."""
    if value >= IDENTITY:
        raise WireError(f"not a compression: {value}")
    return value


def yes_or_no(value: int) -> bool:
    """Return a bool."""
    if value > 1:
        raise WireError(f"neither yes nor no: {value}")
    return bool(value)


def take_order(record: bytes, at: int, count: int) -> tuple[bytes | None, int]:
    """Return ``count`` codings, None when that is NONE, and where they end."""
    return (None, at) if count == NONE else take(record, at, count)


def split(identity: Identity) -> tuple[int, int, int, int, int, int, int]:
    """Return the numbers of FILE."""
    device, inode, size, mtime_ns, ctime_ns = identity
    return device, inode, size, *divmod(mtime_ns, _SECOND), *divmod(ctime_ns, _SECOND)


def join(facts: Iterable[int]) -> Identity:
    """Return the opposite of ``split``."""
    device, inode, size, mtime, mtime_rest, ctime, ctime_rest = facts
    if mtime_rest >= _SECOND or ctime_rest >= _SECOND:
        raise WireError("a second of more than 1e9 nanoseconds")
    return Identity(device, inode, size, mtime * _SECOND + mtime_rest, ctime * _SECOND + ctime_rest)


def take(record: bytes, at: int, length: int) -> tuple[bytes, int]:
    """Return ``length`` bytes from ``at``, and where they end."""
    end = at + length
    if end > len(record):
        raise WireError("a name cut short")
    return record[at:end], end


def known_verdict(value: int) -> int:
    """Return a verdict."""
    if value not in _VERDICTS:
        raise WireError(f"not a verdict: {value}")
    return value


def nothing_left(record: bytes, at: int) -> None:
    """Raise unless the record ends at ``at``."""
    if at != len(record):
        raise WireError("bytes after the end")
