"""Clients as a connection meets them: those that disappear, and those that get what they asked for."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashpy.config import Limits
from flashpy.states import CLOSED, LINGERING, READING, SENDING, WAITING
from tests.clients import COLD, HOT, LARGE, SIZE, in_state, make_root, open_bench, pause, reached, receive, reset
from tests.workbench import Bench, replies


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.fixture
def bench(root: Path) -> Iterator[Bench]:
    with open_bench(root) as bench:
        yield bench


# Peers


def test_a_half_closed_client_that_waits_gets_its_reply_and_costs_nothing(bench: Bench) -> None:
    client, connection = in_state(bench, WAITING, tcp=True)
    with client:
        client.shutdown(socket.SHUT_WR)
        for _ in range(3):
            bench.turn(0.0)
        turned: list[int] = []
        bench.loop.every_turn(lambda: turned.append(1))
        bench.turn(0.05)
        assert len(turned) == 1, "the loop spins"
        assert connection.state == WAITING
        pause(bench, signal.SIGCONT)
        assert [status for status, _, _ in replies(bench.receive_all(client))] == [404]
    reached(bench, connection, CLOSED)


@pytest.mark.parametrize("state", [READING, WAITING, SENDING, LINGERING])
def test_a_reset_is_no_error_in_any_state(bench: Bench, state: int) -> None:
    bench.exchange(HOT)
    bench.log_lines()
    client, connection = in_state(bench, state, tcp=True)
    reset(client)
    reached(bench, connection, CLOSED)
    bench.turn(0.0)
    lines = bench.log_lines()
    assert not [line for line in lines if "[error]" in line or "[warning]" in line]
    assert len([line for line in lines if line.startswith("A")]) == (0 if state == READING else 1)
    assert connection._fd not in bench.service.connections
    assert connection._fd not in bench.loop._handlers


@pytest.mark.parametrize(
    "request_bytes",
    [
        HOT,
        b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\n",
        LARGE,
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
    ],
)
def test_a_client_gone_before_its_reply_has_one_line_and_no_error(bench: Bench, request_bytes: bytes) -> None:
    bench.exchange(request_bytes.replace(b"Expect: 100-continue\r\n", b"") + b"hello" * (b"Length" in request_bytes))
    bench.log_lines()
    client, server = socket.socketpair()
    client.send(request_bytes)
    client.close()
    connection = bench.adopt(server)
    reached(bench, connection, CLOSED)
    bench.turn(0.0)
    lines = bench.log_lines()
    assert len([line for line in lines if line.startswith("A")]) == 1, lines
    assert not [line for line in lines if "[error]" in line]


# Requests


def test_pipelined_replies_keep_their_order_when_a_middle_one_waits(bench: Bench) -> None:
    data = bench.exchange(HOT + COLD % 3 + HOT + LARGE + HOT)
    assert [status for status, _, _ in replies(data)] == [200, 404, 200, 200, 200]


def test_the_memo_is_asked_and_answers_the_same(bench: Bench) -> None:
    seen = []
    client, _ = bench.connect()
    with client:
        for _ in range(6):
            client.send(HOT)
            bench.settle()
            ((status, fields, content),) = replies(bench.receive(client))
            del fields[b"date"]  # a second may have passed
            seen.append((status, fields, content))
    assert all(one == seen[0] for one in seen)
    assert bench.service.counts.memo_hits > 0
    assert len([line for line in bench.log_lines() if '"GET /a.txt HTTP/1.1" 200 7 ' in line]) == 7


def test_the_memo_forgets_a_file_that_changed(bench: Bench, root: Path) -> None:
    client, _ = bench.connect()
    with client:
        for _ in range(4):
            client.send(HOT)
            bench.settle()
        bench.receive(client)
        (root / "a.txt").write_bytes(b"new\n")
        bench.pathnames.drop((0, b"a.txt"))
        client.send(HOT)
        assert replies(receive(bench, client, 1))[0][2] == b"new\n"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_connections_last_reply_says_so_and_another_connection_is_not_told(root: Path, limit: int) -> None:
    bench = Bench(root, limits=Limits(keepalive_requests=limit))
    bench.ready()
    for _ in range(6):
        got = replies(bench.exchange(*[HOT] * (limit + 2)))
        assert len(got) == limit
        assert [fields.get(b"connection") for _, fields, _ in got] == [None] * (limit - 1) + [b"close"]
    bench.close()


def test_a_bug_costs_a_500_and_the_connection(bench: Bench) -> None:
    client, connection = bench.connect()
    with client:
        client.send(HOT[:10])
        bench.settle()
        connection.fail(ValueError("bug"))
        assert [status for status, _, _ in replies(bench.receive_all(client))] == [500]
    errors = [line for line in bench.log_lines() if "[error]" in line]
    assert len(errors) == 1
    assert "ValueError: bug" in errors[0]


@pytest.mark.parametrize(
    "break_it", [lambda root: (root / "large.bin").write_bytes(b"x"), lambda root: (root / "large.bin").unlink()]
)
def test_a_file_that_changes_while_it_is_sent_cuts_the_reply_short(
    bench: Bench, root: Path, break_it: Callable[[Path], None]
) -> None:
    content = (root / "large.bin").read_bytes()
    client, connection = in_state(bench, SENDING)
    with client:
        break_it(root)
        data = bench.receive_all(client)
    body = data.partition(b"\r\n\r\n")[2]
    assert len(body) < SIZE
    assert content.startswith(body)
    assert connection.state == CLOSED
