"""One root as it is watched: the way to it, and all folders under it. The watcher runs this.

What inotify tells is late: when an event is read, its name may mean something else by now. So an event
only says where to look. What is watched follows from what is there, and a change is told after the watch
has been set, so that nothing can happen unseen between the two.

The way is every folder that is asked for a name when the root is opened, those that symbolic links lead
through included: whatever of it is exchanged (``current`` -> another release), the root is another one.

A link under the root may lead anywhere in it, and files are known by paths that go through it. So when a
link comes, goes or changes, all of the root is told. What lies outside is not watched, whatever leads there.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from flashpy_helpers.inotify import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    DONT_FOLLOW,
    IGNORED,
    ISDIR,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    Event,
    Inotify,
)

_NAMES = CREATE | DELETE | MOVED_FROM | MOVED_TO
_ITSELF = DELETE_SELF | MOVE_SELF
_ALL = _NAMES | _ITSELF | MODIFY | CLOSE_WRITE | ATTRIB
_LINKS = 40  # as in the kernel

Tell = Callable[[bytes, bool], None]
"""Told of a path under the root, and whether of all below it."""


class Folder:
    """A folder under the root that is watched; ``links`` are the names of symbolic links in it.

    ``partial``: it, or a folder in it, could not be looked into.
    """

    __slots__ = ("children", "links", "name", "parent", "partial", "tree", "watch")

    def __init__(self, tree: "Tree", parent: "Folder | None", name: bytes) -> None:
        self.tree = tree
        self.parent = parent
        self.name = name
        self.watch = -1
        self.children: dict[bytes, Folder] = {}
        self.links: set[bytes] = set()
        self.partial = False

    def path(self, name: bytes = b"") -> bytes:
        """The path of a name in it, relative to the root."""
        parts, folder = [name], self
        while folder.parent is not None:
            parts.append(folder.name)
            folder = folder.parent
        return b"/".join(reversed(parts))

    def hear(self, event: Event) -> None:
        """Something has happened to the folder or to a name in it."""
        if event.mask & IGNORED:
            self.tree.lost(self)
        elif not event.name:
            if self.parent is None:  # others are told of by their parent
                self.tree.top_changed(event.mask)
        elif event.mask & ISDIR:
            self.tree.folder_changed(self, event.name, event.mask)
        else:
            self.tree.file_changed(self, event.name, event.mask)


class _Step:
    """A folder on the way to the root, in which one name is asked for."""

    __slots__ = ("name", "tree", "watch")

    def __init__(self, tree: "Tree", name: bytes) -> None:
        self.tree = tree
        self.name = name
        self.watch = -1

    def hear(self, event: Event) -> None:
        """Whether the way leads elsewhere now."""
        if event.mask & _ITSELF or (event.name == self.name and event.mask & _NAMES):
            self.tree.moved = True


class Tree:
    """The root at ``root``. Changes are told to ``tell``; ``rest`` is called now and then in long work."""

    def __init__(self, root: bytes, tell: Tell, rest: Callable[[], None]) -> None:
        self.root = root
        self.moved = False
        """Whether the root may be another folder by now."""
        self.unwatched: dict[int, int] = {}
        """How many folders could not be watched, by errno."""
        self._tell, self._rest = tell, rest
        self._place: tuple[int, int] | None = None
        self._top: Folder | None = None
        self._way: list[_Step] = []
        self._inotify: Inotify | None = None

    def watch(self, inotify: Inotify) -> None:
        """Watch all of it anew: nothing that is known of the root is sure, before it is watched and after."""
        self._tell(b"", True)
        self._rest()
        self.leave()
        self._inotify, self.moved = inotify, False
        self.unwatched.clear()
        self._watch_way(inotify)
        self._place = self._find_place()
        self._walk(None, b"")
        self._tell(b"", True)

    def leave(self) -> None:
        """Watch it no more."""
        if self._inotify is not None:
            for step in self._way:
                self._inotify.remove(step.watch, step)
        self._way.clear()
        if self._top is not None:
            self._forget(self._top)
            self._top = None

    def abandon(self) -> None:
        """The instance is closed: there is nothing to be removed from it."""
        self._inotify = self._top = None
        self._way.clear()

    def has_moved(self) -> bool:
        """Whether the root is another folder than the one that is watched, whatever events have said of it.

        Not every exchange makes an event: a file system is mounted over it, or a folder on the way cannot be read.
        """
        return self.moved or self._find_place() != self._place

    def is_incomplete(self) -> bool:
        """Whether another try may do better, without any event to say so."""
        return self._top is None or errno.ENOSPC in self.unwatched

    def _find_place(self) -> tuple[int, int] | None:
        try:
            facts = os.stat(self.root)
        except OSError:
            return None
        return facts.st_dev, facts.st_ino

    def _watch_way(self, inotify: Inotify) -> None:
        at, todo, links = b"/", self.root.split(b"/")[::-1], 0
        while todo and links <= _LINKS:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                at = os.path.dirname(at)
                continue
            step = _Step(self, name)
            with suppress(OSError):  # it may not be read, or is not there
                step.watch = inotify.add(at, _NAMES | _ITSELF, step)
                self._way.append(step)
            at, target = os.path.join(at, name), _target(os.path.join(at, name))
            if target is not None:
                links += 1
                at = b"/" if target.startswith(b"/") else os.path.dirname(at)
                todo += target.split(b"/")[::-1]

    # Folders

    def _walk(self, parent: Folder | None, name: bytes) -> None:
        """Watch a folder and all below it, whatever of it is not watched yet."""
        todo = [(parent, name)]
        while todo:
            folder = self._enter(*todo.pop())
            if folder is not None:
                todo += [(folder, child) for child in self._scan(folder)]
            self._rest()

    def _enter(self, parent: Folder | None, name: bytes) -> Folder | None:
        """Watch one folder; None when it is watched already, with all in it, or cannot be."""
        assert self._inotify is not None
        folder = Folder(self, parent, name)
        follow = DONT_FOLLOW if parent is not None else 0
        try:
            folder.watch = self._inotify.add(self._absolute(folder), _ALL | follow, folder)
        except OSError as error:
            self._note(error, parent)
            return None
        known = self._top if parent is None else parent.children.get(name)
        if known is not None:
            if known.watch == folder.watch:
                self._inotify.remove(folder.watch, folder)
                return known if known.partial else None
            self._forget(known)
        if parent is None:
            self._top = folder
        else:
            parent.children[name] = folder
        return folder

    def _scan(self, folder: Folder) -> Iterator[bytes]:
        """The names of the folders in a folder; the links in it are remembered."""
        folder.partial = False
        try:
            with os.scandir(self._absolute(folder)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.name
                    elif entry.is_symlink():
                        folder.links.add(entry.name)
        except OSError as error:
            self._note(error, folder)

    def _note(self, error: OSError, folder: Folder | None) -> None:
        """Something in a folder cannot be watched: whenever that folder is come upon again, it is tried again."""
        number = error.errno or 0
        if number not in (errno.ENOENT, errno.ENOTDIR):  # gone, or something else by now
            self.unwatched[number] = self.unwatched.get(number, 0) + 1
            if folder is not None:
                folder.partial = True

    def _forget(self, folder: Folder) -> None:
        """Watch a folder and all below it no more."""
        assert self._inotify is not None
        todo = [folder]
        while todo:
            gone = todo.pop()
            self._inotify.remove(gone.watch, gone)
            todo += gone.children.values()

    def _absolute(self, folder: Folder, name: bytes = b"") -> bytes:
        return os.path.join(self.root, folder.path(name))

    # What the folders hear

    def lost(self, folder: Folder) -> None:
        """The kernel watches a folder no more: it was deleted, or its file system unmounted from another folder."""
        parent = folder.parent
        if parent is None:
            self.moved = True
        elif parent.children.get(folder.name) is folder:
            self._forget(parent.children.pop(folder.name))
            self.folder_changed(parent, folder.name, IGNORED)

    def top_changed(self, mask: int) -> None:
        """The root folder itself: its rights, or its place."""
        if mask & _ITSELF:
            self.moved = True
        elif mask & ATTRIB:
            self._tell(b"", True)
            self._walk(None, b"")
            self._tell(b"", True)

    def folder_changed(self, parent: Folder, name: bytes, mask: int) -> None:
        """A folder has come or gone, or has other rights."""
        path = parent.path(name)
        self._tell(path, True)
        self._rest()
        if mask & (DELETE | MOVED_FROM) and name in parent.children:
            self._forget(parent.children.pop(name))
        facts = _facts(self._absolute(parent, name))
        if facts is not None and stat.S_ISDIR(facts.st_mode):
            self._walk(parent, name)
            self._tell(path, True)

    def file_changed(self, parent: Folder, name: bytes, mask: int) -> None:
        """Something else than a folder has come, gone or changed; a link is more than itself."""
        was_link = name in parent.links
        if mask & _NAMES:
            facts = _facts(self._absolute(parent, name))
            if facts is not None and stat.S_ISLNK(facts.st_mode):
                parent.links.add(name)
                was_link = True
            else:
                parent.links.discard(name)
        if was_link:
            self._tell(b"", True)
        else:
            self._tell(parent.path(name), False)


def _facts(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _target(path: bytes) -> bytes | None:
    """Where a symbolic link leads; None for what is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None
