"""WORKER: one line for each request, in the combined format, formatted in batches.

A line is made of three parts: the client's prefix (once a connection), the time (once a second) and the rest, which for a
memoised head is remembered with the reply. So a hit costs the log one append. The request line, Referer and
User-Agent are the client's bytes: whatever could end a line or a quoted field is written as \\xHH.
"""

import re

from flashpy.http.dates import format_log_time

_UNSAFE = re.compile(rb'[^ -~]|["\\]')


def prefix(address: str) -> bytes:
    """The start of every line of a client: `192.0.2.1 - - [`."""
    return address.encode("ascii", "replace") + b" - - ["


def stamp(seconds: int) -> bytes:
    """The time of a line and what follows it: `23/Nov/2026:10:00:00 +0000] `."""
    return format_log_time(seconds) + b"] "


def rest(request_line: bytes, status: int, length: int, referer: bytes, agent: bytes) -> bytes:
    """A line's end from the request line on, all of it as parsed. `length` is the bytes of content that were sent."""
    line = b'"%b" %d %d "%b" "%b"\n' % (request_line, status, length, referer, agent)
    # The parser lets no control byte but TAB into a field, so these tests are enough, and cheaper than a search.
    if line.isascii() and line.count(b'"') == 6 and b"\\" not in line and b"\t" not in line:
        return line
    parts = (escape(request_line), status, length, escape(referer), escape(agent))
    return b'"%b" %d %d "%b" "%b"\n' % parts


def escape(text: bytes) -> bytes:
    """`text` with everything that could break a line or a quoted field as \\xHH."""
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], text)
