"""WORKER: reply heads. A Reply is values; who sends it adds the last piece, which holds the Date.

The head of a file is made once for each entry and site. What changes from one reply to the next, the date and whether
the connection stays open, comes last, from bytes that the worker renews once a second (`last_fields`). So a hit
sends three ready pieces in one system call and formats nothing.
"""

from typing import Any

from flashpy.http.pages import page
from flashpy.http.status import REASONS, Fields, Refusal

ALLOW = b"GET, HEAD, OPTIONS"
KEEP, KEEP_OLD, CLOSE = range(3)
"""The kinds of last fields: stay open, stay open for an HTTP/1.0 client that asked for it, the last reply."""
_CONNECTION = (b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n")

Segment = bytes | tuple[int, int]
# A tally: 64 bits of bytes, 32 bits of 3xx, then 4xx. For most replies it is a small number, so to sum it costs no more
# than to sum their lengths.
_THIRDS, _FOURTHS = 64, 96
_BYTES, _COUNT = (1 << 64) - 1, (1 << 32) - 1
IN_PIECES = (b"", b"", b"")  # `whole` of a Reply that is not joined


class Reply:
    """A reply but for its last fields.

    `body` is all of it when it is at hand, else `stream` says what to send: ready bytes, and (start, stop) spans of the
    file of `entry`. `length` is the body's in bytes; `chunk` is what it lies in, up to the file's byte `stop`. Only a
    `lasting` reply, which depends on nothing but the head, the site and the entry, may be remembered; it knows what the
    log says of it (`said`), the `size` of head and body in bytes, and its `tally` (see `tally_of`). `heat` counts how
    often it was sent in pieces since it was last joined; `whole` is all of it in one piece, for each kind of last
    fields, or empty. `user` is who said a password for it, as the log has it.
    """

    __slots__ = (
        "body",
        "chunk",
        "entry",
        "head",
        "heat",
        "lasting",
        "length",
        "said",
        "size",
        "status",
        "stop",
        "stream",
        "tally",
        "user",
        "whole",
    )

    def __init__(self, status: int, head: bytes, body: bytes | memoryview = b"") -> None:
        self.status = status
        self.head = head
        self.body = body
        self.length = len(body)
        self.stream: tuple[Segment, ...] | None = None
        self.entry: Any = None
        self.chunk: Any = None
        self.stop = 0
        self.lasting = False
        self.said = b""
        self.size = 0
        self.tally = 0
        self.user = b""
        self.whole = IN_PIECES
        self.heat = 0


def tally_of(status: int, length: int) -> int:
    """A number whose sum over many replies tells their bytes, and how many were 3xx and 4xx (the others were 2xx)."""
    return length + {3: 1 << _THIRDS, 4: 1 << _FOURTHS}.get(status // 100, 0)


def read_tally(total: int) -> tuple[int, int, int]:
    """Bytes, replies 3xx, replies 4xx of a sum of tallies."""
    return total & _BYTES, (total >> _THIRDS) & _COUNT, total >> _FOURTHS


def head(status: int, fields: Fields, extra: bytes = b"") -> bytes:
    """Status line and fields, without the last ones; `extra` is ready field lines."""
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.1 %d %b\r\nServer: flashpy\r\n%b%b" % (
        status,
        REASONS[status].encode("ascii"),
        lines,
        extra,
    )


def last_fields(date: bytes) -> tuple[bytes, bytes, bytes]:
    """The end of every head, one for each kind."""
    return tuple(b"%bDate: %b\r\n\r\n" % (option, date) for option in _CONNECTION)  # type: ignore[return-value]


def refusal(problem: Refusal, *, with_body: bool) -> Reply:
    """The error page of a Refusal, as HEAD or any other method gets it."""
    return error(problem.status, problem.headers, problem.extra, with_body=with_body)


def error(status: int, fields: Fields = (), extra: bytes = b"", *, with_body: bool) -> Reply:
    """A small HTML page that says what went wrong."""
    text = page(status)
    described = (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(text)),
        *fields,
    )
    return Reply(status, head(status, described, extra), text if with_body else b"")


def redirect(status: int, location: bytes, extra: bytes, *, with_body: bool) -> Reply:
    """A redirect with a small page; `extra` is the site's own field lines."""
    text = page(status)
    fields = (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(text)),
        (b"Location", location),
    )
    return Reply(status, head(status, fields, extra), text if with_body else b"")


def options(extra: bytes = b"") -> Reply:
    """What a client may do here (RFC 9110 9.3.7)."""
    return Reply(204, head(204, ((b"Allow", ALLOW),), extra))
