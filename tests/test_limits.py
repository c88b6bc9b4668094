"""What a client, or all of them together, may take: limits of time, of connections and of waiting jobs."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import CONFIG, head, is_open, lines_of, plant, serving, stream

LARGE = 30_000_000
TIMES = """
    [limits]
    header_timeout = 0.6
    idle_timeout = 1.2
    send_timeout = 1
"""
LATEST = 10.0
"""Seconds by which a limit must have struck; the sweep comes about once a second."""


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without patience."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "root").mkdir()
    plant(folder / "root", {"a.txt": 100, "large.bin": LARGE})
    with serving(folder, CONFIG.replace("8MiB", "64MiB") + TIMES, root=folder / "root") as server:
        yield server


def drip(client: Client, data: bytes) -> float:
    """Send byte by byte until the server has had enough of it; the seconds that it took."""
    begin = time.monotonic()
    for place in range(len(data)):
        if time.monotonic() - begin > LATEST or not _waits(client):
            break
        client.send(data[place : place + 1])
    return time.monotonic() - begin


def _waits(client: Client) -> bool:
    """Whether nothing has come within a moment."""
    client.socket.settimeout(0.02)
    try:
        return not client.socket.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.socket.settimeout(30)


@pytest.mark.parametrize("first", [b"", head("/a.txt")])
def test_a_head_that_drips_in_is_too_late(hasty: Server, first: bytes) -> None:
    with hasty.connect() as client:
        if first:
            client.send(first)
            assert client.read_reply().status == 200
        assert 0.5 < drip(client, b"GET /a.txt HTTP/1.1\r\nX: " + b"x" * 3000) < LATEST
        reply = client.read_reply()
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b""


@pytest.mark.parametrize("framing", ["Content-Length: 3000", "Transfer-Encoding: chunked"])
def test_a_body_that_drips_in_is_too_late(hasty: Server, framing: str) -> None:
    with hasty.connect() as client:
        client.send(head("/a.txt", framing))
        if "chunked" in framing:
            client.send(b"bb8\r\n")
        assert 0.5 < drip(client, b"x" * 3000) < LATEST
        assert client.read_reply().status == 408


@pytest.mark.parametrize("requests", [0, 1, 3])
def test_an_idle_connection_is_closed_without_a_word(hasty: Server, requests: int) -> None:
    with hasty.connect() as client:
        for _ in range(requests):
            assert client.request("/a.txt").status == 200
        begin = time.monotonic()
        assert client.read_to_end() == b""
        assert 0.3 < time.monotonic() - begin < LATEST


def test_a_client_that_takes_nothing_is_cut_off(hasty: Server) -> None:
    with hasty.connect() as client:
        client.send(head("/large.bin?stuck"))
        line = wait_until(lambda: [line for line in lines_of(hasty, 0) if "?stuck" in line], "its line", LATEST)
        status, sent = line[0].split('"')[2].split()
        assert status == "200"
        assert len(client.read_to_end()) < LARGE
        assert 0 < int(sent) < LARGE


def test_a_slow_client_that_takes_something_is_not(hasty: Server) -> None:
    """Progress is what counts, not the whole: this takes longer than send_timeout."""
    with hasty.connect() as client:
        client.send(head("/large.bin"))
        begin = time.monotonic()
        received = bytearray()
        while len(received) < LARGE and (data := client.socket.recv(LARGE // 150)):
            received += data
            time.sleep(0.01)  # being slow is what is tested
        assert time.monotonic() - begin > 1.2
        assert bytes(received).endswith(stream("large.bin", LARGE)[-1000:])
        assert bytes(received).partition(b"\r\n\r\n")[2] == stream("large.bin", LARGE)


def test_timeouts_are_counted(start_server: StartServer, docroot: Path) -> None:
    server = start_server(TIMES, root=docroot)
    with server.connect() as idle, server.connect() as late:
        assert idle.request("/a.txt").status == 200
        late.send(b"GET /")
        assert late.read_reply().status == 408
        assert idle.read_to_end() == b""
    server.stop()
    assert server.counters()["timeouts"] == 2
    assert len(lines_of(server, 2)) == server.counters()["requests"] == 2


# Connections


def test_the_connection_that_was_idle_longest_makes_room(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[limits]\nconnections = 3\n", root=docroot)
    with ExitStack() as stack:
        clients = []
        for _ in range(3):
            clients.append(stack.enter_context(server.connect()))
            assert clients[-1].request("/a.txt").status == 200
        assert clients[0].request("/a.txt").status == 200  # now the second is the one that is idle longest
        begin = time.monotonic()
        newcomer = stack.enter_context(server.connect())
        assert newcomer.request("/a.txt").status == 200
        assert time.monotonic() - begin < LATEST
        assert clients[1].read_to_end() == b""
        assert all(is_open(client) for client in (clients[0], clients[2], newcomer))
        assert clients[0].request("/a.txt").status == 200
    server.stop()
    assert server.counters()["connections_accepted"] == 4


def test_newcomers_wait_while_all_are_busy(start_server: StartServer, docroot: Path) -> None:
    (docroot / "endless.bin").write_bytes(bytes(LARGE))
    server = start_server("[limits]\nconnections = 2\n", root=docroot)
    with server.connect() as one, server.connect() as two:
        for client in (one, two):
            client.send(head("/endless.bin"))
            client.socket.recv(1)
        with server.connect() as newcomer:
            newcomer.send(head("/a.txt"))
            assert _waits(newcomer)
            assert _waits(newcomer)
            one.socket.close()
            assert newcomer.read_reply().status == 200
        assert two.socket.recv(1)


def test_a_flood_that_says_nothing_keeps_nobody_out_for_long(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[limits]\nconnections = 15\nheader_timeout = 0.3\n", root=docroot)
    with server.connect() as old, ExitStack() as stack:
        assert old.request("/a.txt").status == 200
        mute = [stack.enter_context(server.connect()) for _ in range(30)]
        begin = time.monotonic()
        assert old.request("/a.txt").status == 200  # those who are served go on
        assert server.get("/a.txt").status == 200  # behind all of the others in the queue
        assert time.monotonic() - begin < 3 * LATEST
        assert mute[0].read_to_end() == b""
    server.stop()
    assert server.counters()["connections_accepted"] >= 17


def test_slow_clients_get_their_own_bytes_from_a_small_cache(start_server: StartServer, tmp_path: Path) -> None:
    """Replies begin while the socket is full, and others want the memory of their chunks: it is not taken."""
    root = tmp_path / "many"
    names = plant(root, {f"{number}.bin": 66_000 + 9_000 * number for number in range(32)})
    config = f"""
        [server]
        listen = ["unix:{tmp_path}/s"]
        [cache]
        chunk = "64KiB"
        memory = "2304KiB"
        [helpers]
        min = 2
        max = 4
    """
    server = start_server(config, root=root)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        orders = [[f"{(number * 7 + step * step) % 32}.bin" for step in range(12)] for number in range(10)]
        for client, order in zip(clients, orders, strict=True):
            client.send(b"".join(head(f"/{name}") for name in order))
        left = {client: sum(len(names[name]) for name in order) for client, order in zip(clients, orders, strict=True)}
        while left:
            for client in list(left):
                if len(client.pending) < left[client]:
                    client.pending += client.socket.recv(16_384)
                else:
                    del left[client]
        for client, order in zip(clients, orders, strict=True):
            assert [client.read_reply().body == names[name] for name in order] == [True] * 12
    server.stop()
    assert server.counters()["evictions"] > 100
    assert server.counters()["requests"] == 120


# Jobs


def test_503_when_too_many_jobs_wait(start_server: StartServer, docroot: Path) -> None:
    plant(docroot, {f"{number}.bin": 100 for number in range(4)})
    server = start_server("[helpers]\nmin = 1\nmax = 2\nqueue = 2\n", root=docroot)
    assert server.get("/a.txt").status == 200
    spawner, helpers = server.named("flashpy-spawner"), server.named("flashpy-helper")
    assert (len(spawner), len(helpers)) == (1, 1)
    stopped = spawner + helpers
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(4)]
            for number, client in enumerate(clients):
                client.send(head(f"/{number}.bin"))
                joined = server.get("/a.txt")  # what is in memory is served all the same
                assert joined.status == 200
            reply = clients[3].read_reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            for number in range(3):
                assert clients[number].read_reply().body == stream(f"{number}.bin", 100)
            assert clients[3].request("/3.bin").body == stream("3.bin", 100)  # and its connection is still good
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    server.stop()
    counters = server.counters()
    assert (counters["queue_refused"], counters["status_5xx"]) == (1, 1)


def test_504_when_a_helper_takes_too_long(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[helpers]\nmin = 1\nmax = 2\ntimeout = 0.5\n", root=docroot)
    assert server.get("/a.txt").status == 200
    stopped = server.named("flashpy-spawner") + server.named("flashpy-helper")
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with server.connect() as client:
            assert client.request("/index.html").status == 504
            assert client.request("/a.txt").status == 200
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: server.get("/index.html").status == 200, "the file, with helpers that work again")
    server.stop()
    assert server.counters()["helpers_written_off"] == 1
    assert server.counters()["timeouts"] >= 1
