"""What is said of a head that is not complete: nothing that the complete head would contradict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.framing import check_partial, is_blank_start
from flashpy.http.status import Refusal

LINE, HEAD = 100, 300


def status(buffer: bytes) -> int:
    try:
        check_partial(buffer, LINE, HEAD)
    except Refusal as refusal:
        return refusal.status if refusal.close else -1
    return 0


@given(st.integers(1, 90), st.integers(0, 150))
def test_every_start_of_a_good_head_may_go_on(target: int, value: int) -> None:
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * (target - 1), b"b" * value)
    line = head.index(b"\r\n")
    fits = line <= LINE and len(head) <= HEAD
    for place in range(1, len(head)):
        if fits:
            assert status(head[:place]) == 0


@pytest.mark.parametrize("size", range(96, 106))
def test_a_request_line_that_is_too_long_is_not_waited_for(size: int) -> None:
    line = b"GET /" + b"a" * (size - 5)
    assert status(line + b"\r\n") == (414 if size > LINE else 0)
    assert status(line + b"\r") == (414 if size > LINE else 0)
    assert status(line + b"aa") == (414 if size > LINE - 1 else 0)


def test_a_head_that_is_too_long_is_not_waited_for() -> None:
    start = b"GET / HTTP/1.1\r\nX: "
    assert status(start + b"a" * (HEAD - len(start))) == 0
    assert status(start + b"a" * (HEAD - len(start) + 1)) == 431


@pytest.mark.parametrize("buffer", [b" ", b"\tGET", b"\x16\x03\x01", b"\x00", b"\nGET / HTTP/1.1", b"(", b"\xff", b":"])
def test_what_is_no_request_is_refused_at_its_first_byte(buffer: bytes) -> None:
    assert status(buffer) == 400


@pytest.mark.parametrize("buffer", [b"GET / HTTP/1.1\n", b"G\n", b"GET / HTTP/1.1\r\nHost: x\n", b"G\r\n\n"])
def test_a_line_feed_alone_would_be_waited_for_in_vain(buffer: bytes) -> None:
    assert status(buffer) == 400


@pytest.mark.parametrize("buffer", [b"G", b"GET", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"!#$%&'*+-.^_`|~09Az"])
def test_what_may_become_a_request(buffer: bytes) -> None:
    assert status(buffer) == 0


def test_blank_start() -> None:
    assert is_blank_start(b"\r\n")
    assert is_blank_start(b"\r\nGET / HTTP/1.1\r\n")
    assert is_blank_start(b"\r")
    assert not is_blank_start(b"\n")
    assert not is_blank_start(b"\rG")
    assert not is_blank_start(b"G\r\n")
