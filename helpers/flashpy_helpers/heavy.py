"""Do one heavy job: compress, verify, digest, check a password. Heavy helpers run this.

What these jobs wait for is the processor. They run in helpers of their own, of low priority, so
that no read waits behind them. Only this module and `codings` import more than the standard
library, and before the first helper is forked, so that no job pays for it. Without one of the
libraries its jobs fail as UNABLE, the others are done.

What is digested is read in pieces; what is compressed or decoded is read whole, and bounded.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flashpy_helpers import codings, disk, pathname, wire
from flashpy_helpers.wire import (
    BR,
    ZSTD,
    Answer,
    Compress,
    Digest,
    Failure,
    Identity,
    Job,
    Judged,
    Password,
    Root,
    Verify,
)

try:
    import bcrypt
except ImportError:
    bcrypt = None  # type: ignore[assignment]

MISSING = (*codings.missing(), *(("bcrypt",) if bcrypt is None else ()))
"""The libraries that are not installed."""

_PIECE = 1 << 20
_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_DEAREST = 16  # a cost of 16 is 4 s of a processor, one of 31 two days, and nobody could stop it
_PASSWORD = 72  # bcrypt uses no more of it; newer versions of the library refuse a longer one


def do(job: Job, roots: Mapping[int, Root], memory: memoryview) -> Answer:
    """Return the answer to a heavy job, with what it makes in ``memory`` (the cache).

    Raises KeyError or ValueError for another job, an unknown root, memory that is not there, or a
    hash that is none.
    """
    if _needs_missing(job):
        return Failure(job.id, wire.UNABLE, 0)
    try:
        match job:
            case Password():
                return _password(job)
            case Compress():
                return _compress(job, roots[job.root], pathname.part(memory, job.offset, job.room))
            case Verify():
                return _verify(job, roots[job.root])
            case Digest():
                return _digest(job, roots[job.root])
    except disk.MovingError:
        return Failure(job.id, wire.MOVING, 0)
    except pathname.VerdictError as outcome:
        return Failure(job.id, outcome.verdict, 0)
    except OSError as error:
        return Failure(job.id, pathname.verdict(error), error.errno or 0)
    raise ValueError(f"not a heavy job: {type(job).__name__}")


def _needs_missing(job: Job) -> bool:
    match job:
        case Password():
            return bcrypt is None
        case Compress(coding=coding) | Verify(coding=coding):
            return {BR: "brotli", ZSTD: "zstd"}.get(coding) in MISSING
    return False


def _password(job: Password) -> Answer:
    match = _HASH.fullmatch(job.hash)
    if match is None or int(match[1]) > _DEAREST:
        raise ValueError("not a bcrypt hash, or one that costs too much")
    return Judged(job.id, bcrypt.checkpw(job.password[:_PASSWORD], job.hash))


def _compress(job: Compress, root: Root, room: memoryview) -> Answer:
    size = job.identity.size
    if size > wire.COMPRESS_MOST:
        return Failure(job.id, wire.TOO_LARGE, 0)
    data = codings.compress(codings.CODINGS[job.coding], _whole(job, root), "fast")
    if len(data) > min(len(room), size - 1):
        return Failure(job.id, wire.TOO_LARGE, 0)
    room[: len(data)] = data
    return wire.Made(job.id, len(data))


def _verify(job: Verify, root: Root) -> Answer:
    if job.identity.size > wire.VERIFY_MOST:
        return Failure(job.id, wire.TOO_LARGE, 0)
    return Judged(job.id, codings.verify(codings.CODINGS[job.coding], _whole(job, root), job.size))


def _digest(job: Digest, root: Root) -> Answer:
    if job.identity.size > wire.DIGEST_MOST:
        return Failure(job.id, wire.TOO_LARGE, 0)
    digest = hashlib.blake2b(digest_size=16)
    with _opened(job, root) as fd:
        for piece in _pieces(fd, job.identity, _PIECE):
            digest.update(piece)
    return wire.Digested(job.id, digest.digest())


def _whole(job: Compress | Verify, root: Root) -> memoryview:
    """Return all of the version that the job names. Raises as ``_opened`` does."""
    data = memoryview(bytearray(job.identity.size))
    with _opened(job, root) as fd:
        disk.read_ahead(fd, 0, len(data), len(data))
        disk.read_version(fd, data, 0, job.identity)
    return data


@contextmanager
def _opened(job: Compress | Verify | Digest, root: Root) -> Iterator[int]:
    """Give a descriptor for reading the version that the job names. Raises MovingError, VerdictError, OSError."""
    with pathname.open_tree(root) as tree, tree.find(job.path) as named:
        if named.identity != job.identity:
            raise disk.MovingError
        with tree.reading(named) as fd:
            yield fd


def _pieces(fd: int, version: Identity, length: int) -> Iterator[memoryview]:
    """Give the file in pieces of ``length`` bytes, each good until the next is asked for. Raises MovingError."""
    buffer = memoryview(bytearray(min(length, version.size)))
    for start in range(0, version.size, length):
        view = buffer[: min(length, version.size - start)]
        disk.read_ahead(fd, start, len(view), version.size)
        disk.read_version(fd, view, start, version)
        yield view
