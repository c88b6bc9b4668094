"""The combined format, put together from its three parts."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy import accesslog
from flashpy.http.accesstext import escape, quote
from flashpy.http.request import Request, RequestParser

# As log analysers read it.
COMBINED = re.compile(
    rb"(?P<host>\S+) - - \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "
    rb'"(?P<line>[^"\\\x00-\x1f\x7f-\xff]*(?:\\x[0-9a-f]{2}[^"\\\x00-\x1f\x7f-\xff]*)*)" '
    rb'(?P<status>\d{3}) (?P<size>\d+) "(?P<referer>[ -!#-~]*)" "(?P<agent>[ -!#-~]*)"\n'
)


def parse(*fields: bytes, line: bytes = b"GET /a?b HTTP/1.1") -> Request:
    return RequestParser(8192, 100).parse([line, b"Host: x", *fields, b"", b""])


def line(request: Request, status: int = 200, size: int = 5) -> bytes:
    rest = accesslog.rest(request, accesslog.said(status, size))
    return accesslog.prefix("192.0.2.1") + accesslog.stamp(1_700_000_000) + rest


def test_a_line() -> None:
    request = parse(b"Referer: http://x/", b"User-Agent: Mozilla/5.0 (X)")
    assert line(request, 206, 1234) == (
        b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b HTTP/1.1" 206 1234 "http://x/" "Mozilla/5.0 (X)"\n'
    )


def test_what_was_not_said_is_a_hyphen() -> None:
    for fields in ((), (b"Referer:", b"User-Agent: ")):
        assert line(parse(*fields)).endswith(b'200 5 "-" "-"\n')


@pytest.mark.parametrize("address", ["::1", "unix:", "10.0.0.1"])
def test_addresses(address: str) -> None:
    assert accesslog.prefix(address) == address.encode() + b" - - ["


VALUES = st.binary(max_size=40).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", value).strip(b" \t"))


@given(VALUES, VALUES, st.integers(100, 599), st.integers(0, 1 << 40))
def test_no_client_can_forge_a_line(referer: bytes, agent: bytes, status: int, size: int) -> None:
    request = parse(b"Referer: " + referer, b"User-Agent: " + agent)
    found = COMBINED.fullmatch(line(request, status, size))
    assert found is not None
    assert _undo(found["referer"]) == (referer or b"-")
    assert _undo(found["agent"]) == (agent or b"-")
    assert (int(found["status"]), int(found["size"])) == (status, size)


@given(st.binary(max_size=60))
def test_neither_by_what_is_no_request(garbage: bytes) -> None:
    rest = accesslog.unparsed(quote(garbage), 400, 547)
    found = COMBINED.fullmatch(accesslog.prefix("::1") + accesslog.stamp(0) + rest)
    assert found is not None
    assert _undo(found["line"]) == (garbage or b"-")
    assert (found["status"], found["size"]) == (b"400", b"547")


def _undo(text: bytes) -> bytes:
    return re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), text)


def test_escape_leaves_the_usual_alone() -> None:
    usual = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
    assert escape(usual) == usual
    assert escape(b'"\\\n\x7f\xff') == b"\\x22\\x5c\\x0a\\x7f\\xff"


@pytest.mark.parametrize("seconds", [0, 951_782_400, 1_700_000_000, 4_102_444_799])
def test_times_are_utc(seconds: int) -> None:
    assert accesslog.stamp(seconds) == time.strftime("%d/%b/%Y:%H:%M:%S +0000] ", time.gmtime(seconds)).encode()
