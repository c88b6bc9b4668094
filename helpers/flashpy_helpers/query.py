"""What a reader asks of a folder's listing: its order, a page, a form. Workers and helpers run this.

A worker reads it from a URL and names it in a job, so equal questions in other words are one.
"""

import re
from typing import Final, Literal, NamedTuple, cast

Sort = Literal["name", "size", "time"]
SORTS: Final[tuple[Sort, ...]] = ("name", "size", "time")

_NAMES: Final = frozenset(sort.encode() for sort in SORTS)
_PAGE: Final = re.compile(rb"0{0,20}([1-9][0-9]{0,5})")


class Query(NamedTuple):
    """The order of the entries, and a page (from 1; may be too high)."""

    sort: Sort = "name"
    descending: bool = False
    page: int = 1


PLAIN: Final = Query()
"""Nothing asked for: by name, from the first page on."""


def parse_query(query: bytes | None) -> Query:
    """Return what the query of a URL asks for: ``sort=size&order=desc&page=2``.

    What is not understood is ignored, and of equal names the first one counts.
    """
    fields: dict[bytes, bytes] = {}
    for field in (query or b"").split(b"&"):
        name, _, value = field.partition(b"=")
        fields.setdefault(name, value)
    sort = fields.get(b"sort", b"")
    page = _PAGE.fullmatch(fields.get(b"page", b""))
    return Query(
        cast(Sort, sort.decode()) if sort in _NAMES else "name",
        fields.get(b"order") == b"desc",
        int(page[1]) if page else 1,
    )
