"""What a folder holds, as a listing shows it: read, order, cut into pages, say as JSON. Helpers run this.

Only what a request would get is listed: regular files and folders. A symbolic link is opened as a
request would open it, from the root and by the site's policy, and counts as what it leads to; it is
left out when it leads nowhere or to where nobody may go. A folder may change while it is read: what
is gone by the time it is looked at is left out.

Names are bytes. They are ordered as people order them, ``file2`` before ``file10``, and folders
stand before files whatever the order is. 10,000 entries are read and ordered in about 50 ms.
"""

import errno
import json as encoder
import os
import re
import stat
import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes

from flashpy_helpers import beneath, wire
from flashpy_helpers.query import PLAIN, Query

# What an entry takes at most beside its name, and a page beside its entries and its own path.
_ROW_BYTES, _FRAME_BYTES = 440, 16_000
_SAFE: Final = re.compile(rb"[\w.-]*")

PER_PAGE: Final = 1000
"""Entries on one page: about 300 KB of HTML, which a phone still lays out at once."""

# A want of this process, not a fault of one entry: a listing must not be short because of it.
_WANTS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_DIGITS: Final = re.compile("([0-9]+)")
# The first and the last second with a year of four digits: what a file's mtime may exceed.
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799


class Entry(NamedTuple):
    """A file or a folder: size in bytes (0 for a folder), mtime in seconds since 1970."""

    name: bytes
    is_folder: bool
    size: int
    mtime: int


class Folder(NamedTuple):
    """What was found: folders first, then files, each in natural order; whether there is more."""

    entries: tuple[Entry, ...]
    more: bool


class Page(NamedTuple):
    """One page: ``ranked`` entries, each with its rank by name in the whole folder."""

    ranked: Sequence[tuple[int, Entry]]
    number: int
    of: int


def scan(fd: int, root: int, path: bytes, *, dotfiles: bool, symlinks: int, most: int) -> Folder:
    """Read the folder that ``fd`` has open for reading.

    ``root`` (a descriptor) and ``path`` (of the folder, below the root, with its slash at the end)
    are where links are followed from, by the policy ``symlinks``. Names that begin with a dot are
    left out unless ``dotfiles``. Of a folder with more than ``most`` entries, those are taken that
    the file system names first: reading all of it to choose has no bound. Raises OSError when the
    folder itself cannot be read, and EMFILE, ENFILE, ENOMEM.
    """
    found: list[Entry] = []
    more = False
    with os.scandir(fd) as items:
        for item in items:
            if item.name.startswith(".") and not dotfiles:
                continue
            entry = _entry(item, root, path, symlinks)
            if entry is None:
                continue
            if more := len(found) >= most:
                break
            found.append(entry)
    found.sort(key=_natural)
    return Folder(tuple(found), more)


def page_of(folder: Folder, query: Query, per_page: int = PER_PAGE) -> Page:
    """Return the page that is asked for, or the last one when there are fewer."""
    pages = max(1, -(-len(folder.entries) // per_page))
    number = min(max(query.page, 1), pages)
    ordered = _ordered(folder.entries, query)
    return Page(ordered[(number - 1) * per_page : number * per_page], number, pages)


def that_fit(folder: Folder, at: bytes, room: int) -> int:
    """Return how many entries a page may have so that none of this folder, in any order, exceeds ``room`` bytes."""
    costs = sorted(map(_cost, folder.entries), reverse=True)
    room -= _FRAME_BYTES + 16 * len(at)
    most = PER_PAGE
    while most > 1 and sum(costs[:most]) > room:
        most //= 2
    return most


def _cost(entry: Entry) -> int:
    """A bound of the bytes that an entry takes: a name stands there twice, and any byte may take 3 and 6."""
    return _ROW_BYTES + (2 if _SAFE.fullmatch(entry.name) else 9) * len(entry.name)


def json(folder: Folder, *, at: bytes, query: Query = PLAIN, per_page: int = PER_PAGE) -> bytes:
    """Return one page of a listing as JSON (ASCII); ``at`` is the folder's decoded URL path.

    ::

        {"path": "/docs/", "sort": "name", "order": "asc", "page": 1, "pages": 1,
         "total": 2, "truncated": false,
         "entries": [
           {"name": "old", "type": "directory", "href": "old/", "size": null,
            "mtime": "2026-11-24T14:20:39Z"},
           {"name": "a b.txt", "type": "file", "href": "a%20b.txt", "size": 1234,
            "mtime": "2026-11-24T14:20:39Z"}]}

    ``total`` counts the entries of all pages; ``truncated`` says that the folder has more than these.
    Sizes are bytes, times are UTC (RFC 3339). A name is text: bytes that are not UTF-8 stand in
    ``name`` as U+FFFD. ``href`` holds every name exactly, percent-encoded, relative to the folder.
    """
    page = page_of(folder, query, per_page)
    listing = {
        "path": text(at if at.startswith(b"/") else b"/" + at),
        "sort": query.sort,
        "order": "desc" if query.descending else "asc",
        "page": page.number,
        "pages": page.of,
        "total": len(folder.entries),
        "truncated": folder.more,
        "entries": [_as_json(entry) for _, entry in page.ranked],
    }
    return encoder.dumps(listing, separators=(",", ":")).encode("ascii")


def text(name: bytes) -> str:
    """Return a name as text, with U+FFFD for what is not UTF-8."""
    return name.decode("utf-8", "replace")


def href(entry: Entry) -> str:
    """Return a reference to an entry, relative to its folder (RFC 3986, section 4.2).

    Whatever has a meaning in a reference is percent-encoded, the colon too: ``javascript:x`` is a file.
    """
    name = quote_from_bytes(entry.name, safe="")
    return name + "/" if entry.is_folder else name


def timestamp(mtime: int) -> str:
    """Return seconds since 1970 as RFC 3339 has them, in UTC; years outside 1 to 9999 are clamped."""
    year, month, day, hour, minute, second, *_ = time.gmtime(min(max(mtime, _FIRST_SECOND), _LAST_SECOND))
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"


def _entry(item: os.DirEntry[str], root: int, path: bytes, symlinks: int) -> Entry | None:
    """What a name stands for, or None when it is not to be listed."""
    name = os.fsencode(item.name)
    try:
        link = item.is_symlink()
        facts = _behind(root, path + name, symlinks) if link else item.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in _WANTS:
            raise
        return None
    if facts is None or not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
        return None
    is_folder = stat.S_ISDIR(facts.st_mode)
    return Entry(name, is_folder, 0 if is_folder else facts.st_size, facts.st_mtime_ns // 1_000_000_000)


def _behind(root: int, path: bytes, symlinks: int) -> os.stat_result | None:
    if symlinks == wire.DENY:
        return None
    fd = beneath.open_path(root, path, symlinks)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _natural(entry: Entry) -> tuple[bool, list[str | int], bytes]:
    """Folders first; numbers by value, letters whatever their case; at last by the bytes."""
    pieces: list[str | int] = [*_DIGITS.split(text(entry.name).casefold())]
    pieces[1::2] = map(int, pieces[1::2])
    return not entry.is_folder, pieces, entry.name


def _ordered(entries: Sequence[Entry], query: Query) -> list[tuple[int, Entry]]:
    """Entries with their ranks by name. Folders have no size: by size they stay in order of names."""
    ranked = list(enumerate(entries))
    folders = [item for item in ranked if item[1].is_folder]
    files = ranked[len(folders) :]
    for group in (folders, files):
        if query.sort == "size":
            group.sort(key=lambda item: item[1].size, reverse=query.descending)
        elif query.sort == "time":
            group.sort(key=lambda item: item[1].mtime, reverse=query.descending)
        elif query.descending:
            group.reverse()
    return folders + files


def _as_json(entry: Entry) -> dict[str, str | int | None]:
    return {
        "name": text(entry.name),
        "type": "directory" if entry.is_folder else "file",
        "href": href(entry),
        "size": None if entry.is_folder else entry.size,
        "mtime": timestamp(entry.mtime),
    }
