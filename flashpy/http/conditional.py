"""If-* and Range against the facts of a file: 200, 206, 304, 412 or 416 (worker).

The order is that of RFC 9110, section 13.2.2. Every doubt is settled towards sending the file: a
condition that cannot be read never yields a 304 or a 206 (and an If-Match that cannot be read never
lets a request pass).
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from flashpy.http.dates import parse_date
from flashpy.http.ranges import Span, parse_range


class Decision(NamedTuple):
    """The status of the reply, and for 206 the spans (start, stop) of the file to send."""

    status: int
    spans: tuple[Span, ...] = ()


_WHOLE: Final = Decision(200)
_NOT_MODIFIED: Final = Decision(304)
_FAILED: Final = Decision(412)
_UNSATISFIABLE: Final = Decision(416)

# One element of a list: an entity tag, or something without quotes that is none and is passed over.
_ELEMENT = re.compile(rb'[ \t]*+(?:((?:W/)?"[!#-~\x80-\xff]*+")[ \t]*+|[^",]*+)(?:,|\Z)')


def decide(
    method: bytes,
    fields: Mapping[bytes, bytes] | None,
    *,
    etag: bytes,
    mtime: int | None,
    size: int,
    now: int,
    varies: bool = False,
) -> Decision:
    """Decide how a request for a file that exists is answered.

    `fields` has lower-case names, several lines of one name joined by b", "; names other than If-*
    and Range are not looked at. `etag` is quoted, with W/ when weak, b"" when there is none. `mtime`
    is what Last-Modified says, in seconds as `now`; without one no condition on dates is heeded.
    `size` is in bytes. `varies`: other representations of the file, in another coding, have the same date.
    """
    if not fields or method not in (b"GET", b"HEAD"):  # RFC 9110, 13.2.1: OPTIONS has none
        return _WHOLE
    if not _unchanged(fields, etag, mtime, now):
        return _FAILED
    if _known(fields, etag, mtime, now):
        return _NOT_MODIFIED
    wanted = fields.get(b"range")
    if wanted is None or method != b"GET" or not _same(fields, etag, None if varies else mtime, now):
        return _WHOLE
    spans = parse_range(wanted, size)
    if spans is None:
        return _WHOLE
    return Decision(206, spans) if spans else _UNSATISFIABLE


def _is_strong(etag: bytes) -> bool:
    """Whether there is a tag that changes with every byte (RFC 9110, section 8.8.1)."""
    return etag.startswith(b'"')


def _unchanged(fields: Mapping[bytes, bytes], etag: bytes, mtime: int | None, now: int) -> bool:
    """Steps 1 and 2: If-Match, else If-Unmodified-Since."""
    tags = fields.get(b"if-match")
    if tags is not None:
        return tags == b"*" or (_is_strong(etag) and _listed(tags, etag))
    since = fields.get(b"if-unmodified-since")
    date = None if since is None else parse_date(since, now)
    return date is None or mtime is None or mtime <= date


def _known(fields: Mapping[bytes, bytes], etag: bytes, mtime: int | None, now: int) -> bool:
    """Steps 3 and 4: If-None-Match, compared weakly, else If-Modified-Since."""
    tags = fields.get(b"if-none-match")
    if tags is not None:
        opaque = etag.removeprefix(b"W/")
        return tags == b"*" or (bool(etag) and (_listed(tags, opaque) or _listed(tags, b"W/" + opaque)))
    since = fields.get(b"if-modified-since")
    date = None if since is None else parse_date(since, now)
    return date is not None and mtime is not None and mtime <= date


def _same(fields: Mapping[bytes, bytes], etag: bytes, mtime: int | None, now: int) -> bool:
    """Step 5: If-Range, with a strong tag or exactly the date that was sent.

    A date is a strong validator only when its second is over, else the file may have changed again
    within it (RFC 9110, section 8.8.2.2). One that several codings share is not: whoever has a part of the file as it
    is, since nobody could compress it then, must not get the rest of it compressed.
    """
    validator = fields.get(b"if-range")
    if validator is None:
        return True
    if validator.endswith(b'"'):
        return validator == etag and _is_strong(etag)
    return mtime is not None and mtime < now and parse_date(validator, now) == mtime


def _listed(tags: bytes, wanted: bytes) -> bool:
    """Tell whether a list of entity tags holds exactly these bytes as an element.

    A stray quote ends the search: what follows cannot be told from the inside of a tag.
    """
    if tags == wanted:
        return True
    place, end = 0, len(tags)
    while place < end:
        element = _ELEMENT.match(tags, place)
        if element is None:
            return False
        if element[1] == wanted:
            return True
        place = element.end()
    return False
