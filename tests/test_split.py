"""However a client's bytes are cut, it gets the same replies: through a real connection."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashpy.config import Limits
from tests.web import cut
from tests.workbench import Bench, replies

CORPUS = sorted((Path(__file__).parent / "requests").glob("*/*.http"))
LIMITS = Limits(request_line=512, header_bytes=2048, header_fields=20, body=4096)
EASY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

paths = st.sampled_from([b"/", b"/a.txt", b"/none", b"/large.bin", b"/empty", b"/docs", b"/a.txt?x=1", b"/%61.txt"])
fields = st.lists(
    st.sampled_from(
        [
            b"Accept: */*",
            b"X-Request-ID: 1",
            b"Range: bytes=0-3",
            b"If-None-Match: *",
            b"User-Agent: test",
            b"Expect: 100-continue",
            b"Connection: keep-alive",
        ]
    ),
    max_size=3,
    unique=True,
)
bodies = st.sampled_from(
    [
        b"\r\n",
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n00\r\nX: y\r\n\r\n",
    ]
)


@st.composite
def request(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"GET", b"HEAD", b"OPTIONS", b"POST", b"NONE"]))
    lines = [b"%b %b HTTP/1.1" % (method, draw(paths)), b"Host: x", *draw(fields)]
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return blank + b"\r\n".join(lines) + b"\r\n" + draw(bodies)


places = st.lists(st.integers(0, 4000), max_size=6)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("root")
    (root / "a.txt").write_bytes(b"a text\n")
    (root / "index.html").write_bytes(b"<p>home")
    (root / "empty").touch()
    (root / "docs").mkdir()
    (root / "large.bin").write_bytes(bytes(range(256)) * 600)
    bench = Bench(root, limits=LIMITS, max_stale=1000.0, revalidate=1000.0)
    bench.ready()
    yield bench
    bench.close()


def outcome(bench: Bench, pieces: list[bytes]) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """The final replies, but for their dates and boundaries."""
    data = bench.exchange(*pieces)
    while b"HTTP/1.1 100 Continue\r\n\r\n" in data:
        data = data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    heads = [(status, fields) for status, fields, _ in _heads(data)]
    for _, found in heads:
        found.pop(b"date")
    return [(status, fields, data[:0]) for status, fields in heads] + [(0, {}, _without_dates(data))]


def _heads(data: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    found = []
    for head in re.split(rb"HTTP/1\.1 (?=\d{3} )", data)[1:]:
        text = head.partition(b"\r\n\r\n")[0]
        lines = text.split(b"\r\n")
        pairs = [line.partition(b": ") for line in lines[1:]]
        found.append((int(lines[0][:3]), {name.lower(): value for name, _, value in pairs}, b""))
    return found


def _without_dates(data: bytes) -> bytes:
    lines = [line for line in data.split(b"\r\n") if not line.startswith(b"Date: ")]
    return b"\r\n".join(lines)


@given(st.lists(request(), min_size=1, max_size=5), places)
@EASY
def test_pipelined_requests_cut_anywhere(bench: Bench, requests: list[bytes], places: list[int]) -> None:
    data = b"".join(requests)
    whole = outcome(bench, [data])
    assert outcome(bench, cut(data, places)) == whole
    assert outcome(bench, requests) == whole


@given(st.sampled_from(CORPUS), places)
@EASY
def test_the_corpus_cut_anywhere(bench: Bench, file: Path, places: list[int]) -> None:
    data = file.read_bytes()
    assert outcome(bench, cut(data, places)) == outcome(bench, [data])


@pytest.mark.parametrize(
    "data",
    [
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\nHEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\na: b\r\n\r\n"
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxyGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_single_bytes(bench: Bench, data: bytes) -> None:
    whole = outcome(bench, [data])
    assert outcome(bench, [data[n : n + 1] for n in range(len(data))]) == whole
    for place in range(1, len(data)):
        assert outcome(bench, [data[:place], data[place:]]) == whole, data[:place]


@pytest.mark.parametrize("size", range(505, 520))
def test_the_longest_request_line_cut_at_its_end(bench: Bench, size: int) -> None:
    line = b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"
    assert len(line) == size
    data = line + b"\r\nHost: x\r\n\r\n"
    whole = outcome(bench, [data])
    assert whole[0][0] == (404 if size <= 512 else 414)
    for place in range(size - 2, size + 4):
        assert outcome(bench, [data[:place], data[place:]]) == whole, place


@pytest.mark.parametrize("size", range(2040, 2056))
def test_the_longest_head_cut_at_its_end(bench: Bench, size: int) -> None:
    start = b"GET /a.txt HTTP/1.1\r\nHost: x\r\nX: "
    data = start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"
    whole = outcome(bench, [data])
    assert whole[0][0] == (200 if size <= 2048 else 431)
    for place in range(size - 6, size):
        assert outcome(bench, [data[:place], data[place:]]) == whole, place


def test_bytes_after_the_last_reply_do_not_destroy_it(bench: Bench) -> None:
    client, _ = bench.connect()
    with client:
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /more")
        bench.settle()
        client.send(b"x" * 1000)
        bench.settle()
        client.shutdown(socket.SHUT_WR)
        got = replies(bench.receive_all(client))
    assert [status for status, _, _ in got] == [200]
    assert got[0][2] == b"a text\n"
