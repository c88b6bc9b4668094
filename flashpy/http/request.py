"""WORKER: the bytes of a request head -> a Request, or a Refusal.

A head is lines, and lines repeat even where heads do not: behind a proxy that adds X-Request-ID every head is new, and
all of its lines but one were seen before. So each line is judged once, by picohttpparser through gunicorn_h1c, and what
it means to a file server is remembered: nothing, for most fields. What is left of a head, the request line and the few
fields that matter, names its Request, which is put together once as well. `read` runs in C but for lines that are new:
1.7 microseconds for a head of ten fields, 2.6 when one of them is; 4.1 with the same parser run over every head and its
fields sorted out anew; llhttp through httptools takes 3 to 4 before the first field is looked at.

The parser is too lenient for a server that stands behind others: bare LF, folded lines, loose request lines, two Hosts
or none, lengths that overflow and codings it does not know are refused here. Disagreement about where a message ends is
how requests are smuggled (RFC 9112 section 11.2).
"""

import re
from collections.abc import Callable, Iterable, Mapping

import gunicorn_h1c
from gunicorn_h1c import _parser_fast

from flashpy.http.accesstext import quote
from flashpy.http.framing import TCHAR, line_too_long
from flashpy.http.negotiation import preference
from flashpy.http.status import Refusal

KNOWN_METHODS = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK "
    b"LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND "
    b"REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
CONDITIONS = (
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"range",
)

_END, _HOST, _REFERER, _AGENT, _CONNECTION, _LENGTH, _CODING, _EXPECT, _CONDITION, _ACCEPT, _FORWARDED = range(11)
_MEANING = dict.fromkeys(CONDITIONS, _CONDITION) | {
    b"host": _HOST,
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
    b"referer": _REFERER,
    b"user-agent": _AGENT,
    b"accept": _ACCEPT,
    b"accept-encoding": _ACCEPT,
    b"origin": _ACCEPT,
    b"sec-fetch-mode": _ACCEPT,
}
_FRAMING = (b"content-length", b"transfer-encoding")
_LINE = re.compile(rb"([%b]+) ([!-~]+) HTTP/(\d)\.(\d)" % TCHAR)
_TRANSFER_CODING = re.compile(rb"[%b]+(?:[ \t]*;.*)?" % TCHAR)
_REMEMBERED = 4096
_REMEMBERED_BYTES = 4 << 20  # of lines, and of what makes requests; a client can send lines of 30 KB
_VOLATILE = 256
TRIMMED = 8  # so many names at most does `trim` leave out, and so many lines of a head
_BEFORE = b"GET / HTTP/1.1\r\n"
_USUAL = 4096
_NO_LIMIT = 1 << 30
_parse = gunicorn_h1c.parse_request_fast
# The fast parser raises an exception of its own, which the package does not export, or one of the exported ones.
_FAULTS = (
    gunicorn_h1c.ParseError,
    gunicorn_h1c.IncompleteError,
    _parser_fast.ParseError,
    _parser_fast.IncompleteError,
)

_SAYS_CLOSE, _SAYS_KEEP = 1, 2
_OPTIONS = {b"": 0, b"c": _SAYS_CLOSE, b"k": _SAYS_KEEP, b"ck": _SAYS_CLOSE | _SAYS_KEEP}


class Field:
    """A field line that matters: what it is, its name in lower case, its value as it is used."""

    __slots__ = ("name", "value", "what")

    def __init__(self, what: int, name: bytes, value: bytes) -> None:
        self.what = what
        self.name = name
        self.value = value


class Line:
    """A request line that is well formed: method, raw target, minor version (0 or 1); `quoted` for the access log."""

    __slots__ = ("method", "minor", "quoted", "target")

    def __init__(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, reason="malformed request line")
        self.method, self.target, major, minor = found.groups()
        if major != b"1":
            raise Refusal(505, reason="unsupported HTTP version")
        self.minor = min(int(minor), 1)  # 1.2 means to us what 1.1 does (RFC 9110 2.5)
        self.quoted = quote(line)


Meaning = Line | Field
# What of a head matters: its Line, the Fields that mean something, and END twice, for the empty line and what follows.
Gist = tuple[Meaning, ...]
END = Field(_END, b"", b"")


class Request:
    """One request head, with the fields that a file server heeds. Never changed: equal heads share one.

    `keeps`: the client wants the connection to stay open. `special` is None when nothing but the request line and Host
    bears on the content of the reply. `codings` are those that the client takes, best first. `wishes` are Accept,
    Origin and Sec-Fetch-Mode, by name in lower case. `forwarded` are the fields with which proxies speak of the client,
    where they are heeded: names in lower case and values, None when there are none. `referer` and `agent` are as the
    access log wants them. `weight` is about what it takes of memory, in bytes.
    """

    __slots__ = ("agent", "codings", "forwarded", "host", "keeps", "line", "referer", "special", "weight", "wishes")

    def __init__(self, line: Line, fields: Iterable[Field]) -> None:
        self.line = line
        self.referer, self.agent = b'"-"', b' "-"\n'
        host: bytes | None = None
        options = 0
        accepted: dict[bytes, bytes] = {}
        others, forwarded = [], []
        for field in fields:
            if field.what == _HOST:
                if host is not None:
                    raise Refusal(400, reason="more than one Host")
                host = field.value
            elif field.what == _AGENT:
                self.agent = field.value
            elif field.what == _REFERER:
                self.referer = field.value
            elif field.what == _CONNECTION:
                options |= _OPTIONS[field.value]
            elif field.what == _ACCEPT:
                before = accepted.get(field.name)
                accepted[field.name] = field.value if before is None else before + b"," + field.value
            elif field.what == _FORWARDED:
                forwarded.append((field.name, field.value))
            else:
                others.append(field)
        if not host and (line.minor or host is not None):
            raise Refusal(400, reason="no Host")
        self.host = host or b""
        self.wishes = accepted
        self.codings = preference(accepted.get(b"accept-encoding"))
        # Close is stronger than keep-alive, which only an HTTP/1.0 client needs to say (RFC 9112 9.3).
        self.keeps = line.minor == 1 if not options else options == _SAYS_KEEP
        self.special = _heed(line, others) if others else None
        self.forwarded = tuple(forwarded) or None
        self.weight = 0

    @property
    def has_body(self) -> bool:
        """Whether a body comes with it, or is expected to be asked for."""
        return self.special is not None and (self.special.length != 0 or self.special.expects)


class Special:
    """What few requests have: conditions, a body (`length` in bytes, -1 when chunked), an expectation."""

    __slots__ = ("conditions", "expects", "length")

    def __init__(self) -> None:
        self.conditions: dict[bytes, bytes] | None = None
        self.length = 0
        self.expects = False


class RequestParser:
    """Parses heads within limits: bytes of the request line, number of fields. One for each listener, and one more for
    its trusted peers, where the fields that are `heeded` (names in lower case) mean something: see Request.forwarded.

    `memory.learned` counts the lines that were not remembered, those of volatile names each time: a head during whose
    `read` it stays may well come again.
    """

    def __init__(self, line_limit: int, fields_limit: int, heeded: frozenset[bytes] = frozenset()) -> None:
        self._meanings = _MEANING | dict.fromkeys(heeded, _FORWARDED)
        self._line_limit = line_limit
        self._lines_limit = fields_limit + 3
        self._known = _Known(self._learn)
        self._meaning = self._known.__getitem__
        self.memory = self._known
        self._requests: dict[Gist, Request] = {}
        self._requests_bytes = 0

    def read(self, lines: list[bytes]) -> Gist:
        """What matters of one or more whole heads, split at CRLF. Raises Refusal."""
        if len(lines) > self._lines_limit:
            raise Refusal(431, reason="too many fields")
        if type(self._meaning(lines[0])) is not Line:  # one that means nothing would not be missed below
            raise Refusal(400, reason="no request line")
        return tuple(filter(None, map(self._meaning, lines)))

    def allows(self, lines: int) -> bool:
        """Whether so many lines, the empty ones at the end included, are within the limits."""
        return lines <= self._lines_limit

    def request(self, gist: Gist) -> tuple[Request, bool]:
        """The Request of one head, and whether such a one was asked for before. Raises Refusal."""
        known = self._requests.get(gist)
        if known is not None:
            return known, True
        line, *fields = gist
        if not isinstance(line, Line):
            raise Refusal(400, reason="no request line")
        if not all(isinstance(field, Field) for field in fields):
            raise Refusal(400, reason="a request line among the fields")
        heeded = [field for field in fields if isinstance(field, Field) and field is not END]
        request = Request(line, heeded)
        request.weight = len(line.quoted) + sum([len(field.value) for field in heeded])
        self._requests_bytes += request.weight
        if len(self._requests) >= _REMEMBERED or self._requests_bytes > _REMEMBERED_BYTES:
            self._requests.clear()
            self._requests_bytes = request.weight
        self._requests[gist] = request
        return request, False

    def parse(self, lines: list[bytes]) -> Request:
        """The request of one whole head, split at CRLF. Raises Refusal."""
        return self.request(self.read(lines))[0]

    def _learn(self, text: bytes) -> Meaning | None:
        """Judge a line that is new, of a name that is new or means something; None when it means nothing."""
        name = text.partition(b":")[0]
        if b" " in name:
            if len(text) > self._line_limit:
                raise line_too_long(text)
            return Line(text)
        meaning = _judge(text, self._meanings)
        if meaning is None:
            self._known.idle_names.setdefault(name + b":", 0)
        return meaning


class _Known(dict[bytes, Meaning | None]):
    """Lines and what they mean; what is missing is learned. Emptied when full: what is hot is back with the next head.

    Of a name without meaning only the value is new, and one of printable ASCII needs no parser. A name that keeps
    coming with new values (the id of a proxy's requests) is looked at each time and not remembered. Lines of such names
    can be left out of a head without a change in what it means: `trim(b"", head, TRIMMED)` does it in 0.3 microseconds,
    and leaves in whatever is not printable ASCII. It is None while there is no such name.
    """

    def __init__(self, learn: Callable[[bytes], Meaning | None]) -> None:
        super().__init__({b"": END})
        self.learned = self._bytes = 0
        self.idle_names: dict[bytes, int] = {}
        self.trim: Callable[[bytes, bytes, int], bytes] | None = None
        self._volatile: list[bytes] = []
        self._learn = learn

    def __missing__(self, text: bytes) -> Meaning | None:
        self.learned += 1
        name = text[: text.find(b":") + 1]
        values = self.idle_names.get(name)
        if values is None or not text.decode("latin-1").isprintable():
            meaning = self._learn(text)
        elif values >= _VOLATILE:
            return None
        else:
            self.idle_names[name] = values + 1
            if values + 1 == _VOLATILE and len(self._volatile) < TRIMMED:
                self._leave_out(name)
            meaning = None
        self._bytes += len(text)
        if len(self) >= _REMEMBERED or self._bytes > _REMEMBERED_BYTES:
            self._forget()
            self._bytes = len(text)
        self[text] = meaning
        return meaning

    def _leave_out(self, name: bytes) -> None:
        self._volatile.append(re.escape(name))
        self.trim = re.compile(rb"\r\n(?:%b)[ -~]*(?=\r\n)" % b"|".join(self._volatile)).sub

    def _forget(self) -> None:
        self.clear()
        self.idle_names.clear()
        self._volatile.clear()
        self.trim = None
        self[b""] = END


def _judge(text: bytes, meanings: Mapping[bytes, int]) -> Field | None:
    """What a field line means to us: None when nothing. Raises Refusal for a malformed one."""
    name = text.partition(b":")[0].lower()
    if name in _FRAMING:  # what these may say is decided here: versions of the parser differ in it
        text = b"X" + text[len(name) :]
    message = _BEFORE + text + b"\r\n\r\n"
    try:
        parsed = _parse(message) if len(message) < _USUAL else _parse(message, 0, _NO_LIMIT, _NO_LIMIT, _NO_LIMIT)
    except _FAULTS as problem:
        raise Refusal(400, reason=str(problem).lower()) from None
    if parsed.header_count != 1 or parsed.consumed != len(message):
        raise Refusal(400, reason="a line ends without CR")
    given, value = parsed.headers[0]
    if not given:
        raise Refusal(400, reason="folded line")
    what = meanings.get(name, 0)
    if what == _REFERER:
        value = quote(value)
    elif what == _AGENT:
        value = b" %b\n" % quote(value)
    elif what == _CONNECTION:
        value = _options(value)
    return Field(what, name, value) if what else None


def _options(value: bytes) -> bytes:
    """What a Connection field says that matters: c(lose), k(eep-alive), both or neither."""
    listed = [option.strip(b" \t") for option in value.lower().split(b",")]
    return (b"c" if b"close" in listed else b"") + (b"k" if b"keep-alive" in listed else b"")


def _heed(line: Line, fields: list[Field]) -> Special:
    """Framing, Expect and the conditional fields."""
    special = Special()
    codings, lengths = [], []
    for field in fields:
        what, name, value = field.what, field.name, field.value
        if what == _CONDITION:
            _add_condition(special, name, value)
        elif what == _LENGTH:
            lengths.append(value)
        elif what == _CODING:
            codings.append(value)
        elif what == _EXPECT:
            special.expects |= _expects(line, value)
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
        raise Refusal(400, reason="Content-Length that 64 bits may not hold")
    return int(lengths[0])


def _check_coding(line: Line, value: bytes) -> None:
    if line.minor == 0:
        raise Refusal(400, reason="Transfer-Encoding in HTTP/1.0")
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1:
        raise Refusal(400, reason="the last transfer coding is not chunked")
    if not all(map(_TRANSFER_CODING.fullmatch, codings)):  # an empty one may be ignored, but not every server does
        raise Refusal(400, reason="malformed Transfer-Encoding")
    if len(codings) > 1:
        raise Refusal(501, reason="unknown transfer coding")


def _expects(line: Line, value: bytes) -> bool:
    expected = {expectation.strip(b" \t") for expectation in value.lower().split(b",")} - {b""}
    if expected - {b"100-continue"}:
        raise Refusal(417, reason="unknown expectation")
    return line.minor == 1 and bool(expected)
