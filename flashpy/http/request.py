"""WORKER: the bytes of a request head -> a Request, or a Refusal.

What is left of a head's lines (see `lines`), the request line and the few fields that matter, names its Request, which
is put together once as well. `read` runs in C but for lines that are new: 1.7 microseconds for a head of ten fields,
2.6 when one of them is; 4.1 with the same parser run over every head and its fields sorted out anew; llhttp through
httptools takes 3 to 4 before the first field is looked at.

What one line cannot show is refused here: two Hosts or none, lengths that overflow or contradict each other, codings
that are not known.
"""

import re
from collections.abc import Iterable

from flashpy.http.framing import TCHAR, line_too_long
from flashpy.http.lines import (
    AGENT,
    CODING,
    CONDITION,
    CONNECTION,
    END,
    EXPECT,
    FORWARDED,
    HOST,
    LENGTH,
    MEANINGS,
    REFERER,
    REMEMBERED,
    REMEMBERED_BYTES,
    WISH,
    Field,
    Gist,
    KnownLines,
    Line,
    Meaning,
    judge,
)
from flashpy.http.negotiation import preference
from flashpy.http.status import Refusal

KNOWN_METHODS = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK "
    b"LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND "
    b"REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_TRANSFER_CODING = re.compile(rb"[%b]+(?:[ \t]*;.*)?" % TCHAR)
SAYS_CLOSE, SAYS_KEEP = 1, 2
OPTIONS = {b"": 0, b"c": SAYS_CLOSE, b"k": SAYS_KEEP, b"ck": SAYS_CLOSE | SAYS_KEEP}


class Request:
    """One request head, with the fields that a file server heeds. Never changed: equal heads share one.

    `keeps`: the client wants the connection to stay open. `special` is None when nothing but the request line and Host
    bears on the content of the reply. `codings` are those that the client takes, best first. `wishes` are Accept,
    Authorization, Origin and Sec-Fetch-Mode, by name in lower case. `forwarded` are the fields with which proxies speak
    of the client, where they are heeded: names in lower case and values, None when there are none. `referer` and
    `agent` are as the access log wants them. `weight` is about what it takes of memory, in bytes.
    """

    __slots__ = ("agent", "codings", "forwarded", "host", "keeps", "line", "referer", "special", "weight", "wishes")

    def __init__(self, line: Line, fields: Iterable[Field]) -> None:
        self.line = line
        self.referer, self.agent = b'"-"', b' "-"\n'
        host: bytes | None = None
        options = 0
        wishes: dict[bytes, bytes] = {}
        others, forwarded = [], []
        for field in fields:
            if field.what == HOST:
                if host is not None:
                    raise Refusal(400, reason="more than one Host")
                host = field.value
            elif field.what == AGENT:
                self.agent = field.value
            elif field.what == REFERER:
                self.referer = field.value
            elif field.what == CONNECTION:
                options |= OPTIONS[field.value]
            elif field.what == WISH:
                before = wishes.get(field.name)
                wishes[field.name] = field.value if before is None else before + b"," + field.value
            elif field.what == FORWARDED:
                forwarded.append((field.name, field.value))
            else:
                others.append(field)
        if not host and (line.minor or host is not None):
            raise Refusal(400, reason="no Host")
        self.host = host or b""
        self.wishes = wishes
        self.codings = preference(wishes.get(b"accept-encoding"))
        # Close is stronger than keep-alive, which only an HTTP/1.0 client needs to say (RFC 9112 9.3).
        self.keeps = line.minor == 1 if not options else options == SAYS_KEEP
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
        self._meanings = MEANINGS | dict.fromkeys(heeded, FORWARDED)
        self._line_limit = line_limit
        self._lines_limit = fields_limit + 3
        self._known = KnownLines(self._learn)
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
        if len(self._requests) >= REMEMBERED or self._requests_bytes > REMEMBERED_BYTES:
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
        meaning = judge(text, self._meanings)
        if meaning is None:
            self._known.idle_names.setdefault(name + b":", 0)
        return meaning


def _heed(line: Line, fields: list[Field]) -> Special:
    """Framing, Expect and the conditional fields."""
    special = Special()
    codings, lengths = [], []
    for field in fields:
        what, name, value = field.what, field.name, field.value
        if what == CONDITION:
            _add_condition(special, name, value)
        elif what == LENGTH:
            lengths.append(value)
        elif what == CODING:
            codings.append(value)
        elif what == EXPECT:
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
