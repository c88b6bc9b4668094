"""A listing as an HTML page. Helpers run this.

Names are hostile. They reach the page in two ways only: as text, escaped, each alone in a ``<bdi>``
so that it cannot turn its neighbours' direction; and as a reference, percent-encoded by its bytes.
All references are relative, so the page also works where a proxy serves it below another path.
The same folder gives the same bytes. A page of 1000 entries takes about 4 ms.
"""

from html import escape
from typing import Final

from flashpy_helpers import listing
from flashpy_helpers.listing import PER_PAGE, Entry, Folder, Page
from flashpy_helpers.listingtemplate import ICONS, KINDS, PAGE, POLICY
from flashpy_helpers.query import PLAIN, Query

__all__ = ["POLICY", "html"]

# Control characters as their pictures, so that a line break in a name is seen; those without one as U+FFFD.
_PICTURES: Final = {
    **{code: 0x2400 + code for code in range(0x20)},
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), 0x2028, 0x2029), 0xFFFD),
}
_CRUMBS = 20  # as many folders above are named and linked
_UNITS: Final = ("kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_HEADS: Final = (("name", "Name", "n"), ("size", "Size", "s"), ("time", "Modified (UTC)", "t"))

_PARENT: Final = (
    f'<tr class="up"><th scope="row"><a href="../">{ICONS["up"]}Parent folder</a></th>'
    '<td class="s"></td><td class="t"></td></tr>'
)


def html(folder: Folder, *, at: bytes, query: Query = PLAIN, per_page: int = PER_PAGE) -> bytes:
    """Return one page of a listing, in UTF-8; ``at`` is the folder's decoded URL path (``b""``: the root).

    It is to be sent with POLICY as its Content-Security-Policy.
    """
    page = listing.page_of(folder, query, per_page)
    segments = [segment for segment in at.split(b"/") if segment]
    parts = {
        "title": "Index of /" + "".join(f"{_shown(segment)}/" for segment in segments),
        "crumbs": _crumbs(segments),
        "summary": _summary(folder, page),
        "filter": "Filter" if page.of == 1 else "Filter this page",
        "heads": "".join(_head(*head, query) for head in _HEADS),
        "parent": _PARENT if segments else "",
        "whole": ' data-whole="1"' if page.of == 1 else "",
        "rows": "".join([_row(rank, entry) for rank, entry in page.ranked]),
        "notes": _notes(folder) + _pager(page, query),
    }
    return (PAGE % parts).encode("utf-8")


def human_size(size: int) -> str:
    """Return bytes in decimal units with two or three digits: ``999 B``, ``1.2 MB``, ``34 GB``."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, iter(_UNITS)
    unit = next(units)
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def _shown(name: bytes) -> str:
    text = listing.text(name)
    return escape(text if text.isprintable() else text.translate(_PICTURES))


def _crumbs(segments: list[bytes]) -> str:
    """The way from the root to here; the last step is here and no link. Of a long way the end."""
    names = ["Home", *(f"<bdi>{_shown(segment)}</bdi>" for segment in segments)]
    last = len(segments)
    links = [f'<a href="{"../" * (last - step)}">{name}</a>' for step, name in enumerate(names[:-1])]
    links[1:-_CRUMBS] = ["\N{HORIZONTAL ELLIPSIS}"] if len(links) > _CRUMBS + 1 else links[1:-_CRUMBS]
    return "<i>/</i>".join([*links, f'<span aria-current="page">{names[-1]}</span>'])


def _summary(folder: Folder, page: Page) -> str:
    entries = folder.entries
    folders = sum(entry.is_folder for entry in entries)
    size = human_size(sum(entry.size for entry in entries))
    counts = (_count(folders, "folder"), _count(len(entries) - folders, "file"))
    where = f"page {page.number} of {page.of}" if page.of > 1 else ""
    shown = [*filter(None, counts), size if folders < len(entries) else "", where]
    return " \N{MIDDLE DOT} ".join(filter(None, shown)) or "Empty"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}" if number else ""


def _head(key: str, title: str, place: str, query: Query) -> str:
    """A column's head. Its link sorts by it; where it is sorted by already, the other way round."""
    current = key == query.sort
    order = "desc" if current and not query.descending else "asc"
    state = f' aria-sort="{"descending" if query.descending else "ascending"}"' if current else ""
    return (
        f'<th scope="col" class="{place}" data-key="{key}"{state}>'
        f'<a href="{_link(key, order)}" rel="nofollow">{title}</a></th>'
    )


def _row(rank: int, entry: Entry) -> str:
    """A row; its ``data`` are what the script sorts by."""
    name, size, mtime = entry.name, entry.size, entry.mtime
    when = listing.timestamp(mtime)
    if entry.is_folder:
        shape, icon, shown = ' class="d"', ICONS["folder"], '<td class="s">\N{EN DASH}</td>'
    else:
        shape, icon = "", ICONS[_kind(name)]
        shown = f'<td class="s" title="{size:,} {"byte" if size == 1 else "bytes"}">{human_size(size)}</td>'
    return (
        f'<tr{shape} data-n="{rank}" data-s="{size}" data-t="{mtime}">'
        f'<th scope="row"><a href="{listing.href(entry)}">{icon}<bdi>{_shown(name)}</bdi></a></th>'
        f'{shown}<td class="t"><time datetime="{when}">{when[:10]} {when[11:16]}</time></td></tr>\n'
    )


def _kind(name: bytes) -> str:
    stem, _, ending = name.rpartition(b".")
    return KINDS.get(ending.lower().decode("latin-1"), "file") if stem else "file"


def _notes(folder: Folder) -> str:
    if folder.more:
        return f'<p class="note">This folder holds more: only {len(folder.entries):,} of its entries are listed.</p>\n'
    return "" if folder.entries else '<p class="none">This folder is empty.</p>\n'


def _pager(page: Page, query: Query) -> str:
    if page.of == 1:
        return ""
    back = _step("Previous", "prev", page.number - 1, page, query)
    on = _step("Next", "next", page.number + 1, page, query)
    return f'<nav class="pages" aria-label="Pages">{back}<span>Page {page.number} of {page.of}</span>{on}</nav>\n'


def _step(title: str, relation: str, number: int, page: Page, query: Query) -> str:
    if not 1 <= number <= page.of:
        return f'<s aria-hidden="true">{title}</s>'
    link = _link(query.sort, "desc" if query.descending else "asc", number)
    return f'<a rel="{relation}" href="{link}">{title}</a>'


def _link(sort: str, order: str, number: int = 1) -> str:
    page = f"&amp;page={number}" if number > 1 else ""
    return f"?sort={sort}&amp;order={order}{page}"
