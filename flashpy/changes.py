"""WORKER: what the watcher tells of changed files -> what is known and no longer sure.

One file is known by several paths: as the index of its folder, by a clean URL, and a precompressed sibling is part of
its original's entry. Which these are follows from the way its root is served, so nothing needs to be searched; only
what is below a folder that came, went or moved is found by going through all that is known.

What has changed is dropped. What only may have changed keeps its content, and a look that finds it as it was is enough:
so a folder that is touched, or news that were lost, do not make the disk read everything again.

Nothing here is needed for what is served to be right: whoever hears nothing looks again after `revalidate`. And nothing
of it is in a hit's way: an entry that is not sure looks as one that is too old. A check or a lookup that was handed out
before is not believed; who waits for it already, or joins it, still gets what it has found.
"""

from collections.abc import Callable, Iterator, Mapping

from flashpy.cache.pathnames import Key, Pathnames
from flashpy_helpers import news, wire

_PAGE = b".html"
_MOST_BELOW = 64  # folders of a root at a time; of more it is taken for certain that all of it is in question


class Changes:
    """Hears of changes. `roots` says how each number is served; `doubt` hears which jobs under way are in question."""

    def __init__(
        self,
        pathnames: Pathnames,
        doubt: Callable[[Callable[[Key], bool]], None],
        roots: Mapping[int, wire.Root],
    ) -> None:
        self._pathnames = pathnames
        self._doubt = doubt
        self._roots = roots

    def hear(self, record: bytes, now: float) -> None:
        """Whatever the record names is looked at before it is served again. Raises WireError."""
        changes = news.unpack_changes(record)
        if not changes:
            self._pathnames.distrust_if(_any, now)
            self._doubt(_any)
            return
        keys = {key for change in changes for key in self._known_as(change)}
        folders = {key for change in changes for key in self._listed_in(change)}
        below = _below(changes)
        for key in keys:
            self._pathnames.drop(key)
        for key in folders - keys:
            self._pathnames.distrust(key, now)
        if below:
            self._pathnames.distrust_if(lambda key: key[1].startswith(below.get(key[0], ())), now)
        keys |= folders
        self._doubt(lambda key: key in keys or key[1].startswith(below.get(key[0], ())))

    def _known_as(self, change: news.Change) -> Iterator[Key]:
        """The keys of the entries in which the content at one path may be."""
        number, path, _ = change
        root = self._roots.get(number)
        if root is None or not path:
            return
        yield number, path
        yield number, path + b"/"
        original = _original(path)
        yield number, original
        folder, slash, name = original.rpartition(b"/")
        if name in root.index:
            yield number, folder + slash
        if root.clean:
            yield number, original.removesuffix(_PAGE)

    def _listed_in(self, change: news.Change) -> Iterator[Key]:
        """The key of the folder whose listing shows it."""
        root = self._roots.get(change.root)
        if root is not None and root.listed and change.path:
            folder, slash, _ = change.path.rpartition(b"/")
            yield change.root, folder + slash


def _any(_key: Key) -> bool:
    return True


def _original(path: bytes) -> bytes:
    """The file whose sibling this may be; else itself."""
    for suffix in wire.SUFFIXES:
        if path.endswith(suffix):
            return path.removesuffix(suffix)
    return path


def _below(changes: list[news.Change]) -> dict[int, tuple[bytes, ...]]:
    """What the paths begin with that lie below a change, by root."""
    below: dict[int, list[bytes]] = {}
    for root, path, deep in changes:
        if deep:
            below.setdefault(root, []).append(path + b"/" if path else b"")
    return {root: tuple(starts) if len(starts) <= _MOST_BELOW else (b"",) for root, starts in below.items()}
