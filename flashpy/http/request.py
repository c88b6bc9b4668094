"""WORKER: the bytes of a request head -> a Request, or a Refusal.

The parser is picohttpparser through gunicorn_h1c (0.8 microseconds for ten fields, against 3 to 4 for llhttp through
httptools): fast, and too lenient for a server that stands behind others. What it lets through is refused here: bare LF,
folded lines, loose request lines, two Hosts or none, lengths that overflow, transfer codings it does not know.
Disagreement about where a message ends is how requests are smuggled (RFC 9112 section 11.2).

Speed: request lines repeat even when heads do not, so a line is taken apart once and remembered; so are the spellings
of field names, and what each means to us. Bare LF needs no search of its own: every line that the parser saw ends
in LF, so there is none without CR exactly when CRs are as many as lines (a CR anywhere else is refused by the parser).
"""

import re

import gunicorn_h1c
from gunicorn_h1c import _parser_fast

from flashpy.http.status import Refusal

KNOWN_METHODS = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK "
    b"MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT "
    b"SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
CONDITIONS = (
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"range",
)

_HOST, _CONNECTION, _LENGTH, _CODING, _EXPECT, _CONDITION, _REFERER, _AGENT, _FOLDED = range(1, 10)
_MEANING = dict.fromkeys(CONDITIONS, _CONDITION) | {
    b"": _FOLDED,
    b"host": _HOST,
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
    b"referer": _REFERER,
    b"user-agent": _AGENT,
}
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/(\d)\.(\d)")
_REMEMBERED = 16384
_NO_LIMIT = 1 << 30
_parse = gunicorn_h1c.parse_request_fast
# The fast parser raises an exception of its own, which the package does not export, or one of the exported ones.
_FAULTS = (gunicorn_h1c.ParseError, gunicorn_h1c.IncompleteError, _parser_fast.ParseError, _parser_fast.IncompleteError)


class Line:
    """A request line that is well formed: method, raw target, minor version."""

    __slots__ = ("bytes", "method", "minor", "target")

    def __init__(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, reason="malformed request line")
        self.bytes = line
        self.method, self.target, major, minor = found.groups()
        if major != b"1" or minor not in b"01":
            raise Refusal(505, reason="unsupported HTTP version")
        self.minor = int(minor)


class Request:
    """One request head, with the fields that a file server heeds.

    `plain`: nothing but the request line and Host bears on the reply. `length` is the body's in bytes, -1 when chunked.
    """

    __slots__ = ("agent", "conditions", "expects", "host", "keep", "length", "line", "referer")

    line: Line
    host: bytes
    keep: bool
    length: int
    expects: bool
    conditions: dict[bytes, bytes] | None
    referer: bytes
    agent: bytes

    @property
    def plain(self) -> bool:
        """Whether only the request line and Host bear on the reply."""
        return self.conditions is None and self.length == 0 and not self.expects


class RequestParser:
    """Parses heads within limits: bytes of the request line, number of fields. One for each worker."""

    def __init__(self, line_limit: int, fields_limit: int) -> None:
        self._line_limit = line_limit
        self._fields_limit = fields_limit
        self._lines: dict[bytes, Line] = {}
        self._meanings: dict[bytes, int] = dict(_MEANING)

    def parse(self, head: bytes) -> Request:
        """The request that `head` is: one whole head, up to and with the blank line. Raises Refusal."""
        line = self._lines.get(head[: head.find(b"\r\n")])
        if line is None:
            line = self._learn_line(head)
        fields = head.count(b"\r") - 2
        if fields > self._fields_limit:
            raise Refusal(431, reason="too many fields")
        try:
            parsed = _parse(head, 0, _NO_LIMIT, _NO_LIMIT, _NO_LIMIT)
        except _FAULTS as problem:
            raise Refusal(400, reason=str(problem).lower()) from None
        if fields != parsed.header_count:
            raise Refusal(400, reason="a line ends without CR")
        request = Request()
        request.line = line
        host: bytes | None = None
        special: list[tuple[int, bytes, bytes]] | None = None
        request.referer = request.agent = b"-"
        meanings = self._meanings
        for name, value in parsed.headers:
            meaning = meanings.get(name)
            if meaning is None:
                meaning = self._learn_name(name)
            if meaning:
                if meaning == _HOST:
                    if host is not None:
                        raise Refusal(400, reason="more than one Host")
                    host = value
                elif meaning == _AGENT:
                    request.agent = value
                elif meaning == _REFERER:
                    request.referer = value
                elif special is None:
                    special = [(meaning, name, value)]
                else:
                    special.append((meaning, name, value))
        if host is None:
            if line.minor:
                raise Refusal(400, reason="no Host")
            host = b""
        request.host = host
        request.keep = line.minor == 1
        request.length = 0
        request.expects = False
        request.conditions = None
        if special is not None:
            _heed(request, special)
        return request

    def _learn_line(self, head: bytes) -> Line:
        end = head.find(b"\r\n")
        if end > self._line_limit:
            raise Refusal(414, reason="request line too long")
        line = Line(head[:end])
        if len(self._lines) >= _REMEMBERED:
            self._lines.clear()
        self._lines[line.bytes] = line
        return line

    def _learn_name(self, name: bytes) -> int:
        meaning = _MEANING.get(name.lower(), 0)
        if len(self._meanings) >= _REMEMBERED:
            self._meanings.clear()
            self._meanings.update(_MEANING)
        self._meanings[name] = meaning
        return meaning


def _heed(request: Request, special: list[tuple[int, bytes, bytes]]) -> None:
    """Connection, framing, Expect and the conditional fields."""
    codings = lengths = 0
    options = b",".join([value for meaning, _, value in special if meaning == _CONNECTION])
    if options:
        _heed_connection(request, options)
    for meaning, name, value in special:
        if meaning == _CONDITION:
            _add_condition(request, name.lower(), value)
        elif meaning == _LENGTH:
            lengths += 1
            request.length = _body_length(value)
        elif meaning == _CODING:
            codings += 1
            _check_coding(request.line.minor, value)
        elif meaning == _EXPECT:
            request.expects = _expects(request, value)
        elif meaning == _FOLDED:
            raise Refusal(400, reason="folded line")
    if codings:
        if lengths or codings > 1:
            raise Refusal(400, reason="ambiguous body length")
        request.length = -1


def _heed_connection(request: Request, options: bytes) -> None:
    """Close is stronger than keep-alive, which only an HTTP/1.0 client needs to say (RFC 9112 9.3)."""
    listed = [option.strip(b" \t") for option in options.lower().split(b",")]
    if b"close" in listed:
        request.keep = False
    elif b"keep-alive" in listed:
        request.keep = True


def _add_condition(request: Request, name: bytes, value: bytes) -> None:
    if request.conditions is None:
        request.conditions = {}
    before = request.conditions.get(name)
    request.conditions[name] = value if before is None else before + b", " + value


def _body_length(value: bytes) -> int:
    if not value.isdigit():
        raise Refusal(400, reason="malformed Content-Length")
    if len(value) > 18:
        raise Refusal(413, reason="Content-Length too large")
    return int(value)


def _check_coding(minor: int, value: bytes) -> None:
    if minor == 0:
        raise Refusal(400, reason="Transfer-Encoding in HTTP/1.0")
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1:
        raise Refusal(400, reason="the last transfer coding is not chunked")
    if len(codings) > 1:
        raise Refusal(501, reason="unknown transfer coding")


def _expects(request: Request, value: bytes) -> bool:
    if value.lower() != b"100-continue":
        raise Refusal(417, reason="unknown expectation")
    return request.line.minor == 1
