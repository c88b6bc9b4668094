"""Formats of the access log: what compiles, what a line looks like, and that no client can forge one."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy import accesslog
from flashpy.http.request import Request, RequestParser
from flashpy.http.tracing import RequestIds, request_id, traceparent
from flashpy.logformat import OF_THE_LINE, OF_THE_REPLY, Format
from flashpy.loglines import HIT, Lines, Written

WHEN = 1_700_000_000
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def parse(*fields: bytes, line: bytes = b"GET /a?b HTTP/1.1") -> Request:
    return RequestParser(8192, 100).parse([line, b"Host: x", *fields, b"", b""])


def line(text: str, request: Request | bytes, *, status: int = 200, size: int = 5, user: bytes = b"") -> bytes:
    written = Written(Format(text), 3, time.monotonic)
    written.renew(WHEN)
    rest = written.rest(request, accesslog.said(status, size), None, user)
    return written.line(accesslog.prefix("192.0.2.1"), rest, 0.001234, HIT, b"id-1", TRACE)


# What compiles


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("combinde", 'expected "combined"'),
        ("", 'expected "combined"'),
        ("{statsu}", "did you mean 'status'?"),
        ("{}", "unknown name ''"),
        ("{client", "names in braces"),
        ("client} {status}", "written }}"),
        ("{client}\n{status}", "one line of printable"),
        ("{client}\x1b[2J", "one line of printable"),
        ("json status nonsense", "unknown name 'nonsense'"),
        ("json status time status", "given twice"),
    ],
)
def test_what_does_not_compile(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Format(text)


@given(st.text(max_size=30))
def test_any_text_compiles_or_says_why(text: str) -> None:
    try:
        needs = Format(text).needs
    except ValueError as error:
        words = str(error)
    else:
        words = ", ".join(needs & (OF_THE_LINE | OF_THE_REPLY))
    assert words


# What a line looks like


def test_combined_is_a_template_like_any_other() -> None:
    request = parse(b"Referer: http://x/", b'User-Agent: "50%" \\ (X)\xff')
    rest = accesslog.rest(request, accesslog.said(206, 1234))
    usual = accesslog.prefix("192.0.2.1") + accesslog.stamp(WHEN) + rest
    assert line("combined", request, status=206, size=1234) == usual
    named = accesslog.with_user(accesslog.prefix("192.0.2.1"), b"a b") + accesslog.stamp(WHEN) + rest
    assert line("combined", request, status=206, size=1234, user=b"a b") == named
    rest = accesslog.unparsed(b'"a\\x09b"', 400, 0)
    usual = accesslog.prefix("192.0.2.1") + accesslog.stamp(WHEN) + rest
    assert line("combined", b"a\tb", status=400, size=0) == usual


def test_a_text() -> None:
    text = "{time} {epoch} {worker} {method}:{path}:{query} {protocol} {host} {scheme} {{{duration}s}} 100% {served}"
    assert line(text, parse()) == (b"2023-11-14T22:13:20Z 1700000000 3 GET:/a:b HTTP/1.1 x http {0.001234s} 100% hit\n")
    assert line("{request_id} {traceparent}é", parse()) == b"id-1 %b\xc3\xa9\n" % TRACE


def test_json() -> None:
    request = parse(b'User-Agent: "caf\xc3\xa9"', b"Referer: \xff", line=b"GET /100%25?x HTTP/1.0")
    assert json.loads(line("json", request, user=b"me")) == {
        "time": "2023-11-14T22:13:20Z",
        "client": "192.0.2.1",
        "user": "me",
        "method": "GET",
        "path": "/100%25",
        "query": "x",
        "protocol": "HTTP/1.0",
        "status": 200,
        "bytes": 5,
        "duration": 0.001234,
        "served": "hit",
        "host": "x",
        "referer": "\\xff",
        "agent": '"café"',
        "scheme": "http",
    }
    chosen = json.loads(line("json status request_id traceparent worker agent", parse()))
    wanted = {"status": 200, "request_id": "id-1", "traceparent": TRACE.decode(), "worker": 3, "agent": None}
    assert chosen == wanted
    assert list(chosen) == list(wanted)


# What no client can do

VALUES = st.binary(max_size=40).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", value).strip(b" \t"))
USERS = st.binary(max_size=20)


@given(VALUES, VALUES, USERS)
def test_json_holds_what_was_sent(referer: bytes, agent: bytes, user: bytes) -> None:
    request = parse(b"Referer: " + referer, b"User-Agent: " + agent)
    found = line("json status user referer agent", request, user=user)
    assert found.endswith(b"}\n")
    assert re.fullmatch(rb"[ -~]*\n", found)
    record = json.loads(found)
    assert list(record) == ["status", "user", "referer", "agent"]
    assert _sent(record["user"], user)
    assert _sent(record["referer"], b"" if referer == b"-" else referer)
    assert _sent(record["agent"], b"" if agent == b"-" else agent)


def _sent(told: str | None, value: bytes) -> bool:
    """Whether this tells of that value: text as it is, other bytes escaped."""
    if not value:
        return told is None
    try:
        return told == value.decode()
    except UnicodeDecodeError:
        return told is not None and _undo(told.encode()) == value


def _undo(text: bytes) -> bytes:
    return re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), text)


@given(VALUES, VALUES, USERS)
def test_a_value_ends_where_the_format_says(referer: bytes, agent: bytes, user: bytes) -> None:
    """A reader who knows nothing but the format finds each value, in quotes or not."""
    request = parse(b"Referer: " + referer, b"User-Agent: " + agent)
    found = line('{user}|{agent};{status}="{referer}" {agent}', request, user=user)
    match = re.fullmatch(rb'([^| ]*)\|([^; ]*);(\d+)="([^"]*)" ([^ \n]*)\n', found)
    assert match is not None, found
    assert match[3] == b"200"
    told = [_undo(match[number]) for number in (1, 2, 4, 5)]
    assert told == [user or b"-", agent or b"-", referer or b"-", agent or b"-"]


@given(st.binary(max_size=60))
def test_neither_by_what_is_no_request(garbage: bytes) -> None:
    record = json.loads(line("json request status method", garbage, status=400))
    assert (record["status"], record["method"]) == (400, None)
    assert _sent(record["request"], garbage)
    assert line("{request} {status}", garbage, status=400).count(b" ") == 1


# Ids and samples


def head(*fields: bytes) -> bytes:
    return b"\r\n".join((b"GET / HTTP/1.1", b"Host: x", *fields, b"", b""))


def test_ids_that_are_taken() -> None:
    assert request_id(head(b"x-request-ID:  a-1:b/c==  ", b"X-Other: 1")) == b"a-1:b/c=="
    for other in (b"", b'a"b', b"a b", b"a" * 129, b"a\tb", b"\xff", b"a\x00"):
        assert request_id(head(b"X-Request-ID: " + other)) == b""
    assert request_id(head(b"X-Request-ID: a", b"X-Request-ID: b")) == b""
    assert request_id(head(b"X-Not-X-Request-ID: a")) == b""


def test_traces_that_are_taken() -> None:
    assert traceparent(head(b"Traceparent: " + TRACE)) == TRACE
    later = b"cc" + TRACE[2:] + b"-what.comes"
    assert traceparent(head(b"traceparent:" + later)) == later
    for other in (b"ff" + TRACE[2:], TRACE.upper(), TRACE[:-1], TRACE.replace(b"b7ad6b7169203331", b"0" * 16)):
        assert traceparent(head(b"traceparent: " + other)) == b""


@given(VALUES)
def test_whatever_is_taken_is_safe(value: bytes) -> None:
    assert re.fullmatch(rb"[!#-\[\]-~]*", request_id(head(b"X-Request-ID: " + value)))
    assert re.fullmatch(rb"[0-9A-Za-z._-]*", traceparent(head(b"traceparent: " + value)))


def test_ids_are_distinct_in_one_worker_and_in_several() -> None:
    makers = [RequestIds(bytes([number]) * 32) for number in range(3)]
    made = {maker.new() for maker in makers for _ in range(1000)}
    assert len(made) == 3000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", one) for one in made)


def test_a_sample_is_of_what_went_well() -> None:
    lines = Lines(sample=0.25)
    assert all(lines.keeps(status) for status in (400, 404, 499, 503) for _ in range(100))
    kept = sum(lines.keeps(200) for _ in range(4000))
    assert 700 < kept < 1300
    assert not any(Lines(sample=0.0).keeps(304) for _ in range(100))
    assert all(Lines().keeps(200) for _ in range(100))
