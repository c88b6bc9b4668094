"""Where a body ends, however it is cut; and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.body import Body
from flashpy.http.status import Refusal
from tests.web import cut

LIMIT = 100_000
TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
QUOTED = st.text('ab ;="\t', max_size=8).map(lambda text: b'"%b"' % text.replace('"', '\\"').encode())
EXTENSION = st.tuples(TOKEN, st.one_of(st.none(), TOKEN, QUOTED)).map(
    lambda pair: b";" + pair[0] + (b"" if pair[1] is None else b"=" + pair[1])
)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A well-formed chunked body."""
    parts = []
    for content in draw(st.lists(st.binary(min_size=1, max_size=300), max_size=4)):
        size = b"%0*x" % (draw(st.integers(1, 5)), len(content))
        parts += [draw(st.sampled_from([size, size.upper()])), *draw(st.lists(EXTENSION, max_size=2))]
        parts += [b"\r\n", content, b"\r\n"]
    parts += [b"0" * draw(st.integers(1, 3)), *draw(st.lists(EXTENSION, max_size=1)), b"\r\n"]
    for name in draw(st.lists(TOKEN, max_size=3)):
        parts += [name, b": x\r\n"]
    return b"".join([*parts, b"\r\n"])


def drop(length: int, pieces: list[bytes], limit: int = LIMIT) -> tuple[bytes, bool] | int:
    """What is left after the body, and whether it is done; or the status it was refused with."""
    try:
        body, held = Body(length, limit), b""
        for piece in pieces:
            held = held + piece if body.done else body.drop(held + piece)
        return held, body.done
    except Refusal as refusal:
        return refusal.status


PLACES = st.lists(st.integers(0, 10_000), max_size=8)


@given(chunked(), st.binary(max_size=50), PLACES)
def test_the_end_of_a_chunked_body_is_found_however_it_is_cut(data: bytes, after: bytes, places: list[int]) -> None:
    assert drop(-1, [data + after]) == (after, True)
    assert drop(-1, cut(data + after, places)) == (after, True)


@given(chunked(), st.integers(0, 10_000), st.binary(min_size=1, max_size=3), PLACES)
def test_a_damaged_body_means_the_same_however_it_is_cut(
    data: bytes, place: int, damage: bytes, places: list[int]
) -> None:
    place %= len(data)
    damaged = data[:place] + damage + data[place + len(damage) :]
    whole, parts = drop(-1, [damaged]), drop(-1, cut(damaged, places))
    assert whole == parts


@given(st.binary(max_size=300), st.integers(1, 200), PLACES)
def test_a_body_of_known_length(data: bytes, length: int, places: list[int]) -> None:
    expected = (data[length:], len(data) >= length)
    assert drop(length, [data]) == expected
    assert drop(length, cut(data, places)) == expected


@given(chunked())
def test_nothing_of_the_body_is_kept(data: bytes) -> None:
    body, held = Body(-1, LIMIT), b""
    for n in range(len(data)):
        held = body.drop(held + data[n : n + 1])
        assert len(held) <= 64
    assert body.done


@pytest.mark.parametrize("size", [4095, 4096, 4097, 4098, 5000])
@pytest.mark.parametrize("trailer", [False, True])
def test_the_longest_line_cut_at_its_end(size: int, trailer: bool) -> None:
    line = b"x:" + b"a" * (size - 2) if trailer else b"0;" + b"a" * (size - 2)
    data = b"0\r\n" + line + b"\r\n\r\n" if trailer else line + b"\r\n\r\n"
    whole = drop(-1, [data])
    assert whole == ((b"", True) if size <= 4096 else 400)
    for place in range(len(data) - 8, len(data)):
        assert drop(-1, [data[:place], data[place:]]) == whole, place


def test_an_endless_line_is_not_waited_for() -> None:
    assert drop(-1, [b"0;" + b"a" * 5000]) == 400
    assert drop(-1, [b"0\r\nx:" + b"a" * 5000]) == 400


def test_limits() -> None:
    assert drop(11, [b""], limit=10) == 413
    assert drop(10, [b"x" * 12], limit=10) == (b"xx", True)
    assert drop(-1, [b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"], limit=13) == (b"", True)
    assert drop(-1, [b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"], limit=12) == 413
    assert drop(-1, [b"FFFFFFFFFFFFFFFF\r\n"]) == 413
    assert drop(-1, [b"0\r\n" + b"x: y\r\n" * 64 + b"\r\n"]) == (b"", True)
    assert drop(-1, [b"0\r\n" + b"x: y\r\n" * 65 + b"\r\n"]) == 431


def test_extensions_count_so_tiny_chunks_end_too() -> None:
    data = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    assert drop(-1, [data * 200]) == 413


@pytest.mark.parametrize(
    "data",
    [
        b" 5\r\n",
        b"5 \r\n",
        b"0x5\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b"5_0\r\n",
        b"\r\n",
        b"g\r\n",
        b"00000000000000005\r\n",
        b"5\nhello",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n",
        b"5;\r\n",
        b"5;a=\r\n",
        b'5;a="b\r\n',
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\na : x\r\n\r\n",
        b"0\r\na: x\x00\r\n\r\n",
        b"0\r\na: x\r\n b\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways(data: bytes) -> None:
    assert drop(-1, [data]) == 400
    assert drop(-1, [data[n : n + 1] for n in range(len(data))]) == 400
