"""WORKER: one line for each request, in the combined format, put together in batches.

A line is three parts: the client's prefix (remembered for each address), the time (once a second) and the rest, which
for a memoised head is remembered with the reply. So a hit costs the log one append to a list.
"""

from functools import lru_cache

from flashpy.http.accesstext import quote
from flashpy.http.dates import format_log_time
from flashpy.http.request import Request

_NOTHING = b'"-" "-"\n'


@lru_cache(maxsize=4096)
def prefix(address: str) -> bytes:
    """The start of every line of a client: `192.0.2.1 - - [`."""
    return address.encode("ascii", "replace") + b" - - ["


def with_user(prefix: bytes, user: bytes) -> bytes:
    """The same start for a client who has said who it is."""
    return b"%b%b [" % (prefix.removesuffix(b"- ["), quote(user)[1:-1].replace(b" ", b"\\x20"))


def stamp(seconds: int) -> bytes:
    """The time of a line and what follows it: `23/Nov/2026:10:00:00 +0000] `."""
    return format_log_time(seconds) + b"] "


def rest(request: Request, outcome: bytes) -> bytes:
    """A line from the request line on; `outcome` as `said` makes it."""
    return request.line.quoted + outcome + request.referer + request.agent


def said(status: int, length: int) -> bytes:
    """What a line says of the reply: ` 200 1024 `; `length` is the bytes of content that were sent."""
    return b" %d %d " % (status, length)


def unparsed(quoted_line: bytes, status: int, length: int) -> bytes:
    """The rest of the line for a request that could not be parsed."""
    return quoted_line + said(status, length) + _NOTHING
