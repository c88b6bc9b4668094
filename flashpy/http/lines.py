"""WORKER: the lines of request heads, each judged once, and what it means to a file server.

Lines repeat even where heads do not: behind a proxy that adds X-Request-ID every head is new, and all of its lines but
one were seen before. So each line is judged once, by picohttpparser through gunicorn_h1c, and what it means is
remembered: nothing, for most fields.

The parser is too lenient for a server that stands behind others: bare LF, folded lines and loose request lines are
refused here. Disagreement about where a message ends is how requests are smuggled (RFC 9112 section 11.2).
"""

import re
from collections.abc import Callable, Mapping

import gunicorn_h1c
from gunicorn_h1c import _parser_fast

from flashpy.http.accesstext import quote
from flashpy.http.framing import TCHAR
from flashpy.http.status import Refusal

CONDITIONS = (
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"range",
)

_NOTHING_MORE, HOST, REFERER, AGENT, CONNECTION, LENGTH, CODING, EXPECT, CONDITION, WISH, FORWARDED = range(11)
MEANINGS = dict.fromkeys(CONDITIONS, CONDITION) | {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"referer": REFERER,
    b"user-agent": AGENT,
    b"accept": WISH,
    b"authorization": WISH,
    b"accept-encoding": WISH,
    b"origin": WISH,
    b"sec-fetch-mode": WISH,
}
_FRAMING = (b"content-length", b"transfer-encoding")
_LINE = re.compile(rb"([%b]+) ([!-~]+) HTTP/(\d)\.(\d)" % TCHAR)
REMEMBERED = 4096
REMEMBERED_BYTES = 4 << 20  # of lines, and of what makes requests; a client can send lines of 30 KB
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
END = Field(_NOTHING_MORE, b"", b"")


class KnownLines(dict[bytes, Meaning | None]):
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
        if len(self) >= REMEMBERED or self._bytes > REMEMBERED_BYTES:
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


def judge(text: bytes, meanings: Mapping[bytes, int]) -> Field | None:
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
    if what == REFERER:
        value = quote(value)
    elif what == AGENT:
        value = b" %b\n" % quote(value)
    elif what == CONNECTION:
        value = _options(value)
    return Field(what, name, value) if what else None


def _options(value: bytes) -> bytes:
    """What a Connection field says that matters: c(lose), k(eep-alive), both or neither."""
    listed = [option.strip(b" \t") for option in value.lower().split(b",")]
    return (b"c" if b"close" in listed else b"") + (b"k" if b"keep-alive" in listed else b"")
