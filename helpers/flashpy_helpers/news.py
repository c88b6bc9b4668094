"""What is said on the watcher's channel, as records. Master, workers and the watcher run this.

The master orders which roots are watched, by their numbers. The watcher tells what has changed under
them; the master passes these records on as they are. Paths are as in `wire`: relative to their root,
without a leading slash, and ``b""`` is the root folder itself.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flashpy_helpers.wire import WireError

CHANGES, PROBLEM, WATCH, LEAVE = b"C", b"P", b"W", b"U"
"""The first byte of a record: from the watcher paths that changed, a line for the log (text follows);
from the master a root to be watched (its path follows), and one that is no longer."""

EVERYTHING = CHANGES
"""Changes without a list: nothing that is known of watched roots is sure, for news were lost."""

RECORD = 60_000
"""No record of changes is longer, in bytes; the longest path of a file system is 4096."""

_order = struct.Struct("<cI")
_item = struct.Struct("<I?H")


class Change(NamedTuple):
    """Something is different at ``path`` under root number ``root``; ``deep``: and maybe at all paths below it."""

    root: int
    path: bytes
    deep: bool


def pack_changes(changes: Iterable[Change]) -> Iterator[bytes]:
    """Yield the records of some changes: none for none. Raises WireError for values that do not fit."""
    parts, size = [CHANGES], 1
    try:
        for root, path, deep in changes:
            item = _item.pack(root, deep, len(path)) + path
            if size + len(item) > RECORD:
                yield b"".join(parts)
                parts, size = [CHANGES], 1
            parts.append(item)
            size += len(item)
    except struct.error as error:
        raise WireError(f"a change: {error}") from None
    if size > 1:
        yield b"".join(parts)


def unpack_changes(record: bytes) -> list[Change]:
    """Return the changes of a record; none means EVERYTHING. Raises WireError for what pack_changes cannot make."""
    changes, at = [], len(CHANGES)
    if record[:at] != CHANGES:
        raise WireError("not a record of changes")
    while at < len(record):
        try:
            root, deep, length = _item.unpack_from(record, at)
        except struct.error:
            raise WireError("a change cut short") from None
        start = at + _item.size
        at = start + length
        if at > len(record):
            raise WireError("a path cut short")
        changes.append(Change(root, record[start:at], deep))
    return changes


def pack_order(root: int, path: bytes | None) -> bytes:
    """Return the record that has a root watched at ``path``, or no longer (None). Raises WireError."""
    try:
        return _order.pack(LEAVE if path is None else WATCH, root) + (path or b"")
    except struct.error as error:
        raise WireError(f"an order: {error}") from None


def unpack_order(record: bytes) -> tuple[int, bytes | None]:
    """Return the number of a root, and the path to watch it at or None. Raises WireError."""
    try:
        kind, root = _order.unpack_from(record)
    except struct.error:
        raise WireError("an order cut short") from None
    path = record[_order.size :]
    if kind not in (WATCH, LEAVE) or (kind == WATCH) != bool(path):
        raise WireError("not an order")
    return root, path if kind == WATCH else None
