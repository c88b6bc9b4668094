"""The state machine of one client: every transition of its table, full sockets, every limit of time."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flashpy.states import CLOSED, LINGERING, READING, SENDING, TRANSITIONS, WAITING
from tests.clients import COLD, HOT, LARGE, SIZE, TAKEN, Watched, in_state, make_root, open_bench, reached, receive
from tests.workbench import Bench, replies


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.fixture
def bench(root: Path) -> Iterator[Bench]:
    with open_bench(root) as bench:
        yield bench


# The table


def test_reading_to_reading_waiting_and_sending(bench: Bench) -> None:
    client, connection = bench.connect(Watched)
    with client:
        client.send(COLD % 1)
        reached(bench, connection, WAITING)
        reached(bench, connection, READING)
        bench.receive(client)
        client.send(LARGE)
        reached(bench, connection, SENDING)


def test_waiting_for_a_chunk_again_and_again(bench: Bench) -> None:
    """A client that reads as fast as it can waits for the disk only."""
    client, connection = bench.connect(Watched)
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for _ in range(3):
            client.send(LARGE)
            receive(bench, client, SIZE + 1)
            for key in [key for key in bench.chunks._chunks if bench.chunks.get(key).pins == 0]:  # type: ignore[union-attr]
                bench.chunks.forget(key)
        reached(bench, connection, READING)


def test_waiting_to_lingering(bench: Bench) -> None:
    """The last reply comes from a helper, and bytes that nobody reads stand behind it."""
    client, connection = bench.connect(Watched)
    with client:
        client.send((COLD % 2).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"more")
        reached(bench, connection, LINGERING)
        assert [status for status, _, _ in replies(bench.receive(client))] == [404]
        client.close()
        reached(bench, connection, CLOSED)


@pytest.mark.parametrize("after", [b"", b"more"])
def test_sending_to_the_end(bench: Bench, after: bytes) -> None:
    client, connection = in_state(bench, SENDING)
    connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    with client:
        head = LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        client.send(head + after)
        got = replies(bench.receive_all(client))
        assert [len(content) for _, _, content in got] == [SIZE, SIZE]
        assert connection.state == LINGERING
        client.close()
        reached(bench, connection, CLOSED)


@pytest.mark.parametrize("target", [b"/large", b"/none"])
def test_what_is_sent_after_the_last_request_does_not_reset_its_reply(bench: Bench, root: Path, target: bytes) -> None:
    """It breaks RFC 9112 (section 9.6), and comes while the reply is sent, or waits for a helper."""
    (root / "large").write_bytes(b"x" * SIZE)
    client, connection = bench.connect(Watched)
    with client:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
        bench.until(lambda: connection.state in (SENDING, WAITING))
        client.send(COLD % 1)
        ((status, _, content),) = replies(bench.receive_all(client))
        assert (status, len(content) == SIZE) == ((200, True) if target == b"/large" else (404, False))
        assert connection.state == LINGERING


def test_a_large_reply_from_waiting_to_its_end_in_one_step(bench: Bench, root: Path) -> None:
    """Two chunks and a socket that takes both: the reply ends while its connection waits for the second."""
    (root / "two").write_bytes(b"x" * 66_000)
    for after in (b"", b"Connection: close\r\n"):
        client, connection = bench.connect(Watched)
        with client:
            head = b"GET /two HTTP/1.1\r\nHost: x\r\n%b\r\n" % after
            client.send(head + (b"more" if after else b""))
            receive(bench, client, 66_001)
            reached(bench, connection, LINGERING if after else READING)
        for key in list(bench.chunks._chunks):
            bench.chunks.forget(key)


def test_every_transition_of_the_table_is_taken_and_no_other(root: Path) -> None:
    TAKEN.clear()
    for walk in (
        test_reading_to_reading_waiting_and_sending,
        test_waiting_for_a_chunk_again_and_again,
        test_waiting_to_lingering,
        lambda bench: test_sending_to_the_end(bench, b""),
        lambda bench: test_sending_to_the_end(bench, b"more"),
        lambda bench: test_a_large_reply_from_waiting_to_its_end_in_one_step(bench, root),
        lambda bench: test_a_stalled_reader_does_not_lose_a_chunk(bench, root),
        test_errors_linger,
        lambda bench: test_the_rest_of_a_last_reply(bench, root),
    ):
        with open_bench(root) as bench:
            walk(bench)
    taken = {pair for pair in TAKEN if CLOSED not in pair}
    assert taken == TRANSITIONS


def test_the_rest_of_a_last_reply(bench: Bench, root: Path) -> None:
    (root / "middle").write_bytes(b"x" * 60_000)
    client, connection = bench.connect(Watched)
    with client:
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send(b"GET /middle HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nmore")
        reached(bench, connection, SENDING)
        assert len(replies(bench.receive_all(client))[0][2]) == 60_000
        assert connection.state == LINGERING


def test_errors_linger(bench: Bench) -> None:
    client, connection = in_state(bench, LINGERING)
    with client:
        client.send(b"x" * 1000)
        bench.settle()
        assert connection.state == LINGERING
        client.shutdown(socket.SHUT_WR)
        reached(bench, connection, CLOSED)
        assert [status for status, _, _ in replies(bench.receive(client))] == [400]


# Full sockets


def test_a_stalled_reader_does_not_lose_a_chunk(bench: Bench, root: Path) -> None:
    """Pipelined requests until the socket is full, then a large one: each byte as it should be."""
    client, connection = bench.connect(Watched)
    with client:
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send(HOT * 100 + LARGE + LARGE + HOT)
        for _ in range(50):
            bench.turn(0.0)
        client.shutdown(socket.SHUT_WR)
        got = replies(bench.receive_all(client))
    assert len(got) == 103
    assert [len(content) for _, _, content in got[100:]] == [SIZE, SIZE, 7]
    same = got[100][2] == (root / "large.bin").read_bytes()
    assert same  # too long to be shown


@pytest.mark.parametrize("count", range(1, 40, 3))
def test_a_reply_that_begins_when_the_socket_is_full_keeps_its_chunk(bench: Bench, root: Path, count: int) -> None:
    """Memory is taken from whatever is not pinned meanwhile."""
    client, connection = bench.connect(Watched)
    with client:
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send(HOT * count + LARGE)
        got = bytearray()
        for _ in range(30):
            bench.turn(0.0)
            held = []
            while (offset := bench.chunks.reserve(65536)) is not None:
                bench.memory[offset : offset + 65536] = b"!" * 65536
                held.append(offset)
            for offset in held:
                bench.chunks.abandon(offset)
            with suppress(BlockingIOError):
                got += client.recv(2500)
        client.shutdown(socket.SHUT_WR)
        got += bench.receive_all(client)
    wrong = replies(bytes(got))[-1][2] != (root / "large.bin").read_bytes()
    assert not wrong  # too long to be shown


# Time


def test_limits_of_time(bench: Bench) -> None:
    limits = bench.service.limits
    client, connection = bench.connect()
    now = bench.loop.now
    with client:
        assert connection.patience() == limits.header_timeout
        client.send(HOT)
        bench.settle()
        assert connection.patience() == limits.idle_timeout
        connection.check_time(now + limits.idle_timeout - 1)
        assert connection.state == READING
        connection.check_time(bench.loop.now + limits.idle_timeout + 1)
        assert connection.state == CLOSED
    assert bench.service.counts.timeouts == 1


@pytest.mark.parametrize(
    "start", [b"GET", HOT[:-2], HOT[:-4] + b"\r\nContent-Length: 5\r\n\r\n12"], ids=["line", "head", "body"]
)
def test_a_request_that_never_ends_is_408(bench: Bench, start: bytes) -> None:
    client, connection = bench.connect()
    with client:
        client.send(start)
        bench.settle()
        for later in range(1, 200):
            if connection.state == READING:
                client.send(b"1" if b"Length" not in start else b"")  # trickling does not stretch it
                connection.check_time(connection._since + later)
        assert connection.state == LINGERING
        assert [status for status, _, _ in replies(bench.receive(client))] == [408]
    bench.until(lambda: not bench.service.connections)
    lines = [line for line in bench.log_lines() if line.startswith("Atest")]
    assert len([line for line in lines if " 408 " in line]) == 1


@pytest.mark.parametrize(("state", "limit"), [(SENDING, 60.0), (LINGERING, 5.0)])
def test_no_progress_is_the_end(bench: Bench, state: int, limit: float) -> None:
    client, connection = in_state(bench, state)
    with client:
        connection.check_time(connection._since + limit - 0.1)
        assert connection.state == state
        connection.check_time(connection._since + limit + 0.1)
        assert connection.state == CLOSED


def test_waiting_has_no_limit_here_but_the_pools(bench: Bench) -> None:
    client, connection = in_state(bench, WAITING)
    with client:
        connection.check_time(bench.loop.now + 1000)
        assert connection.state == WAITING
        bench.loop.now += bench.pool._timeout + 1
        bench.pool.tick()
        assert [status for status, _, _ in replies(bench.receive(client))] == [504]


def test_lingering_ends_after_so_many_bytes(bench: Bench) -> None:
    client, connection = in_state(bench, LINGERING)
    with client:

        def flooded() -> bool:
            with suppress(BlockingIOError, BrokenPipeError):
                client.send(b"x" * 65536)
            return connection.state == CLOSED

        bench.until(flooded)


def test_draining_says_goodbye_to_the_idle(bench: Bench) -> None:
    client, connection = bench.connect()
    with client:
        client.send(HOT)
        bench.settle()
        bench.service.drain()
        connection.check_time(bench.loop.now + 0.5)
        assert connection.state == READING
        connection.check_time(bench.loop.now + 1.5)
        assert connection.state == LINGERING
        assert bench.receive_all(client).count(b"HTTP/1.1 200") == 1
