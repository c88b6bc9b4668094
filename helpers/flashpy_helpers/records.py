"""Jobs, answers and roots as records, and back: struct packing. Worker, master and helpers run this.

No pickle, so a record can make nothing but the values of `wire`. A record begins with one byte that
says what it is. Times are split into seconds and nanoseconds, since a file system may hold a time
(year 2400) whose nanoseconds do not fit into 64 bits.
"""

import struct
from collections.abc import Iterable

from flashpy_helpers.query import SORTS, Query
from flashpy_helpers.wire import (
    BROKEN,
    CHECK_BYTES,
    CHECK_PATHS,
    DENY,
    FOLLOW,
    IDENTITY,
    INSIDE,
    MISSING,
    Answer,
    Changed,
    Check,
    Failure,
    Folder,
    Found,
    Hello,
    Identity,
    Job,
    List,
    Listed,
    Load,
    Loaded,
    Lookup,
    Root,
    Siblings,
    Unchanged,
    WireError,
)


class _Kind:
    """The first byte of a record (a class, since a case wants a dotted name)."""

    LOOKUP, LOOKUP_KNOWN, LOAD, CHECK, ROOT, LIST = 1, 2, 3, 4, 5, 6
    HELLO, FOUND, UNCHANGED, LOADED, CHANGED, FAILURE, FOLDER, LISTED = 16, 17, 18, 19, 20, 21, 22, 23


# Identity: device, inode, size, mtime (seconds, nanoseconds), ctime (seconds, nanoseconds).
_FILE = "QQQqIqI"
_file = struct.Struct("<" + _FILE)
_lookup = struct.Struct("<BQIQQB")
_lookup_known = struct.Struct("<BQIQQB" + _FILE)
_load = struct.Struct("<BQIQQQ" + _FILE)
_check = struct.Struct("<BQI")
_item = struct.Struct("<HB")
_count = struct.Struct("<B")
_sibling = struct.Struct("<B" + _FILE)
_list = struct.Struct("<BQIQQB?I?H")
_root = struct.Struct("<BBHB????")
_name = struct.Struct("<H")
_hello = struct.Struct("<BHI")
_found = struct.Struct("<BQQBB" + _FILE)
_head = struct.Struct("<BQ")
_loaded = struct.Struct("<BQQ")
_folder = struct.Struct("<BQ" + _FILE)
_listed = struct.Struct("<BQQI16s")
_failure = struct.Struct("<BQBI")

_SECOND = 1_000_000_000
_VERDICTS = frozenset(range(MISSING, BROKEN + 1))
_NONE = 255  # a count: not even none


def pack_job(job: Job) -> bytes:
    """Return the record of a job. Raises WireError for values that do not fit."""
    try:
        match job:
            case Lookup(id, root, path, offset, room, None, order):
                count = _NONE if order is None else len(order)
                return _lookup.pack(_Kind.LOOKUP, id, root, offset, room, count) + (order or b"") + path
            case Lookup(id, root, path, offset, room, Identity() as known, order, siblings):
                count = _NONE if order is None else len(order)
                head = _lookup_known.pack(_Kind.LOOKUP_KNOWN, id, root, offset, room, count, *_split(known))
                return head + (order or b"") + _pack_siblings(siblings) + path
            case Load(id, root, path, identity, start, length, offset):
                facts = _split(identity)
                return _load.pack(_Kind.LOAD, id, root, start, length, offset, *facts) + path
            case Check(id, root, expected):
                return _pack_check(id, root, expected)
            case List(id, root, path, at, query, as_json, offset, room):
                asked = SORTS.index(query.sort), query.descending, query.page
                return _list.pack(_Kind.LIST, id, root, offset, room, *asked, as_json, len(at)) + at + path
    except struct.error as error:
        raise WireError(f"{type(job).__name__}: {error}") from None
    raise WireError(f"not a job: {type(job).__name__}")


def unpack_job(record: bytes) -> Job:
    """Return the job of a record. Raises WireError for every record that pack_job cannot make."""
    try:
        match record[0]:
            case _Kind.LOOKUP:
                _, id, root, offset, room, count = _lookup.unpack_from(record)
                order, at = _take_order(record, _lookup.size, count)
                return Lookup(id, root, record[at:], offset, room, None, order)
            case _Kind.LOOKUP_KNOWN:
                _, id, root, offset, room, count, *facts = _lookup_known.unpack_from(record)
                order, at = _take_order(record, _lookup_known.size, count)
                siblings, at = _take_siblings(record, at)
                return Lookup(id, root, record[at:], offset, room, _join(facts), order, _some(siblings))
            case _Kind.LOAD:
                _, id, root, start, length, offset, *facts = _load.unpack_from(record)
                path = record[_load.size :]
                return Load(id, root, path, _join(facts), start, length, offset)
            case _Kind.CHECK:
                return _unpack_check(record)
            case _Kind.LIST:
                return _unpack_list(record)
    except (struct.error, IndexError) as error:
        raise WireError(f"a job cut short: {error}") from None
    raise WireError(f"not a job: {record[0]}")


def job_id(record: bytes) -> int:
    """Return the id of a record that unpack_job refused, 0 when it is too short for one."""
    return int.from_bytes(record[1:9], "little")


def pack_answer(answer: Answer) -> bytes:
    """Return the record of an answer. Raises WireError for values that do not fit."""
    try:
        match answer:
            case Found(id, identity, path, filled, coding, siblings, outdated):
                head = _found.pack(_Kind.FOUND, id, filled, coding, len(outdated), *_split(identity))
                return head + outdated + _pack_siblings(siblings) + path
            case Unchanged(id):
                return _head.pack(_Kind.UNCHANGED, id)
            case Loaded(id, filled):
                return _loaded.pack(_Kind.LOADED, id, filled)
            case Changed(id, positions):
                tail = struct.pack(f"<{len(positions)}H", *positions)
                return _head.pack(_Kind.CHANGED, id) + tail
            case Folder(id, identity):
                return _folder.pack(_Kind.FOLDER, id, *_split(identity))
            case Listed(id, filled, pages, digest, policy):
                return _listed.pack(_Kind.LISTED, id, filled, pages, digest) + policy
            case Failure(id, verdict, errno):
                return _failure.pack(_Kind.FAILURE, id, _verdict(verdict), errno)
            case Hello(version, pid):
                return _hello.pack(_Kind.HELLO, version, pid)
    except struct.error as error:
        raise WireError(f"{type(answer).__name__}: {error}") from None
    raise WireError(f"not an answer: {type(answer).__name__}")


def unpack_answer(record: bytes) -> Answer:
    """Return the answer of a record. Raises WireError for what pack_answer cannot make."""
    try:
        match record[0]:
            case _Kind.FOUND:
                _, id, filled, coding, count, *facts = _found.unpack_from(record)
                outdated, at = _take(record, _found.size, count)
                siblings, at = _take_siblings(record, at)
                return Found(id, _join(facts), record[at:], filled, _coding(coding), _some(siblings), outdated)
            case _Kind.UNCHANGED:
                return Unchanged(_head.unpack(record)[1])
            case _Kind.LOADED:
                return Loaded(*_loaded.unpack(record)[1:])
            case _Kind.CHANGED:
                count = (len(record) - _head.size) // 2
                _, id, *positions = struct.unpack(f"<BQ{count}H", record)
                return Changed(id, tuple(positions))
            case _Kind.FOLDER:
                _, id, *facts = _folder.unpack(record)
                return Folder(id, _join(facts))
            case _Kind.LISTED:
                _, id, filled, pages, digest = _listed.unpack_from(record)
                return Listed(id, filled, pages, digest, record[_listed.size :])
            case _Kind.FAILURE:
                _, id, verdict, errno = _failure.unpack(record)
                return Failure(id, _verdict(verdict), errno)
            case _Kind.HELLO:
                return Hello(*_hello.unpack(record)[1:])
    except (struct.error, IndexError) as error:
        raise WireError(f"an answer cut short: {error}") from None
    raise WireError(f"not an answer: {record[0]}")


def pack_root(root: Root) -> bytes:
    """Return the record of a root. Raises WireError for values that do not fit."""
    try:
        if root.symlinks not in (INSIDE, DENY, FOLLOW):
            raise WireError(f"not a symlink policy: {root.symlinks}")
        head = _root.pack(_Kind.ROOT, root.symlinks, len(root.path), len(root.index), *root[3:])
        names = b"".join(_name.pack(len(name)) + name for name in root.index)
        return head + root.path + names
    except struct.error as error:
        raise WireError(f"Root: {error}") from None


def unpack_root(record: bytes) -> Root:
    """Return the root of a record. Raises WireError for what pack_root cannot make."""
    try:
        kind, symlinks, length, count, *ways = _root.unpack_from(record)
        if kind != _Kind.ROOT or symlinks not in (INSIDE, DENY, FOLLOW) or set(record[5:9]) - {0, 1}:
            raise WireError("not a root")
        path, at = _take(record, _root.size, length)
        index = []
        for _ in range(count):
            (length,) = _name.unpack_from(record, at)
            name, at = _take(record, at + _name.size, length)
            index.append(name)
    except struct.error as error:
        raise WireError(f"a root cut short: {error}") from None
    _nothing_left(record, at)
    return Root(path, tuple(index), symlinks, *ways)


def _unpack_list(record: bytes) -> List:
    _, id, root, offset, room, sort, descending, page, as_json, length = _list.unpack_from(record)
    if sort >= len(SORTS) or {record[30], record[35]} - {0, 1}:
        raise WireError("not a listing")
    at, end = _take(record, _list.size, length)
    query = Query(SORTS[sort], descending, page)
    return List(id, root, record[end:], at, query, as_json, offset, room)


def _pack_check(id: int, root: int, items: tuple[tuple[bytes, Identity | int, Siblings | None], ...]) -> bytes:
    parts = [_check.pack(_Kind.CHECK, id, root)]
    for path, outcome, siblings in items:
        if isinstance(outcome, Identity):
            parts += (_item.pack(len(path), 0), path, _file.pack(*_split(outcome)), _pack_siblings(siblings))
        else:
            parts += (_item.pack(len(path), _verdict(outcome)), path)
    record = b"".join(parts)
    if len(items) > CHECK_PATHS or len(record) > CHECK_BYTES:
        raise WireError("a Check longer than agreed")
    return record


def _unpack_check(record: bytes) -> Check:
    _, id, root = _check.unpack_from(record)
    expected: list[tuple[bytes, Identity | int, Siblings | None]] = []
    at = _check.size
    while at < len(record):
        length, verdict = _item.unpack_from(record, at)
        path, at = _take(record, at + _item.size, length)
        if verdict:
            expected.append((path, _verdict(verdict), None))
        else:
            identity = _join(_file.unpack_from(record, at))
            siblings, at = _take_siblings(record, at + _file.size)
            expected.append((path, identity, siblings))
    if len(expected) > CHECK_PATHS or len(record) > CHECK_BYTES:
        raise WireError("a Check longer than agreed")
    return Check(id, root, tuple(expected))


def _pack_siblings(siblings: Siblings | None) -> bytes:
    if siblings is None:
        return _count.pack(_NONE)
    files = [_sibling.pack(coding, *_split(identity)) for coding, identity in siblings]
    return b"".join((_count.pack(len(files)), *files))


def _take_siblings(record: bytes, at: int) -> tuple[Siblings | None, int]:
    (count,) = _count.unpack_from(record, at)
    at += _count.size
    if count == _NONE:
        return None, at
    siblings = []
    for _ in range(count):
        coding, *facts = _sibling.unpack_from(record, at)
        siblings.append((_coding(coding), _join(facts)))
        at += _sibling.size
    return tuple(siblings), at


def _some(siblings: Siblings | None) -> Siblings:
    if siblings is None:
        raise WireError("no siblings, where there must be a list")
    return siblings


def _coding(value: int) -> int:
    if value > IDENTITY:
        raise WireError(f"not a coding: {value}")
    return value


def _take_order(record: bytes, at: int, count: int) -> tuple[bytes | None, int]:
    return (None, at) if count == _NONE else _take(record, at, count)


def _split(identity: Identity) -> tuple[int, int, int, int, int, int, int]:
    device, inode, size, mtime_ns, ctime_ns = identity
    return device, inode, size, *divmod(mtime_ns, _SECOND), *divmod(ctime_ns, _SECOND)


def _join(facts: Iterable[int]) -> Identity:
    device, inode, size, mtime, mtime_rest, ctime, ctime_rest = facts
    if mtime_rest >= _SECOND or ctime_rest >= _SECOND:
        raise WireError("a second of more than 1e9 nanoseconds")
    return Identity(device, inode, size, mtime * _SECOND + mtime_rest, ctime * _SECOND + ctime_rest)


def _take(record: bytes, at: int, length: int) -> tuple[bytes, int]:
    end = at + length
    if end > len(record):
        raise WireError("a name cut short")
    return record[at:end], end


def _verdict(value: int) -> int:
    if value not in _VERDICTS:
        raise WireError(f"not a verdict: {value}")
    return value


def _nothing_left(record: bytes, at: int) -> None:
    if at != len(record):
        raise WireError("bytes after the end")
