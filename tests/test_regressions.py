"""Faults that were found by trying to break the server: each test failed before its fault was mended."""

import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from flashpy.cache.chunks import Chunks
from flashpy.cache.memo import Memo
from flashpy.cache.pathnames import Entry
from flashpy.content import Content, made_key
from flashpy.http import framing
from flashpy.http.request import RequestParser
from flashpy.http.response import CLOSE, KEEP, Reply
from flashpy.outgoing import BLOCKED, DONE, FULL, Outgoing
from flashpy.states import SENDING
from flashpy.tasks import Waiter
from flashpy_helpers.wire import BR, Identity
from tests.conftest import StartServer
from tests.workbench import Bench

TOP = 65536
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    try:
        bench.ready()
        yield bench
    finally:
        bench.close()


class SlowPool:
    """Takes jobs and does none."""

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []

    def want(self, _job: Any, resume: Callable[[Any], None], *, must: bool) -> Waiter:
        assert must
        self.waiters.append(Waiter(resume, 0.0))
        return self.waiters[-1]


class Pipe:
    """A socket that takes `room` bytes."""

    def __init__(self) -> None:
        self.room = 0
        self.got = b""

    def send(self, views: Sequence[memoryview], _ancillary: object, _flags: int) -> int:
        data = b"".join(views)[: self.room]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.got += data
        return len(data)


def test_r01_a_chunk_loaded_ahead_is_not_sent_in_place_of_one_that_was_given_back() -> None:
    """Memory ran short while the next chunk was under way: what is left of this one has to come first."""
    chunks = Chunks(memoryview(bytearray(8 * TOP)), TOP)
    identity = Identity(1, 2, 2 * TOP, 3, 4)
    pieces = [b"a" * TOP, b"b" * TOP]

    def load(number: int) -> Any:
        offset = chunks.reserve(TOP)
        assert offset is not None
        chunks.memory[offset : offset + TOP] = pieces[number]
        return chunks.commit((identity, number), offset, TOP)

    chunks.unpin(load(0))
    pool, pipe = SlowPool(), Pipe()
    entry = Entry((0, b"f"), b"f", identity)
    outgoing = Outgoing(chunks, Content(chunks, "seed"), pool, entry)  # type: ignore[arg-type]
    outgoing.add(b"head")
    outgoing.follow(((0, 2 * TOP),))
    outcomes = []

    def pump() -> None:
        outcomes.append(outgoing.pump(pipe.send, pump))

    pipe.room = 1004
    pump()
    assert outcomes == [FULL]  # the second chunk is on its way
    blocks = [chunks.reserve(TOP) for _ in range(6)]
    pump()  # memory is short: the first chunk is given back
    for block in blocks:
        assert block is not None
        chunks.abandon(block)
    pipe.room = 1 << 20
    pump()
    while outcomes[-1] in (FULL, BLOCKED) and any(waiter.resume for waiter in pool.waiters):
        waiter = next(waiter for waiter in pool.waiters if waiter.resume)
        resume, waiter.resume = waiter.resume, None
        assert resume is not None
        chunk = chunks.get((identity, 1)) or load(1)
        resume(chunk)
    while outcomes[-1] == FULL:
        pump()
    assert outcomes[-1] == DONE
    assert pipe.got == b"head" + b"".join(pieces)


def test_r02_a_reply_that_was_decided_anew_has_one_line_in_the_log(bench: Bench, tmp_path: Path) -> None:
    """The file was changed and evicted before the first byte of its reply: the small one that took its place is
    sent the short way, and nothing of the first reply is left to be logged when the client goes."""
    file, other = tmp_path / "f", tmp_path / "g"
    file.write_bytes(b"x" * 100_000)
    time.sleep(0.03)
    client, _ = bench.connect()
    with client:
        got = b""
        client.send(GET % (b"f", b""))

        def received(count: int) -> bool:
            nonlocal got
            got += bench.receive(client)
            return len(got.partition(b"\r\n\r\n")[2]) >= count

        bench.until(lambda: received(100_000))
        bench.until(lambda: len(bench.log_lines()) >= 1)
        for key in list(bench.chunks._chunks):
            bench.chunks.forget(key)
        other.write_bytes(b"small")
        other.rename(file)
        got = b""
        client.send(GET % (b"f", b""))
        bench.until(lambda: received(5))
        assert got.endswith(b"\r\n\r\nsmall")
    bench.until(lambda: not bench.service.connections)
    lines = [line for line in bench.log_lines() if line.startswith("A")]
    assert len(lines) == 1, lines
    assert '"GET /f HTTP/1.1" 200 5 ' in lines[0]


def test_r03_a_hot_reply_is_joined_once_a_second(bench: Bench) -> None:
    """For each kind of last fields, and not again for each client."""
    service = bench.service
    reply = Reply(200, b"head", b"x" * 10_000)
    for _ in range(40):
        service.warm(reply, KEEP)
        service.warm(reply, CLOSE)
    assert len(service._joined) == 2
    assert reply.whole == (b"head" + service.tails[KEEP] + reply.body, b"", b"head" + service.tails[CLOSE] + reply.body)
    service.read_clock()
    assert reply.whole == (b"", b"", b"")


def test_r04_long_lines_are_not_remembered_by_the_thousand() -> None:
    """Field lines of 30 KB, all different: what the parser holds of them stays bounded."""
    parser = RequestParser(8192, 100)
    tracemalloc.start()
    try:
        for number in range(300):
            agent = b"User-Agent: %d" % number + b"\xff" * 30_000
            parser.parse([b"GET / HTTP/1.1", b"Host: a", agent, b"", b""])
        assert tracemalloc.get_traced_memory()[0] < 30 << 20
    finally:
        tracemalloc.stop()


def test_r05_a_head_that_comes_byte_by_byte_costs_little_for_each() -> None:
    """The search for a bare LF took half a millisecond of a head of 32 KB, and it is made for every byte."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 32_000
    costs = []
    for _ in range(20):
        begin = time.perf_counter()
        framing.check_partial(head, 8192, 65536)
        costs.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    for _ in range(20):
        head.count(b"\r\n")
    assert min(costs) < 10 * (time.perf_counter() - begin) / 20


def test_r06_a_full_memo_leaves_no_keys_with_the_entries() -> None:
    """Keys of a memo that was emptied stayed with their entries: memory that nobody counted."""
    memo: Memo[bytes, Any] = Memo(limit=16)
    entries = [Entry((0, b"%d" % number), b"", None) for number in range(10)]
    for number in range(10_000):
        entry = entries[number % 10]
        memo.put(b"%d" % number, ("reply",), entry, 100)
    assert sum(len(entry.memos) for entry in entries) <= 2 * 16


def test_r07_long_hosts_are_not_remembered(bench: Bench) -> None:
    sites = bench.service.sites
    for number in range(100):
        sites.choose(b"%d." % number + b"a" * 20_000)
    assert sum(map(len, sites._remembered)) < 100_000


def test_r08_a_remembered_reply_that_does_not_fit_is_that_of_its_own_request(bench: Bench, tmp_path: Path) -> None:
    """What was asked before it on the connection must not be remembered with its reply, should it be decided anew."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(bytes(60_000))
    for _ in range(4):
        bench.exchange(GET % (b"b", b""))
    client, connection = bench.connect()
    with client:
        for _ in range(3):
            client.sendall(GET % (b"a", b"Range: bytes=0-0\r\n"))
            bench.until(lambda: bench.receive(client))
        assert connection._gist[0].target == b"/a"  # type: ignore[union-attr]
        for _ in range(1000):
            if connection.state == SENDING:
                break
            client.sendall(GET % (b"b", b""))
            bench.turn()
        assert connection.state == SENDING
        assert connection._request is not None
        assert connection._request.line.target == b"/b"
        assert connection._gist[0].target == b"/b"  # type: ignore[union-attr]


def test_r09_the_clock_goes_on(start_server: StartServer, docroot: Path) -> None:
    """Both when a worker has nothing to do and when it is never without something to count."""
    server = start_server(root=docroot)
    with server.connect() as client:
        time.sleep(3.5)  # that nothing happens is what is tested
        assert _age(client.request("/a.txt")) < 2.5
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            assert _age(client.request("/nothing")) < 2.5
            time.sleep(0.003)  # a request in every hundredth of a second


def _age(reply: Any) -> float:
    return time.time() - parsedate_to_datetime(reply.headers["date"]).timestamp()


def test_r10_what_was_made_is_found_again_when_a_slow_client_goes_on() -> None:
    """Memory ran short while its client took nothing, so its chunk was given back: it lies in no file."""
    chunks = Chunks(memoryview(bytearray(8 * TOP)), TOP)
    version = Identity(1, 2, 90_000, 3, 4)
    entry = Entry((0, b"a.js"), b"a.js", version)
    offset = chunks.reserve(TOP)
    assert offset is not None
    chunks.memory[offset : offset + 60_000] = b"abc" * 20_000
    chunk = chunks.commit(made_key(version, BR), offset, 60_000)
    variant = entry.add_variant(BR, b"a.js", version._replace(size=60_000), None)
    variant.attach(chunk)
    chunks.unpin(chunk)
    pool, pipe = SlowPool(), Pipe()
    outgoing = Outgoing(chunks, Content(chunks, "seed"), pool, variant)  # type: ignore[arg-type]
    assert chunk.view is not None
    outgoing.add(b"head", chunk.view)
    outgoing.hold(chunk, 60_000)
    pipe.room = 1004
    assert outgoing.pump(pipe.send, lambda: None) == FULL
    blocks = [chunks.reserve(TOP) for _ in range(6)]
    assert outgoing.pump(pipe.send, lambda: None) == FULL
    assert chunk.pins == 0, "memory is short"
    for block in blocks:
        assert block is not None
        chunks.abandon(block)
    pipe.room = 1 << 20
    assert outgoing.pump(pipe.send, lambda: None) == DONE
    assert pipe.got == b"head" + b"abc" * 20_000
    assert pool.waiters == []
    outgoing.close()
    assert chunks.pinned == 0
