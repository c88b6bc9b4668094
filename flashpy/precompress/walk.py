"""Which files have, or should have, siblings: the same that the server looks for siblings of.

No symbolic link below a root is followed, neither here nor by `open_folder`, which both sides use: a folder that
becomes a link meanwhile leads nowhere. So a path is opened name by name, and its length has no limit.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from flashpy.http.mime import compressible, content_type
from flashpy.precompress.plan import File, Plan, Root, sibling_name

Complain = Callable[[str, str], None]
"""Is told a path and what is wrong with it."""

# Siblings, and what is compressed although its media type is that of a text.
_COMPRESSED = (".br", ".zst", ".gz", ".svgz")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WELL_KNOWN = ".well-known"


def find(roots: Iterable[Root], plan: Plan, complain: Complain) -> list[File]:
    """The files that the plan is about, each once, the largest first: so no process is left alone with one at the end.

    What cannot be read is told to `complain`.
    """
    found: dict[str, File] = {}
    for root in roots:
        for file in _under(root, plan, complain):
            found.setdefault(file.path, file)
    return sorted(found.values(), key=lambda file: (-file.size, file.path))


@contextmanager
def open_folder(root: str, folder: str) -> Iterator[int]:
    """Give a descriptor of a folder under a root. Raises OSError, ELOOP or ENOTDIR for a link on the way."""
    fd = os.open(root, _FOLDER)
    try:
        for name in folder.split("/") if folder else ():
            outer, fd = fd, os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            os.close(outer)
        yield fd
    finally:
        os.close(fd)


def _under(root: Root, plan: Plan, complain: Complain) -> Iterator[File]:
    left = [""]
    while left:
        folder = left.pop()
        try:
            with open_folder(root.path, folder) as fd, os.scandir(fd) as entries:
                visible = {entry.name: entry for entry in entries if _is_visible(entry.name, folder, root)}
                left += [_join(folder, name) for name, entry in visible.items() if entry.is_dir(follow_symlinks=False)]
                chosen = [name for name in visible if _is_chosen(name, visible, root, plan)]
                yield from _files(root, folder, [visible[name] for name in chosen], plan)
        except OSError as error:
            complain(os.path.join(root.path, folder) if folder else root.path, error.strerror or str(error))


def _is_visible(name: str, folder: str, root: Root) -> bool:
    """Whether the server would serve it (RFC 8615 for the one exception)."""
    return root.dotfiles or not name.startswith(".") or (name == _WELL_KNOWN and not folder)


def _is_chosen(name: str, names: Iterable[str], root: Root, plan: Plan) -> bool:
    if name.lower().endswith(_COMPRESSED) or not compressible(content_type(os.fsencode(name), root.types, "")):
        return False
    return plan.mode == "make" or any(sibling_name(name, coding) in names for coding in plan.codings)


def _files(root: Root, folder: str, entries: Iterable["os.DirEntry[str]"], plan: Plan) -> Iterator[File]:
    least = max(1, plan.least) if plan.mode == "make" else 0
    for entry in entries:
        try:
            facts = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it went away, and nobody needs a sibling of it
            continue
        if stat.S_ISREG(facts.st_mode) and facts.st_size >= least:
            yield File(root.path, folder, entry.name, facts.st_size)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
