"""What is said on a helper's channel: jobs, answers, roots. Worker, master and helpers run this.

Values only; `records` packs them. A worker that was taken over can only ask for what a job can
name.

Paths are relative to their root, decoded, without a leading slash: ``b""`` is the root folder
itself, ``b"docs/"`` a folder that is wanted, ``b"a.html"`` a file.
"""

from typing import NamedTuple

from flashpy_helpers.query import Query

VERSION = 4
"""A worker and a helper must agree on it: the helper says it in its Hello."""

INSIDE, DENY, FOLLOW = 0, 1, 2
"""Symlink policies: the target must lie under the root; no links below the root; any target."""

MISSING, REFUSED, FOLDER, NO_INDEX, MOVING, BUSY, BROKEN, TOO_LARGE, UNABLE, NO_ROOT = range(1, 11)
"""Verdicts: 404; 403; redirect to path + "/"; a folder without index file; the file changed while
it was read; no descriptors or memory; any other error (EIO ...); compressed it gains nothing, has
no room or takes too long; a library for this is not installed; the root itself is missing, and so
all below it."""

BR, ZSTD, GZIP, IDENTITY = range(4)
"""Content codings, in the order of preference; IDENTITY is the file itself."""
SUFFIXES = (b".br", b".zst", b".gz")
"""What a precompressed sibling's name adds to its original's, by coding."""

COMPRESS_MOST = 16 << 20
"""The largest file (bytes) that is compressed: gzip takes 0.3 s for it, and what comes of more
seldom fits a block of the cache."""

VERIFY_MOST = 64 << 20
"""No sibling is verified that is larger (bytes), or whose original is: that takes seconds."""

DIGEST_MOST = 1 << 30
"""No file is digested that is larger (bytes): that takes longer than a client waits, and a helper at
work for minutes would outlive its server."""

CHECK_PATHS = 256
"""The most paths of one Check."""
CHECK_BYTES = 60 * 1024
"""The longest Check, in bytes as packed."""
CHECK_ITEM = 256
"""No path adds more to a Check than its own length and this."""


class WireError(ValueError):
    """A record that no program of this version sends, or a value that no record can hold."""


class Root(NamedTuple):
    """A folder that jobs may name by its number (its order of arrival at the spawner)."""

    path: bytes
    index: tuple[bytes, ...]  # type: ignore[assignment]  # hides tuple.index
    symlinks: int
    clean: bool = False
    """Whether ``about`` may also mean ``about.html``."""
    listed: bool = False
    """Whether a folder without index file is answered with its version, for a listing of it."""
    dotfiles: bool = False
    """Whether hidden names are in a listing."""
    precompressed: bool = False
    """Whether siblings are looked for."""
    types: int = 0
    """A checksum of the site's own media types: they say which files may have siblings.

    Nothing here heeds it, but what is known of a path is of one way to serve it only.
    """


class Identity(NamedTuple):
    """What makes two looks at a file the same version of it. Size in bytes, times since 1970."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Siblings = tuple[tuple[int, Identity], ...]
"""Precompressed siblings of a file that may stand for it: coding and version, by coding."""


class Lookup(NamedTuple):
    """Find ``path``; read its first ``room`` bytes to ``offset`` unless it is still ``known``.

    ``order`` asks for its precompressed siblings too: the codings to read from, best first. The
    first that is there is read instead; None looks for none.
    """

    id: int
    root: int
    path: bytes
    offset: int
    room: int
    known: Identity | None
    order: bytes | None = None
    known_siblings: Siblings = ()


class Load(NamedTuple):
    """Read ``length`` bytes from ``start`` of exactly this version to ``offset``.

    ``path`` is the resolved path of a Found.
    """

    id: int
    root: int
    path: bytes
    identity: Identity
    start: int
    length: int
    offset: int


class Check(NamedTuple):
    """Say which of these paths are no longer what is expected: an Identity or a verdict.

    With the siblings that a file is expected to have; None when they are of no interest.
    """

    id: int
    root: int
    expected: tuple[tuple[bytes, Identity | int, Siblings | None], ...]


class List(NamedTuple):
    """Write a listing of the folder ``path`` to ``offset``, at most ``room`` bytes.

    ``at`` is the folder's decoded URL path.
    """

    id: int
    root: int
    path: bytes
    at: bytes
    query: Query
    as_json: bool
    offset: int
    room: int


class Compress(NamedTuple):
    """Write exactly this version in a content coding to ``offset``, at most ``room`` bytes.

    Like the three that follow a job for heavy helpers; ``path`` is the resolved path of a Found.
    """

    id: int
    root: int
    path: bytes
    identity: Identity
    coding: int
    offset: int
    room: int


class Verify(NamedTuple):
    """Say whether this version of a precompressed sibling decodes to exactly ``size`` bytes."""

    id: int
    root: int
    path: bytes
    identity: Identity
    coding: int
    size: int


class Digest(NamedTuple):
    """Digest exactly this version: the same bytes give the same digest on every host."""

    id: int
    root: int
    path: bytes
    identity: Identity


class Password(NamedTuple):
    """Say whether ``password`` is the one of which ``hash`` is the bcrypt hash.

    It opens no file: its ``root`` only says in whose line it waits.
    """

    id: int
    root: int
    hash: bytes
    password: bytes

    def __repr__(self) -> str:
        """Nothing that a log must not have."""
        return f"Password(id={self.id})"


class Hello(NamedTuple):
    """The first record of a helper."""

    version: int
    pid: int


class Found(NamedTuple):
    """A file: its facts, its path with the index name added, and how many bytes were read.

    ``coding`` says of which of its ``siblings`` they were. ``outdated`` are the codings of those
    that are older than the file and must not stand for it.
    """

    id: int
    identity: Identity
    path: bytes
    filled: int
    coding: int = IDENTITY
    siblings: Siblings = ()
    outdated: bytes = b""


class Unchanged(NamedTuple):
    """A Lookup found the known version: nothing was read."""

    id: int


class Loaded(NamedTuple):
    """A Load is done: ``filled`` bytes, all of the version it asked for."""

    id: int
    filled: int


class Changed(NamedTuple):
    """The positions in a Check whose outcome differs from what was expected."""

    id: int
    positions: tuple[int, ...]


class Folder(NamedTuple):
    """A folder without index file that may be listed, and its version."""

    id: int
    identity: Identity


class Listed(NamedTuple):
    """A listing is written: its length in bytes, how many pages the folder has, a digest of it, and the policy that its
    page needs.
    """

    id: int
    filled: int
    pages: int
    digest: bytes
    policy: bytes


class Made(NamedTuple):
    """A Compress is done: ``filled`` bytes, fewer than the file has."""

    id: int
    filled: int


class Digested(NamedTuple):
    """The digest of a file: 16 bytes of BLAKE2b."""

    id: int
    digest: bytes


class Judged(NamedTuple):
    """Yes or no, to a Verify or a Password."""

    id: int
    holds: bool


class Failure(NamedTuple):
    """Any other outcome of a job: a verdict, and the errno behind it (0 when there is none)."""

    id: int
    verdict: int
    errno: int


HeavyJob = Compress | Verify | Digest | Password
Job = Lookup | Load | Check | List | HeavyJob
Answer = Hello | Found | Unchanged | Loaded | Changed | Folder | Listed | Made | Digested | Judged | Failure
