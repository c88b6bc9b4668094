"""WORKER: the bytes of a request head -> a Request, or a Refusal.

A head is lines, and lines repeat even where heads do not: behind a proxy that adds X-Request-ID every head is new, and all
of its lines but one were seen before. So each line is judged once, by picohttpparser through gunicorn_h1c, and what it
means to a file server is remembered; a head of ten fields then costs a split and ten dict lookups. Measured for
such a head: 2.4 microseconds, against 4.1 with the same parser run over every head and its fields sorted out anew (and
3 to 4 for llhttp through httptools before the first field is looked at).

The parser is too lenient for a server that stands behind others: bare LF, folded lines, loose request lines, two Hosts or
none, lengths that overflow and codings it does not know are refused here. Disagreement about where a message ends is how
requests are smuggled (RFC 9112 section 11.2).
"""

import re
from typing import Any

import gunicorn_h1c
from gunicorn_h1c import _parser_fast

from flashpy.http.accesstext import quote
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

_HOST, _REFERER, _AGENT, _CONNECTION, _LENGTH, _CODING, _EXPECT, _CONDITION = range(1, 9)
_MEANING = dict.fromkeys(CONDITIONS, _CONDITION) | {
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
_NEW = 2048
_BEFORE = b"GET / HTTP/1.1\r\n"
_USUAL = 4096
_TEXT = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_NO_LIMIT = 1 << 30
_parse = gunicorn_h1c.parse_request_fast
# The fast parser raises an exception of its own, which the package does not export, or one of the exported ones.
_FAULTS = (
    gunicorn_h1c.ParseError,
    gunicorn_h1c.IncompleteError,
    _parser_fast.ParseError,
    _parser_fast.IncompleteError,
)

Meaning = tuple[int, bytes, bytes] | tuple[()]
_SAYS_CLOSE, _SAYS_KEEP = 1, 2
_NO_REFERER, _NO_AGENT = b'"-"', b' "-"\n'
_OPTIONS = {b"": 0, b"c": _SAYS_CLOSE, b"k": _SAYS_KEEP, b"ck": _SAYS_CLOSE | _SAYS_KEEP}


class Line:
    """A request line that is well formed: method, raw target, minor version; `quoted` for the access log.

    `replies` is for whoever answers: what was answered to this line, by Host. `sights` counts how often that was asked.
    """

    __slots__ = ("method", "minor", "quoted", "replies", "sights", "target")

    def __init__(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, reason="malformed request line")
        self.method, self.target, major, minor = found.groups()
        if major != b"1" or minor not in b"01":
            raise Refusal(505, reason="unsupported HTTP version")
        self.minor = int(minor)
        self.quoted = quote(line)
        self.replies: dict[bytes, Any] = {}
        self.sights = 0


class Request:
    """One request head, with the fields that a file server heeds.

    `keeps`: the client wants the connection to stay open. `special` is None when nothing but the request line and Host
    bears on the content of the reply. `familiar`: every field line was seen before, so the head may well come again.
    `referer` and `agent` are as the access log wants them.
    """

    __slots__ = ("agent", "familiar", "host", "keeps", "line", "referer", "special")

    def __init__(
        self,
        line: Line,
        host: bytes,
        keeps: bool,
        familiar: bool,
        special: "Special | None",
        referer: bytes,
        agent: bytes,
    ) -> None:
        self.line = line
        self.host = host
        self.keeps = keeps
        self.familiar = familiar
        self.special = special
        self.referer = referer
        self.agent = agent


class Special:
    """What few requests have: conditions, a body (`length` in bytes, -1 when chunked), an expectation."""

    __slots__ = ("conditions", "expects", "length")

    def __init__(self) -> None:
        self.conditions: dict[bytes, bytes] | None = None
        self.length = 0
        self.expects = False


class RequestParser:
    """Parses heads within limits: bytes of the request line, number of fields. One for each worker."""

    def __init__(self, line_limit: int, fields_limit: int) -> None:
        self._line_limit = line_limit
        self._fields_limit = fields_limit
        self._lines: dict[bytes, Line] = {}
        self._fields: dict[bytes, Meaning] = {}
        self._new_fields: dict[bytes, Meaning] = {}
        self._idle_names: set[bytes] = set()

    def parse(self, lines: list[bytes]) -> Request:
        """The request of one whole head, split at CRLF: so the last two of `lines` are empty. Raises Refusal."""
        line = self._lines.get(lines[0])
        if line is None:
            line = self._learn_line(lines[0])
        if len(lines) - 3 > self._fields_limit:
            raise Refusal(431, reason="too many fields")
        host: bytes | None = None
        referer, agent = _NO_REFERER, _NO_AGENT
        options = 0
        others: list[Meaning] | None = None
        known = self._fields
        familiar = True
        for text in lines[1:-2]:
            meaning = known.get(text)
            if meaning is None:
                meaning = self._new_fields.get(text)
                if meaning is None:
                    familiar = False
                    meaning = self._learn_field(text)
                else:
                    self._keep_field(text, meaning)
            if meaning:
                what = meaning[0]
                if what == _HOST:
                    if host is not None:
                        raise Refusal(400, reason="more than one Host")
                    host = meaning[2]
                elif what == _AGENT:
                    agent = meaning[2]
                elif what == _REFERER:
                    referer = meaning[2]
                elif what == _CONNECTION:
                    options |= _OPTIONS[meaning[2]]
                elif others is None:
                    others = [meaning]
                else:
                    others.append(meaning)
        if host is None:
            if line.minor:
                raise Refusal(400, reason="no Host")
            host = b""
        # Close is stronger than keep-alive, which only an HTTP/1.0 client needs to say (RFC 9112 9.3).
        keeps = line.minor == 1 if not options else options == _SAYS_KEEP
        special = None if others is None else _heed(line, others)
        return Request(line, host, keeps, familiar, special, referer, agent)

    def _learn_line(self, text: bytes) -> Line:
        if len(text) > self._line_limit:
            raise Refusal(414, reason="request line too long")
        line = Line(text)
        if len(self._lines) >= _REMEMBERED:
            self._lines.clear()
        self._lines[text] = line
        return line

    def forget(self) -> None:
        """Drop what was learned, and with it every remembered reply."""
        for line in self._lines.values():
            line.replies.clear()
        self._lines.clear()
        self._fields.clear()
        self._new_fields.clear()

    def _learn_field(self, text: bytes) -> Meaning:
        """Judge a line that is seen for the first time.

        Of a name without meaning to us only the value is new: it is good when nothing is left of it without the bytes that
        a value may have.
        """
        if text[: text.find(b":")] in self._idle_names and not text.translate(None, _TEXT):
            meaning: Meaning = ()
        else:
            meaning = self._judge_new(text)
        if len(self._new_fields) >= _NEW:
            self._new_fields.clear()
        self._new_fields[text] = meaning
        return meaning

    def _judge_new(self, text: bytes) -> Meaning:
        meaning = _judge(text)
        if not meaning:
            if len(self._idle_names) >= _NEW:
                self._idle_names.clear()
            self._idle_names.add(text[: text.find(b":")])
        return meaning

    def _keep_field(self, text: bytes, meaning: Meaning) -> None:
        """A line that is seen for the second time is remembered longer: a flood of new ones cannot push it out."""
        if len(self._fields) >= _REMEMBERED:
            self._fields.clear()
        self._fields[text] = meaning


def _judge(text: bytes) -> Meaning:
    """What a field line means to us: () when nothing. Raises Refusal for a malformed one."""
    message = _BEFORE + text + b"\r\n\r\n"
    try:
        parsed = _parse(message) if len(message) < _USUAL else _parse(message, 0, _NO_LIMIT, _NO_LIMIT, _NO_LIMIT)
    except _FAULTS as problem:
        raise Refusal(400, reason=str(problem).lower()) from None
    if parsed.header_count != 1 or parsed.consumed != len(message):
        raise Refusal(400, reason="a line ends without CR")
    name, value = parsed.headers[0]
    if not name:
        raise Refusal(400, reason="folded line")
    name = name.lower()
    what = _MEANING.get(name, 0)
    if what == _REFERER:
        value = quote(value)
    elif what == _AGENT:
        value = b" %b\n" % quote(value)
    elif what == _CONNECTION:
        value = _options(value)
    return (what, name, value) if what else ()


def _options(value: bytes) -> bytes:
    """What a Connection field says that matters: c(lose), k(eep-alive), both or neither."""
    listed = [option.strip(b" \t") for option in value.lower().split(b",")]
    return (b"c" if b"close" in listed else b"") + (b"k" if b"keep-alive" in listed else b"")


def _heed(line: Line, fields: list[Meaning]) -> Special:
    """Framing, Expect and the conditional fields."""
    special = Special()
    codings, lengths = [], []
    for meaning in fields:
        what, name, value = meaning  # type: ignore[misc]
        if what == _CONDITION:
            _add_condition(special, name, value)
        elif what == _LENGTH:
            lengths.append(value)
        elif what == _CODING:
            codings.append(value)
        elif what == _EXPECT:
            special.expects = _expects(line, value)
    if codings or lengths:
        special.length = _body_length(line, codings, lengths)
    return special


def _add_condition(special: Special, name: bytes, value: bytes) -> None:
    if special.conditions is None:
        special.conditions = {}
    before = special.conditions.get(name)
    special.conditions[name] = value if before is None else before + b", " + value


def _body_length(line: Line, codings: list[bytes], lengths: list[bytes]) -> int:
    """The body's length in bytes, -1 when chunked (RFC 9112 section 6)."""
    if len(codings) + len(lengths) > 1:
        raise Refusal(400, reason="ambiguous body length")
    if codings:
        _check_coding(line, codings[0])
        return -1
    if not lengths[0].isdigit():
        raise Refusal(400, reason="malformed Content-Length")
    if len(lengths[0]) > 18:
        raise Refusal(413, reason="Content-Length too large")
    return int(lengths[0])


def _check_coding(line: Line, value: bytes) -> None:
    if line.minor == 0:
        raise Refusal(400, reason="Transfer-Encoding in HTTP/1.0")
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1:
        raise Refusal(400, reason="the last transfer coding is not chunked")
    if len(codings) > 1:
        raise Refusal(501, reason="unknown transfer coding")


def _expects(line: Line, value: bytes) -> bool:
    if value.lower() != b"100-continue":
        raise Refusal(417, reason="unknown expectation")
    return line.minor == 1
