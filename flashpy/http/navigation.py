"""Whether a person goes to a page, or a page asks for one of its parts. Values only (worker).

A single-page application answers every path that it knows with one file, and only its script knows which. A missing
script or picture must stay missing: an HTML page in its place is an error that is hard to find.
"""

import re
from collections.abc import Mapping

from flashpy.http.mime import TYPES, extension

_PAGES = frozenset(("html", "htm", "shtml", "xhtml"))
_HTML = re.compile(rb"(?i)(?:^|,)[ \t]*text/html[ \t]*(?:$|[,;])")


def looks_like_asset(path: bytes, types: Mapping[str, str] | None = None) -> bool:
    """Whether the last segment of `path` has an extension that the table or the site's `types` know, and is no page."""
    suffix = extension(path)
    return suffix not in _PAGES and (suffix in TYPES or suffix in (types or ()))


def is_navigation(method: bytes, accept: bytes | None, fetch_mode: bytes | None) -> bool:
    """Whether a request means a page, from the values of Accept and Sec-Fetch-Mode (None: absent).

    Browsers say it in Sec-Fetch-Mode (Fetch Metadata, section 2.2), though not over http to a host that is not local;
    without it, Accept must name text/html: scripts that fetch data say */*.
    """
    if method not in (b"GET", b"HEAD"):
        return False
    if fetch_mode is not None:
        return fetch_mode.strip() == b"navigate"
    return accept is not None and _HTML.search(accept) is not None
