"""Do one job: root and path to facts and content. Helpers run this; here they wait for the disk.

A job ends in an answer, always: what the file system says becomes a verdict. The root is opened
anew for each job, so a root that is a link (``current``) may be switched at any time.

A file's precompressed siblings (``a.css.br``) are found with it: one job, one answer. They are
opened as the file itself is, so the policy on links holds for them, and one that cannot be opened
for reading is none.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from flashpy_helpers import beneath, disk, listing, listingpage, wire
from flashpy_helpers.wire import SUFFIXES, Answer, Check, Failure, Identity, Job, List, Load, Lookup, Root, Siblings

_TRIES = 3
_LONGEST_LISTING = 10_000  # entries: more are read by no person, and take a helper more than 0.1 s
_BARE = bytes((wire.IDENTITY,))
_VERDICTS = {
    errno.ENOENT: wire.MISSING,
    errno.ENOTDIR: wire.MISSING,
    errno.ELOOP: wire.MISSING,
    errno.ENAMETOOLONG: wire.MISSING,
    errno.EACCES: wire.REFUSED,
    errno.EPERM: wire.REFUSED,
    errno.EXDEV: wire.REFUSED,
    errno.EMFILE: wire.BUSY,
    errno.ENFILE: wire.BUSY,
    errno.ENOMEM: wire.BUSY,
    errno.ESTALE: wire.MOVING,
}


class VerdictError(Exception):
    """A path that ends in a verdict, where the kernel had no complaint.

    ``folder`` is the version of a folder without index file that may be listed.
    """

    def __init__(self, verdict: int, folder: Identity | None = None) -> None:
        super().__init__(verdict)
        self.verdict = verdict
        self.folder = folder


class NoRootError(OSError):
    """The root of a job is not there."""


class Named(NamedTuple):
    """A regular file under a root: its descriptor (O_PATH), its resolved path, its version."""

    fd: int
    path: bytes
    identity: Identity


class Family(NamedTuple):
    """A file's siblings by coding: version and descriptor (readable); and codings of older ones."""

    members: dict[int, tuple[Identity, int]]
    outdated: bytes

    def facts(self) -> Siblings:
        """What is told of them."""
        return tuple((coding, identity) for coding, (identity, _) in sorted(self.members.items()))


class Tree:
    """One root, opened for one job."""

    def __init__(self, root: Root, fd: int) -> None:
        self.root = root
        self.fd = fd

    @contextmanager
    def find(self, path: bytes) -> Iterator[Named]:
        """Give the file that a path names, or the index file of a folder that it names.

        Raises VerdictError (MISSING, FOLDER, NO_INDEX) and OSError.
        """
        named = self._page(path) or self._named(path) or self._index(path)
        try:
            yield named
        finally:
            os.close(named.fd)

    def _page(self, path: bytes) -> Named | None:
        """Return ``about.html`` for ``about``, where there is no file of that name: a clean URL."""
        if not self.root.clean or not path or path.endswith(b"/"):
            return None
        return self._file(path) or self._file(path + b".html")

    @contextmanager
    def reading(self, named: Named) -> Iterator[int]:
        """Give a descriptor for reading the file. Raises OSError (EACCES ...)."""
        fd = beneath.open_file(self.fd, named.path, self.root.symlinks, named.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def family(self, named: Named) -> Iterator[Family]:
        """Give the siblings of a file that are regular, readable and no older than it."""
        with ExitStack() as opened:
            family: dict[int, tuple[Identity, int]] = {}
            outdated = []
            for coding, suffix in enumerate(SUFFIXES):
                sibling = self._file(named.path + suffix)
                if sibling is None:
                    continue
                opened.callback(os.close, sibling.fd)
                if sibling.identity.mtime_ns < named.identity.mtime_ns:
                    outdated.append(coding)
                    continue
                try:
                    family[coding] = sibling.identity, opened.enter_context(self.reading(sibling))
                except OSError as error:
                    _raise_if_short(error)
            yield Family(family, bytes(outdated))

    def _file(self, path: bytes) -> Named | None:
        """Return a regular file, or None for whatever else is there or not."""
        try:
            return self._named(path)
        except VerdictError:
            return None
        except OSError as error:
            _raise_if_short(error)
            return None

    def _named(self, path: bytes) -> Named | None:
        """Return a file, or None for a folder that is asked for with its slash."""
        fd = beneath.open_path(self.fd, path, self.root.symlinks)
        try:
            facts = os.fstat(fd)
            if stat.S_ISREG(facts.st_mode):
                kept, fd = fd, -1
                return Named(kept, path, disk.identity(facts))
        finally:
            if fd >= 0:
                os.close(fd)
        if not stat.S_ISDIR(facts.st_mode):
            raise VerdictError(wire.MISSING)
        if path and not path.endswith(b"/"):
            raise VerdictError(wire.FOLDER)
        return None

    def _index(self, folder: bytes) -> Named:
        for name in self.root.index:
            try:
                named = self._named(folder + name)
            except OSError as error:
                if _VERDICTS.get(error.errno or 0) != wire.MISSING:
                    raise
            except VerdictError:
                continue
            else:
                if named is not None:
                    return named
        raise VerdictError(wire.NO_INDEX, self._version(folder) if self.root.listed else None)

    def _version(self, folder: bytes) -> Identity:
        fd = beneath.open_path(self.fd, folder, self.root.symlinks)
        try:
            return disk.identity(os.fstat(fd))
        finally:
            os.close(fd)

    @contextmanager
    def folder(self, path: bytes) -> Iterator[int]:
        """Give a descriptor for reading a folder. Raises OSError, VerdictError for what is none."""
        found = beneath.open_path(self.fd, path, self.root.symlinks)
        try:
            if not stat.S_ISDIR(os.fstat(found).st_mode):
                raise VerdictError(wire.MISSING)
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
        finally:
            os.close(found)
        try:
            yield fd
        finally:
            os.close(fd)


@contextmanager
def open_tree(root: Root) -> Iterator[Tree]:
    """Give the folder of a root for one job. Raises NoRootError and other OSError."""
    try:
        fd = beneath.open_root(root.path)
    except OSError as error:
        if verdict(error) == wire.MISSING:
            raise NoRootError(error.errno, error.strerror) from None
        raise
    try:
        yield Tree(root, fd)
    finally:
        os.close(fd)


def do(job: Job, roots: Mapping[int, Root], memory: memoryview) -> Answer:
    """Return the answer to a job, with the bytes that it asks for in ``memory`` (the cache).

    Raises KeyError or ValueError for a job that names an unknown root or memory that is not there,
    and for one that is not for this helper.
    """
    root = roots[job.root]
    try:
        match job:
            case Lookup():
                return _lookup(job, root, part(memory, job.offset, job.room))
            case Load():
                return _load(job, root, part(memory, job.offset, job.length))
            case Check():
                return _check(job, root)
            case List():
                return _list(job, root, part(memory, job.offset, job.room))
    except disk.MovingError:
        return Failure(job.id, wire.MOVING, 0)
    except VerdictError as outcome:
        if outcome.folder is not None:
            return wire.Folder(job.id, outcome.folder)
        return Failure(job.id, outcome.verdict, 0)
    except NoRootError as error:
        return Failure(job.id, wire.NO_ROOT, error.errno or 0)
    except OSError as error:
        return Failure(job.id, verdict(error), error.errno or 0)
    raise ValueError(f"a job for another helper: {type(job).__name__}")


def _raise_if_short(error: OSError) -> None:
    """What says nothing of the file, but of this process or the disk, must not make it look as if it were not there."""
    if verdict(error) in (wire.BUSY, wire.BROKEN):
        raise error


def verdict(error: OSError) -> int:
    """Return what an error of the file system means for a request."""
    return _VERDICTS.get(error.errno or 0, wire.BROKEN)


def _lookup(job: Lookup, root: Root, room: memoryview) -> Answer:
    for _ in range(_TRIES):
        try:
            return _look(job, root, room)
        except disk.MovingError:
            continue
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    raise disk.MovingError


def _look(job: Lookup, root: Root, room: memoryview) -> Answer:
    with open_tree(root) as tree, tree.find(job.path) as named, _family(tree, named, job.order) as family:
        siblings = family.facts()
        if (named.identity, siblings) == (job.known, job.known_siblings):
            return wire.Unchanged(job.id)
        with tree.reading(named) as fd:
            choices = {**family.members, wire.IDENTITY: (named.identity, fd)}
            coding = next((coding for coding in job.order or _BARE if coding in choices), wire.IDENTITY)
            wanted, fd = choices[coding]
            filled = min(wanted.size, len(room))
            disk.read_version(fd, room[:filled], 0, wanted)
        return wire.Found(job.id, named.identity, named.path, filled, coding, siblings, family.outdated)


@contextmanager
def _family(tree: Tree, named: Named, order: bytes | None) -> Iterator[Family]:
    if order is None:
        yield Family({}, b"")
    else:
        with tree.family(named) as family:
            yield family


def _load(job: Load, root: Root, room: memoryview) -> Answer:
    with open_tree(root) as tree, tree.find(job.path) as named:
        if named.identity != job.identity:
            raise disk.MovingError
        with tree.reading(named) as fd:
            size = named.identity.size
            filled = max(0, min(size - job.start, len(room)))
            disk.read_ahead(fd, job.start, filled, size)
            disk.read_version(fd, room[:filled], job.start, named.identity)
            return wire.Loaded(job.id, filled)


def _list(job: List, root: Root, room: memoryview) -> Answer:
    with open_tree(root) as tree, tree.folder(job.path) as fd:
        folder = listing.scan(
            fd, tree.fd, job.path, dotfiles=root.dotfiles, symlinks=root.symlinks, most=_LONGEST_LISTING
        )
    make = listing.json if job.as_json else listingpage.html
    per_page = listing.that_fit(folder, job.at, len(room))
    page = make(folder, at=job.at, query=job.query, per_page=per_page)
    room[: len(page)] = page
    pages = listing.page_of(folder, job.query, per_page).of
    digest = hashlib.blake2b(page, digest_size=16).digest()
    return wire.Listed(job.id, len(page), pages, digest, listingpage.POLICY)


def _check(job: Check, root: Root) -> Answer:
    try:
        with open_tree(root) as tree:
            outcomes = [_outcome(tree, *expected) for expected in job.expected]
    except OSError as error:
        outcomes = [(verdict(error), siblings) for _, _, siblings in job.expected]
    pairs = enumerate(zip(outcomes, job.expected, strict=True))
    return wire.Changed(job.id, tuple(n for n, (now, (_, *then)) in pairs if now != tuple(then)))


def _outcome(
    tree: Tree, path: bytes, expected: Identity | int, siblings: Siblings | None
) -> tuple[Identity | int, Siblings | None]:
    """What is there now; of a path with a verdict the siblings are as they were."""
    try:
        with tree.find(path) as named:
            if isinstance(expected, int):
                # Whether it may be read is known only by opening it.
                with tree.reading(named):
                    pass
            if siblings is not None:
                with tree.family(named) as family:
                    return named.identity, family.facts()
            return named.identity, None
    except VerdictError as outcome:
        return outcome.folder or outcome.verdict, siblings
    except OSError as error:
        return verdict(error), siblings


def part(memory: memoryview, offset: int, length: int) -> memoryview:
    """Return the part of the cache that a job names. Raises ValueError when it is not all there."""
    view = memory[offset : offset + length]
    if len(view) != length:
        raise ValueError("a job that names memory outside the cache")
    return view
