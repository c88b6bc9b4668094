"""Jobs, answers and roots as records, and back: struct packing. Worker, master and helpers run this.

No pickle, so a record can make nothing but the values of `wire`. A record begins with one byte that
says what it is.
"""

import struct

from flashpy_helpers.fields import (
    FILE,
    NONE,
    join,
    known_coding,
    known_compression,
    known_verdict,
    nothing_left,
    pack_siblings,
    some,
    split,
    take,
    take_order,
    take_siblings,
    yes_or_no,
)
from flashpy_helpers.query import SORTS, Query
from flashpy_helpers.wire import (
    CHECK_BYTES,
    CHECK_PATHS,
    DENY,
    FOLLOW,
    INSIDE,
    Answer,
    Changed,
    Check,
    Compress,
    Digest,
    Digested,
    Failure,
    Folder,
    Found,
    HeavyJob,
    Hello,
    Identity,
    Job,
    Judged,
    List,
    Listed,
    Load,
    Loaded,
    Lookup,
    Made,
    Password,
    Root,
    Siblings,
    Unchanged,
    Verify,
    WireError,
)


class _Kind:
    """The first byte of a record (a class, since a case wants a dotted name)."""

    LOOKUP, LOOKUP_KNOWN, LOAD, CHECK, ROOT, LIST = 1, 2, 3, 4, 5, 6
    COMPRESS, VERIFY, DIGEST, PASSWORD = 7, 8, 9, 10
    HELLO, FOUND, UNCHANGED, LOADED, CHANGED, FAILURE, FOLDER, LISTED = 16, 17, 18, 19, 20, 21, 22, 23
    MADE, DIGESTED, JUDGED = 24, 25, 26


_file = struct.Struct("<" + FILE)
_lookup = struct.Struct("<BQIQQB")
_lookup_known = struct.Struct("<BQIQQB" + FILE)
_load = struct.Struct("<BQIQQQ" + FILE)
_check = struct.Struct("<BQI")
_item = struct.Struct("<HB")
_list = struct.Struct("<BQIQQB?I?H")
_compress = struct.Struct("<BQIBQQ" + FILE)
_verify = struct.Struct("<BQIBQ" + FILE)
_digest = struct.Struct("<BQI" + FILE)
_password = struct.Struct("<BQIH")
_root = struct.Struct("<BBHB????I")
_name = struct.Struct("<H")
_hello = struct.Struct("<BHI")
_found = struct.Struct("<BQQBB" + FILE)
_head = struct.Struct("<BQ")
_loaded = struct.Struct("<BQQ")
_folder = struct.Struct("<BQ" + FILE)
_listed = struct.Struct("<BQQI16s")
_digested = struct.Struct("<BQ16s")
_judged = struct.Struct("<BQB")
_failure = struct.Struct("<BQBI")


def pack_job(job: Job) -> bytes:
    """Return the record of a job. Raises WireError for values that do not fit."""
    try:
        match job:
            case Lookup(id, root, path, offset, room, None, order):
                count = NONE if order is None else len(order)
                return _lookup.pack(_Kind.LOOKUP, id, root, offset, room, count) + (order or b"") + path
            case Lookup(id, root, path, offset, room, Identity() as known, order, siblings):
                count = NONE if order is None else len(order)
                head = _lookup_known.pack(_Kind.LOOKUP_KNOWN, id, root, offset, room, count, *split(known))
                return head + (order or b"") + pack_siblings(siblings) + path
            case Load(id, root, path, identity, start, length, offset):
                facts = split(identity)
                return _load.pack(_Kind.LOAD, id, root, start, length, offset, *facts) + path
            case Check(id, root, expected):
                return _pack_check(id, root, expected)
            case List(id, root, path, at, query, as_json, offset, room):
                asked = SORTS.index(query.sort), query.descending, query.page
                return _list.pack(_Kind.LIST, id, root, offset, room, *asked, as_json, len(at)) + at + path
            case Compress() | Verify() | Digest() | Password():
                return _pack_heavy(job)
    except struct.error as error:
        raise WireError(f"{type(job).__name__}: {error}") from None
    raise WireError(f"not a job: {type(job).__name__}")


def unpack_job(record: bytes) -> Job:
    """Return the job of a record. Raises WireError for every record that pack_job cannot make."""
    try:
        match record[0]:
            case _Kind.LOOKUP:
                _, id, root, offset, room, count = _lookup.unpack_from(record)
                order, at = take_order(record, _lookup.size, count)
                return Lookup(id, root, record[at:], offset, room, None, order)
            case _Kind.LOOKUP_KNOWN:
                _, id, root, offset, room, count, *facts = _lookup_known.unpack_from(record)
                order, at = take_order(record, _lookup_known.size, count)
                siblings, at = take_siblings(record, at)
                return Lookup(id, root, record[at:], offset, room, join(facts), order, some(siblings))
            case _Kind.LOAD:
                _, id, root, start, length, offset, *facts = _load.unpack_from(record)
                path = record[_load.size :]
                return Load(id, root, path, join(facts), start, length, offset)
            case _Kind.CHECK:
                return _unpack_check(record)
            case _Kind.LIST:
                return _unpack_list(record)
            case _Kind.COMPRESS | _Kind.VERIFY | _Kind.DIGEST | _Kind.PASSWORD:
                return _unpack_heavy(record)
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
                head = _found.pack(_Kind.FOUND, id, filled, coding, len(outdated), *split(identity))
                return head + outdated + pack_siblings(siblings) + path
            case Unchanged(id):
                return _head.pack(_Kind.UNCHANGED, id)
            case Loaded(id, filled):
                return _loaded.pack(_Kind.LOADED, id, filled)
            case Changed(id, positions):
                tail = struct.pack(f"<{len(positions)}H", *positions)
                return _head.pack(_Kind.CHANGED, id) + tail
            case Folder(id, identity):
                return _folder.pack(_Kind.FOLDER, id, *split(identity))
            case Listed(id, filled, pages, digest, policy):
                return _listed.pack(_Kind.LISTED, id, filled, pages, digest) + policy
            case Made(id, filled):
                return _loaded.pack(_Kind.MADE, id, filled)
            case Digested(id, digest):
                return _digested.pack(_Kind.DIGESTED, id, digest)
            case Judged(id, holds):
                return _judged.pack(_Kind.JUDGED, id, holds)
            case Failure(id, verdict, errno):
                return _failure.pack(_Kind.FAILURE, id, known_verdict(verdict), errno)
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
                outdated, at = take(record, _found.size, count)
                siblings, at = take_siblings(record, at)
                return Found(id, join(facts), record[at:], filled, known_coding(coding), some(siblings), outdated)
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
                return Folder(id, join(facts))
            case _Kind.LISTED:
                _, id, filled, pages, digest = _listed.unpack_from(record)
                return Listed(id, filled, pages, digest, record[_listed.size :])
            case _Kind.MADE:
                return Made(*_loaded.unpack(record)[1:])
            case _Kind.DIGESTED:
                return Digested(*_digested.unpack(record)[1:])
            case _Kind.JUDGED:
                _, id, holds = _judged.unpack(record)
                return Judged(id, yes_or_no(holds))
            case _Kind.FAILURE:
                _, id, verdict, errno = _failure.unpack(record)
                return Failure(id, known_verdict(verdict), errno)
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
        path, at = take(record, _root.size, length)
        index = []
        for _ in range(count):
            (length,) = _name.unpack_from(record, at)
            name, at = take(record, at + _name.size, length)
            index.append(name)
    except struct.error as error:
        raise WireError(f"a root cut short: {error}") from None
    nothing_left(record, at)
    return Root(path, tuple(index), symlinks, *ways)


def _unpack_list(record: bytes) -> List:
    _, id, root, offset, room, sort, descending, page, as_json, length = _list.unpack_from(record)
    if sort >= len(SORTS) or {record[30], record[35]} - {0, 1}:
        raise WireError("not a listing")
    at, end = take(record, _list.size, length)
    query = Query(SORTS[sort], descending, page)
    return List(id, root, record[end:], at, query, as_json, offset, room)


def _pack_heavy(job: HeavyJob) -> bytes:
    match job:
        case Compress(id, root, path, identity, coding, offset, room):
            return _compress.pack(_Kind.COMPRESS, id, root, coding, offset, room, *split(identity)) + path
        case Verify(id, root, path, identity, coding, size):
            return _verify.pack(_Kind.VERIFY, id, root, coding, size, *split(identity)) + path
        case Digest(id, root, path, identity):
            return _digest.pack(_Kind.DIGEST, id, root, *split(identity)) + path
        case Password(id, root, hash, password):
            return _password.pack(_Kind.PASSWORD, id, root, len(hash)) + hash + password


def _unpack_heavy(record: bytes) -> HeavyJob:
    match record[0]:
        case _Kind.COMPRESS:
            _, id, root, coding, offset, room, *facts = _compress.unpack_from(record)
            return Compress(id, root, record[_compress.size :], join(facts), known_compression(coding), offset, room)
        case _Kind.VERIFY:
            _, id, root, coding, size, *facts = _verify.unpack_from(record)
            return Verify(id, root, record[_verify.size :], join(facts), known_compression(coding), size)
        case _Kind.DIGEST:
            _, id, root, *facts = _digest.unpack_from(record)
            return Digest(id, root, record[_digest.size :], join(facts))
    _, id, root, length = _password.unpack_from(record)
    hash, at = take(record, _password.size, length)
    return Password(id, root, hash, record[at:])


def _pack_check(id: int, root: int, items: tuple[tuple[bytes, Identity | int, Siblings | None], ...]) -> bytes:
    parts = [_check.pack(_Kind.CHECK, id, root)]
    for path, outcome, siblings in items:
        if isinstance(outcome, Identity):
            parts += (_item.pack(len(path), 0), path, _file.pack(*split(outcome)), pack_siblings(siblings))
        else:
            parts += (_item.pack(len(path), known_verdict(outcome)), path)
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
        path, at = take(record, at + _item.size, length)
        if verdict:
            expected.append((path, known_verdict(verdict), None))
        else:
            identity = join(_file.unpack_from(record, at))
            siblings, at = take_siblings(record, at + _file.size)
            expected.append((path, identity, siblings))
    if len(expected) > CHECK_PATHS or len(record) > CHECK_BYTES:
        raise WireError("a Check longer than agreed")
    return Check(id, root, tuple(expected))
