"""WORKER: what can be said of a request head that is not complete yet.

A head is parsed when its last byte is there (`request`). Until then only its limits are checked, and the faults that
make waiting pointless: a line that ends in LF alone would never show the CRLF CRLF that is waited for.
"""

import re

from flashpy.http.status import Refusal

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""What a token (method, field name) is made of, as the inside of a character class (RFC 9110 5.6.2)."""

_NOT_TOKEN = re.compile(b"[^%b]" % TCHAR)


def is_blank_start(buffer: bytes) -> bool:
    """Whether the buffer begins with an empty line (or half of one), which is ignored (RFC 9112 2.2)."""
    return buffer[:2] in (b"\r\n", b"\r")


def check_partial(buffer: bytes, line_limit: int, head_limit: int) -> None:
    """Raises Refusal (400, 414, 431) when no more bytes could make a request of this."""
    if _NOT_TOKEN.match(buffer):
        raise Refusal(400, reason="not an HTTP request")
    if buffer.count(b"\n") > buffer.count(b"\r\n"):
        raise Refusal(400, reason="a line ends without CR")
    if len(buffer) > line_limit + 1 and buffer.find(b"\r\n", 0, line_limit + 2) < 0:  # 1: its CR may be there
        raise Refusal(414, reason="request line too long")
    if len(buffer) > head_limit:
        raise Refusal(431, reason="head too large")
