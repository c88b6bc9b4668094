"""The parser by itself: what a head means, what is refused, and what is remembered of lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http import lines as known_lines
from flashpy.http import request
from flashpy.http.request import Request, RequestParser
from flashpy.http.status import Refusal

# Lines, and whether they mean nothing to a file server.
FIELDS = [
    (b"Prefer: x", True),
    (b"Accept: */*", False),
    (b"Accept-Encoding: br", False),
    (b"X-Request-ID: 7", True),
    (b"Cookie: a", True),
    (b"Range: bytes=0-1", False),
    (b"Content-Length: 0", False),
    (b"Connection: close", False),
    (b"User-Agent: z", False),
    (b"Host: y", False),
    (b"GET / HTTP/1.1", False),
]


def parse(*fields: bytes, line: bytes = b"GET / HTTP/1.1", parser: RequestParser | None = None) -> Request:
    return (parser or RequestParser(8192, 100)).parse([line, *fields, b"", b""])


def status(*fields: bytes, line: bytes = b"GET / HTTP/1.1", parser: RequestParser | None = None) -> int:
    try:
        parse(*fields, line=line, parser=parser)
    except Refusal as refusal:
        return refusal.status
    return 0


def test_a_plain_request() -> None:
    found = parse(b"Host: example.com:8080", line=b"HEAD /a?b HTTP/1.1")
    assert (found.line.method, found.line.target, found.line.minor) == (b"HEAD", b"/a?b", 1)
    assert found.host == b"example.com:8080"
    assert found.keeps
    assert found.special is None
    assert (found.line.quoted, found.referer, found.agent) == (b'"HEAD /a?b HTTP/1.1"', b'"-"', b' "-"\n')


def test_log_fields_are_made_harmless() -> None:
    found = parse(b"Host: x", b'Referer: http://a/"b\\c', b"User-Agent: \xe4\tz")
    assert found.referer == b'"http://a/\\x22b\\x5cc"'
    assert found.agent == b' "\\xe4\\x09z"\n'


@pytest.mark.parametrize(
    ("minor", "fields", "keeps"),
    [
        (1, [], True),
        (1, [b"close"], False),
        (1, [b"CLOSE"], False),
        (1, [b"keep-alive"], True),
        (1, [b"keep-alive, close"], False),
        (1, [b"keep-alive", b"close"], False),
        (1, [b"x , \tclose,"], False),
        (1, [b"closed"], True),
        (0, [], False),
        (0, [b"keep-alive"], True),
        (0, [b"Keep-Alive, x"], True),
        (0, [b"close, keep-alive"], False),
        (0, [b"x"], False),
    ],
)
def test_keep_alive(minor: int, fields: list[bytes], keeps: bool) -> None:
    lines = [b"Connection: " + value for value in fields]
    assert parse(b"Host: x", *lines, line=b"GET / HTTP/1.%d" % minor).keeps is keeps


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (400, []),
        (400, [b"Host: x", b"Host: x"]),
        (400, [b"Host: x", b"hOST: y"]),
        (400, [b"Host: x", b"Content-Length: 1", b"Transfer-Encoding: chunked"]),
        (400, [b"Host: x", b"Content-Length: 1", b"Content-Length: 1"]),
        (400, [b"Host: x", b"Content-Length: +1"]),
        (400, [b"Host: x", b"Content-Length: "]),
        (400, [b"Host: x", b"Content-Length: 1, 1"]),
        (400, [b"Host: x", b"Content-Length: \xb2"]),
        (400, [b"Host: x", b"Content-Length: 1" + b"0" * 18]),
        (400, [b"Host: x", b"Transfer-Encoding: gzip"]),
        (400, [b"Host: x", b"Transfer-Encoding: chunked, chunked"]),
        (501, [b"Host: x", b"Transfer-Encoding: gzip, chunked"]),
        (417, [b"Host: x", b"Expect: more"]),
        (400, [b"Host : x"]),
        (400, [b"Host: x", b" folded"]),
        (400, [b"Host: x", b"no colon"]),
        (400, [b"Host: x", b": no name"]),
        (400, [b"Host: x", b"a: b\nc: d"]),
        (400, [b"Host: x", b"a: b\rc"]),
        (400, [b"Host: x", b"a: \x00"]),
    ],
)
def test_refused(expected: int, fields: list[bytes]) -> None:
    assert status(*fields) == expected
    # A parser that knows the good lines by heart says the same.
    parser = RequestParser(8192, 100)
    for _ in range(3):
        assert status(b"Host: x", b"a: z", b"Content-Length: 1", parser=parser) == 0
        assert status(*fields, parser=parser) == expected


GOOD = st.sampled_from([b"Prefer: */*", b"X-Request-ID: 7", b"Cookie: a=b", b"A: "])


@given(GOOD, st.integers(0, 20), st.sampled_from([b"", b"\x00", b"\n", b"\r", b" ", b"x", b"(", b"\x7f"]))
def test_a_line_of_a_known_name_is_judged_as_if_it_were_new(good: bytes, place: int, damage: bytes) -> None:
    parser = RequestParser(8192, 100)
    for _ in range(3):
        assert status(b"Host: x", good, parser=parser) == 0
    damaged = good[:place] + damage + good[place + 1 :]
    assert status(b"Host: x", damaged, parser=parser) == status(b"Host: x", damaged)


@pytest.mark.parametrize("line", [b"Prefer", b"Preferx", b"Prefer ", b"Prefe:", b"Prefer\t: x"])
def test_a_known_name_without_its_colon(line: bytes) -> None:
    parser = RequestParser(8192, 100)
    assert status(b"Host: x", b"Prefer: */*", parser=parser) == 0
    assert status(b"Host: x", line, parser=parser) == status(b"Host: x", line)


def test_conditions_are_joined_in_order() -> None:
    found = parse(b"Host: x", b'If-None-Match: "a"', b"Range: bytes=0-1", b'if-none-match: "b"')
    assert found.special is not None
    assert found.special.conditions == {b"if-none-match": b'"a", "b"', b"range": b"bytes=0-1"}


def test_body_and_expectation() -> None:
    found = parse(b"Host: x", b"Content-Length: 007", b"Expect: 100-Continue").special
    assert found is not None
    assert (found.length, found.expects) == (7, True)
    old = parse(b"Expect: 100-continue", line=b"GET / HTTP/1.0").special
    assert old is not None
    assert not old.expects
    chunked = parse(b"Host: x", b"Transfer-Encoding: Chunked").special
    assert chunked is not None
    assert chunked.length == -1
    assert status(b"Transfer-Encoding: chunked", line=b"GET / HTTP/1.0") == 400


def test_limits() -> None:
    parser = RequestParser(40, 3)
    assert status(b"Host: x", b"a: b", b"c: d", parser=parser) == 0
    assert status(b"Host: x", b"a: b", b"c: d", b"e: f", parser=parser) == 431
    line = b"GET /" + b"a" * (40 - 14) + b" HTTP/1.1"
    assert len(line) == 40
    assert status(b"Host: x", line=line, parser=parser) == 0
    assert status(b"Host: x", line=line.replace(b"/", b"/a"), parser=parser) == 414


def test_what_is_remembered_is_what_was_said() -> None:
    parser = RequestParser(8192, 100)
    first = parse(b"Host: x", b"Accept-Language: a", parser=parser)
    assert parse(b"Host: x", b"Accept-Language: b", parser=parser) is first, "equal in all that matters"
    assert parse(b"Host: x", b"Accept-Language: b", line=b"GET /b HTTP/1.1", parser=parser) is not first
    for other in (b"Host: y", b"HOST: x\t", b"Connection: close", b"User-Agent: z", b"Range: bytes=0-"):
        fields = [b"Host: x", other] if not other.lower().startswith(b"host") else [other]
        assert parse(*fields, parser=parser) is not first


@given(st.lists(st.sampled_from([*[field for field, _ in FIELDS], b""]), max_size=6))
def test_heads_that_mean_different_things_have_different_gists(lines: list[bytes]) -> None:
    """What is answered from memory is found by its gist alone."""
    parser = RequestParser(8192, 100)
    start = [b"GET / HTTP/1.1", b"Host: x"]
    plain = parser.read([*start, b"", b""])
    try:
        gist = parser.read([*start, *lines, b"", b""])
    except Refusal:
        return
    idle = all(dict(FIELDS).get(line, False) for line in lines)
    assert (gist == plain) is idle


ODD_LINES = (
    *(b"X-Id: 1", b"X-Id:", b"X-Id: \t", b"X-Id: \xff", b"X-Id : 1", b" folded", b"X-Id: 1\n", b"X-Ids: 1"),
    *(b"Accept-Language: a", b"Range: bytes=0-1", b"", b"GET / HTTP/1.1", b"Host: x"),
)


@given(st.lists(st.sampled_from(ODD_LINES), max_size=8))
def test_a_head_with_lines_left_out_means_the_same(lines: list[bytes]) -> None:
    """What is left of a head when it was trimmed may be looked up in its place."""
    parser = _with_volatile_id()
    head = b"\r\n".join([b"GET / HTTP/1.1", b"Host: x", *lines, b"", b""])
    assert parser.memory.trim is not None
    left = parser.memory.trim(b"", head, known_lines.TRIMMED)
    assert len(left) <= len(head)
    try:
        gist = parser.read(left.split(b"\r\n"))
    except Refusal:
        return  # never answered, so never remembered
    if left.count(b"\r\n\r\n") == 1:  # one head, as what is remembered is
        assert parser.read(head.split(b"\r\n")) == gist


def test_only_lines_of_printable_ascii_are_left_out() -> None:
    trim = _with_volatile_id().memory.trim
    assert trim is not None
    assert trim(b"", b"G\r\nA: 1\r\nX-Id: 7\r\nB: 2\r\nX-Id: 8\r\n\r\n", 8) == b"G\r\nA: 1\r\nB: 2\r\n\r\n"
    for line in (b"X-Id: \x00", b"X-Id: 1\n", b"x-id: 1", b"X-Id : 1", b"X-Id: \xe4"):
        head = b"G\r\n" + line + b"\r\n\r\n"
        assert trim(b"", head, 8) == head


def test_what_fills_the_memory_also_empties_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = _with_volatile_id()
    monkeypatch.setattr(known_lines, "REMEMBERED", 10)
    for n in range(20):
        parse(b"Host: h%d" % n, parser=parser)
    assert parser.memory.trim is None


def _with_volatile_id() -> RequestParser:
    """A parser for which X-Id has come with so many values that its lines are left out."""
    parser = RequestParser(8192, 100)
    for number in range(known_lines._VOLATILE + 1):
        parse(b"Host: x", b"X-Id: %d" % number, parser=parser)
    return parser


def test_memory_is_bounded_under_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_lines, "REMEMBERED", 50)
    monkeypatch.setattr(request, "REMEMBERED", 50)
    parser = RequestParser(8192, 100)
    for n in range(1000):
        found = parse(b"Host: h%d" % (n % 300), b"X-%d: %d" % (n, n), line=b"GET /%d HTTP/1.1" % n, parser=parser)
        assert found.line.target == b"/%d" % n
        assert found.host == b"h%d" % (n % 300)
        assert len(parser.memory) <= 50
        assert len(parser.memory.idle_names) <= 50
        assert len(parser._requests) <= 50


def test_a_head_whose_lines_were_all_seen_is_known_by_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = RequestParser(8192, 100)
    parse(b"Host: x", b"X-Request-ID: 1", parser=parser)
    learned = parser.memory.learned
    parse(b"Host: x", b"X-Request-ID: 1", parser=parser)
    assert parser.memory.learned == learned
    parse(b"Host: x", b"X-Request-ID: 2", parser=parser)
    assert parser.memory.learned == learned + 1


@pytest.mark.parametrize(
    "first",
    [b"Prefer: */*", b"Host: x", b"Prefer", b"", b"GET:/ HTTP/1.1", b"GET", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1"],
)
def test_what_stands_before_the_request_line_is_not_ignored(first: bytes) -> None:
    parser = RequestParser(8192, 100)
    assert status(b"Host: x", b"Prefer: */*", parser=parser) == 0
    for _ in range(3):
        assert status(b"GET / HTTP/1.1", b"Host: x", line=first, parser=parser) == 400
        assert status(b"Host: x", line=first, parser=parser) == 400


def test_a_request_line_among_the_fields() -> None:
    parser = RequestParser(8192, 100)
    assert status(b"Host: x", parser=parser) == 0
    assert status(b"Host: x", b"GET / HTTP/1.1", parser=parser) == 400
