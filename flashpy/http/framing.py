"""WORKER: what can be said of a request head that is not complete yet.

A head is parsed when its last byte is there (`request`). Until then only its limits are checked, and the faults that
make waiting pointless: a line that ends in LF alone would never show the CRLF CRLF that is waited for.
"""

import re

from flashpy.http.status import Refusal

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""What a token (method, field name) is made of, as the inside of a character class (RFC 9110 5.6.2)."""

_LONGEST_METHOD = 64  # more than twice the longest that has a name
_NOT_TOKEN = re.compile(b"[^%b]" % TCHAR)


def is_blank_start(buffer: bytes) -> bool:
    """Whether the buffer begins with an empty line (or half of one), which is ignored (RFC 9112 2.2)."""
    return buffer[:2] in (b"\r\n", b"\r")


def line_too_long(line: bytes) -> Refusal:
    """The Refusal of a request line over the limit: 501 when it is its method that is so long (RFC 9112 3)."""
    if b" " in line[: _LONGEST_METHOD + 1]:
        return Refusal(414, reason="request line too long")
    return Refusal(501, reason="method too long")


def check_partial(buffer: bytes, line_limit: int, head_limit: int) -> None:
    """Raises Refusal (400, 414, 431, 501) when no more bytes could make a request of this."""
    if _NOT_TOKEN.match(buffer):
        raise Refusal(400, reason="not an HTTP request")
    if buffer.count(b"\n") > buffer.count(b"\r\n"):
        raise Refusal(400, reason="a line ends without CR")
    if len(buffer) > line_limit + 1 and buffer.find(b"\r\n", 0, line_limit + 2) < 0:  # 1: its CR may be there
        raise line_too_long(buffer)
    if len(buffer) > head_limit:
        raise Refusal(431, reason="head too large")
