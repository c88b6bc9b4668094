"""WORKER: finds the end of a request body that nobody wants, without keeping any of it.

A file server has no use for bodies, but must know where they end, or the next request on the connection would be read
from the middle of one (RFC 9112 section 6 and 7). Strict on purpose: a chunk size that two servers could read in two
ways is how requests are smuggled.
"""

import re

from flashpy.http.framing import TCHAR
from flashpy.http.status import Refusal

_TOKEN = b"[%b]+" % TCHAR
_CONTROL = rb"\x00-\x08\x0a-\x1f\x7f"
_QUOTED = rb"\"(?:[^\"\\%b]|\\[^%b])*\"" % (_CONTROL, _CONTROL)
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%b)*" % _EXTENSION)
# What frames or routes a message comes too late in a trailer (RFC 9110 6.5.1); whoever sends it hopes it is heeded.
_TOO_LATE = rb"(?!(?i:content-length|transfer-encoding|host):)"
_TRAILER = re.compile(rb"%b%b:[^%b]*" % (_TOO_LATE, _TOKEN, _CONTROL))
_LONGEST_LINE = 4096
_MOST_TRAILERS = 64

_SIZE, _AFTER_DATA, _TRAILERS = range(3)


class Body:
    """A body of `length` bytes (-1: chunked), at most `limit` bytes of it. Raises Refusal 413."""

    __slots__ = ("_chunked", "_expected", "_left", "_limit", "_trailers", "done")

    def __init__(self, length: int, limit: int) -> None:
        if length > limit:
            raise Refusal(413, reason="body too large")
        self._chunked = length < 0
        self._left = 0 if self._chunked else length
        self._limit = limit
        self._expected = _SIZE
        self._trailers = 0
        self.done = length == 0

    def drop(self, data: bytes) -> bytes:
        """Drop what belongs to the body from the front of `data`, and return the rest.

        The rest is for the next call (with more bytes) or, once `done`, the next request. Raises Refusal (400, 413,
        431).
        """
        while not self.done:
            dropped = min(self._left, len(data))
            data = data[dropped:]
            self._left -= dropped
            if self._left:
                return data
            if not self._chunked:
                self.done = True
                return data
            end = data.find(b"\r\n")
            if end > _LONGEST_LINE or (end < 0 and (len(data) > _LONGEST_LINE + 1 or b"\n" in data)):
                raise Refusal(400, reason="malformed chunk")
            if end < 0:
                return data
            self._take_line(data[:end])
            data = data[end + 2 :]
        return data

    def _take_line(self, line: bytes) -> None:
        if self._expected == _SIZE:
            self._take_size(line)
        elif self._expected == _TRAILERS:
            self._take_trailer(line)
        elif line:
            raise Refusal(400, reason="chunk longer than its size")
        else:
            self._expected = _SIZE

    def _take_size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, reason="malformed chunk size")
        size = int(found[1], 16)
        self._limit -= size + len(line)
        if self._limit < 0:
            raise Refusal(413, reason="body too large")
        self._left = size
        self._expected = _AFTER_DATA if size else _TRAILERS

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailers += 1
        if self._trailers > _MOST_TRAILERS:
            raise Refusal(431, reason="too many trailer fields")
        if _TRAILER.fullmatch(line) is None:
            raise Refusal(400, reason="malformed trailer")
