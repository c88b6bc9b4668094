"""Range fields against an oracle that counts bytes one by one, and multipart frames."""

from email import message_from_bytes
from email.policy import HTTP
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy.http.ranges import MOST, multipart, parse_range

NUMBERS = st.integers(0, 700)


@st.composite
def wholesome(draw: st.DrawFn) -> list[tuple[int | None, int | None]]:
    """Ranges of good form: (first, last), (first, None) or (None, suffix)."""
    ranges: list[tuple[int | None, int | None]] = []
    for _ in range(draw(st.integers(1, MOST))):
        first = draw(st.none() | NUMBERS)
        last = draw(NUMBERS if first is None else st.none() | st.integers(first, 800))
        ranges.append((first, last))
    return ranges


def written(ranges: list[tuple[int | None, int | None]]) -> bytes:
    def number(value: int | None) -> str:
        return "" if value is None else str(value)

    return b"bytes=" + ", ".join(f"{number(a)}-{number(b)}" for a, b in ranges).encode()


def selected(first: int | None, last: int | None, size: int) -> set[int]:
    """The positions that one range selects, straight from the words of the RFC."""
    if first is None:
        assert last is not None
        return {n for n in range(size) if n >= size - last}
    return {n for n in range(size) if n >= first and (last is None or n <= last)}


@given(wholesome(), st.integers(1, 600))
@settings(deadline=None, max_examples=400)
def test_spans_hold_what_was_asked_for(ranges: list[tuple[int | None, int | None]], size: int) -> None:
    spans = parse_range(written(ranges), size)
    assert spans is not None
    asked = [selected(first, last, size) for first, last in ranges]
    wanted = set().union(*asked)
    sent = [n for start, stop in spans for n in range(start, stop)]
    assert len(sent) == len(set(sent)) <= size  # nothing twice, no more than the file
    assert set(sent) == wanted
    assert all(start < stop for start, stop in spans)
    # Spans that are left apart lie apart.
    ordered = sorted(spans)
    assert all(b[0] > a[1] for a, b in pairwise(ordered))
    # The order is the client's when nothing was joined.
    kept = [(min(one), max(one) + 1) for one in asked if one]
    assert list(spans) == (kept if len(kept) == len(spans) else ordered)


@given(st.binary() | st.text("bytes=0123456789-, \t").map(str.encode), st.integers(0, 1 << 70))
@settings(deadline=None, max_examples=300)
def test_nothing_raises_and_spans_lie_inside(value: bytes, size: int) -> None:
    for field in (value, b"bytes=" + value):
        spans = parse_range(field, size)
        assert all(0 <= start < stop <= size for start, stop in spans or ())


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        (b"bytes=0-0", ((0, 1),)),
        (b"bytes=0-", ((0, 1000),)),
        (b"bytes=-1", ((999, 1000),)),
        (b"bytes=-5000", ((0, 1000),)),
        (b"bytes=900-5000", ((900, 1000),)),
        (b"BYTES=10-19", ((10, 20),)),
        (b"bytes=0010-0019", ((10, 20),)),
        (b"bytes=0-9,500-509", ((0, 10), (500, 510))),
        (b"bytes=500-509 ,\t0-9", ((500, 510), (0, 10))),
        (b"bytes=0-9,,500-509,", ((0, 10), (500, 510))),
        (b"bytes=0-9,5-19", ((0, 20),)),
        (b"bytes=0-9,10-19", ((0, 20),)),
        (b"bytes=0-9,0-9,0-9", ((0, 10),)),
        (b"bytes=500-509,0-9,5-19", ((0, 20), (500, 510))),
        (b"bytes=0-9,5000-", ((0, 10),)),
        (b"bytes=0-9,-0", ((0, 10),)),
        (b"bytes=0-" + b"9" * 5000, ((0, 1000),)),
        (b"bytes=" + b"0" * 5000 + b"-0", ((0, 1),)),
    ],
)
def test_spans(value: bytes, spans: tuple[tuple[int, int], ...]) -> None:
    assert parse_range(value, 1000) == spans


@pytest.mark.parametrize("value", [b"bytes=1000-", b"bytes=1000-1000", b"bytes=-0", b"bytes=" + b"9" * 5000 + b"-"])
def test_unsatisfiable(value: bytes) -> None:
    assert parse_range(value, 1000) == ()


@pytest.mark.parametrize(
    "value",
    [b"", b"bytes", b"bytes=", b"bytes=,", b"bytes=-", b"bytes=a-b", b"bytes=0", b"bytes=5-4",
     b"bytes=0-9,5-4", b"bytes=0-9,x", b"bytes=1-2-3", b"bytes=--1", b"bytes=+1-2", b"bytes=0x0-1",
     b"bytes= ", b"bytes =0-1", b" bytes=0-1", b"bytes=0 -1", b"bytes=0- 1", b"bytes=0-1;2-3",
     b"items=0-1", b"bytes:0-1", b"0-1", b"bytes=0-1\n", b"bytes=\xd9\xa0-1",
     b"bytes=0-1, bytes=2-3", b"bytes=" + b"9" * 5000 + b"-1", b"none", b"bytes=*"],
)  # fmt: skip
def test_broken_fields_are_ignored(value: bytes) -> None:
    assert parse_range(value, 1000) is None


def test_too_many_ranges_are_ignored() -> None:
    ranges = [b"%d-%d" % (n * 1000, n * 1000) for n in range(MOST + 1)]
    assert parse_range(b"bytes=" + b",".join(ranges), 1 << 20) is None
    spans = parse_range(b"bytes=" + b",".join(ranges[:-1]), 1 << 20)
    assert spans is not None
    assert len(spans) == MOST


def test_empty_file() -> None:
    assert parse_range(b"bytes=0-", 0) == ()
    assert parse_range(b"bytes=0-0", 0) == ()
    assert parse_range(b"bytes=-0", 0) == ()
    assert parse_range(b"bytes=-5", 0) is None  # no Content-Range could say which bytes


def test_only_ranges_that_touch_are_joined() -> None:
    assert parse_range(b"bytes=0-0,1-999", 1000) == ((0, 1000),)
    assert parse_range(b"bytes=0-0,2-999", 1000) == ((0, 1), (2, 1000))


@given(st.lists(st.integers(0, 20), min_size=4, max_size=12, unique=True), st.binary(min_size=1))
@settings(deadline=None)
def test_multipart_is_read_back_by_another_parser(marks: list[int], salt: bytes) -> None:
    body = (salt * 2000)[:2000]
    edges = sorted(mark * 100 for mark in marks)
    spans = tuple(zip(edges[::2], edges[1::2], strict=False))
    parts, closing, length = multipart(spans, 2000, b"text/plain", b"BoUnDaRy-1f9d")
    reply = b"".join(head + body[start:stop] for head, start, stop in parts) + closing
    assert len(reply) == length
    assert [(start, stop) for _, start, stop in parts] == list(spans)
    assert reply.startswith(b"--BoUnDaRy-1f9d\r\n")
    for start, stop in spans:
        field = b"Content-Range: bytes %d-%d/2000\r\n\r\n" % (start, stop - 1)
        assert field + body[start:stop] + b"\r\n--BoUnDaRy-1f9d" in reply


def test_multipart_as_a_mail_parser_sees_it() -> None:
    parts, closing, _ = multipart(((0, 3), (7, 10)), 10, b"text/css", b"xyz")
    body = b"0123456789"
    reply = b"".join(head + body[start:stop] for head, start, stop in parts) + closing
    message = message_from_bytes(b"Content-Type: multipart/byteranges; boundary=xyz\r\n\r\n" + reply, policy=HTTP)
    found = [
        (part["content-type"], part["content-range"], part.get_payload(decode=True)) for part in message.iter_parts()
    ]
    assert found == [
        ("text/css", "bytes 0-2/10", b"012"),
        ("text/css", "bytes 7-9/10", b"789"),
    ]
