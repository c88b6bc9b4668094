"""Descriptors run out, or would: newcomers wait, those who are served go on, and nothing fails."""

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import head, plant, stream

LIMITED = (
    "-c",
    "import resource, runpy, sys; n = int(sys.argv.pop()); resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)); "
    "sys.argv[1:] = ['serve', '-c', sys.argv[1]]; runpy.run_module('flashpy', run_name='__main__')",
)
"""A program that lowers its limit of descriptors to its last argument and then serves."""

SIZE = 12_000_000
"""More than the kernel keeps for a client who does not read."""


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def leave_free(server: Server, count: int, helpers: int = 2) -> None:
    """Let the only worker open no more than so many descriptors beyond those that it has.

    A client who has left may still have one there, so whoever calls this has closed none.
    """
    wait_until(lambda: len(server.named("flashpy-helper")) >= helpers, "all helpers")
    (pid,) = server.workers()
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    limit = highest + 1 + count - _holes(pid, highest)
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(limit, highest + 1), hard))


def _holes(pid: int, highest: int) -> int:
    return highest + 1 - open_descriptors(pid)


def is_waiting(client: Client) -> bool:
    client.socket.settimeout(0.1)
    try:
        return client.socket.recv(1, socket.MSG_PEEK) == b"never"
    except TimeoutError:
        return True
    finally:
        client.socket.settimeout(30)


def test_too_few_for_the_connections_is_refused_in_words(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[limits]\nconnections = 400\n", root=docroot, program=LIMITED, args=["400"], wait=False)
    server.expected_status = 1
    server.expect_error("connections")
    assert server.wait() == 1
    assert "[limits] connections = 400 needs " in server.stderr
    assert "descriptors in each worker, and the hard limit is 400 (ulimit -Hn)" in server.stderr
    assert server.stdout == ""


def test_just_enough_for_the_connections(start_server: StartServer, docroot: Path) -> None:
    """What the check at the start lets pass is enough: all connections, while all helpers work."""
    config = "[limits]\nconnections = 100\n[helpers]\nmin = 8\nmax = 16\n"
    names = plant(docroot, {f"{number}.bin": 300_000 for number in range(100)})
    server = start_server(config, root=docroot, program=LIMITED, args=["173"])
    with ExitStack() as stack:
        clients = {name: stack.enter_context(server.connect()) for name in names}
        for name, client in clients.items():
            client.send(head(f"/{name}"))
        for name, client in clients.items():
            assert client.read_reply().body == names[name]
    server.stop()
    counters = server.counters()
    assert (counters["requests"], counters["status_2xx"], counters["connections_accepted"]) == (100, 100, 100)
    assert not [line for line in server.log_lines() if "cannot accept" in line]


def test_the_soft_limit_is_raised(start_server: StartServer, docroot: Path) -> None:
    program = ("-c", LIMITED[1].replace("(n, n)", "(64, n)"))
    server = start_server("[limits]\nconnections = 300\n", root=docroot, program=program, args=["600"])
    (pid,) = server.workers()
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (600, 600)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(200)]
        assert all(client.request("/a.txt").status == 200 for client in clients)


def test_newcomers_wait_and_those_who_are_served_go_on(start_server: StartServer, docroot: Path) -> None:
    plant(docroot, {f"{number}.bin": SIZE for number in range(5)})
    server = start_server("[helpers]\nmin = 2\nmax = 2\n", root=docroot)
    with ExitStack() as stack:
        first = stack.enter_context(server.connect())
        assert first.request("/a.txt").status == 200
        leave_free(server, 3)
        served = [first, *(stack.enter_context(server.connect()) for _ in range(3))]
        for client in served:
            assert client.request("/a.txt").status == 200
        for number, client in enumerate(served):  # busy, so none of them can make room
            client.send(head(f"/{number}.bin"))
        waiting = [stack.enter_context(server.connect()) for _ in range(3)]
        for client in waiting:
            client.send(head("/a.txt"))
        server.wait_log("cannot accept: Too many open files; newcomers wait")
        assert is_waiting(waiting[0])
        for number, client in enumerate(served):
            assert client.read_reply().body == stream(f"{number}.bin", SIZE)
            assert client.request(f"/{number + 1}.bin").body == stream(f"{number + 1}.bin", SIZE)
        for client in served[:3]:
            client.socket.close()
        for client in waiting:
            assert client.read_reply().status == 200
        assert served[3].request("/a.txt").status == 200
    server.stop()
    assert server.counters()["status_5xx"] == 0


def test_an_idle_connection_makes_room_for_a_newcomer(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[helpers]\nmin = 2\nmax = 2\n", root=docroot)
    with ExitStack() as stack:
        one = stack.enter_context(server.connect())
        assert one.request("/a.txt").status == 200
        leave_free(server, 1)
        two, newcomer = stack.enter_context(server.connect()), stack.enter_context(server.connect())
        assert two.request("/a.txt").status == 200
        assert newcomer.request("/a.txt").status == 200  # after a second, when one of them is idle
        assert one.read_to_end() == b""
        assert two.request("/a.txt").status == 200


def test_a_miss_is_served_though_no_helper_can_be_hired(start_server: StartServer, docroot: Path) -> None:
    """More helpers need descriptors; the one that there is does the work."""
    names = plant(docroot, {f"{number}.bin": 200_000 for number in range(30)})
    server = start_server("[helpers]\nmin = 1\nmax = 8\n", root=docroot)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in names]
        for client in clients:
            assert client.request("/a.txt").status == 200
        leave_free(server, 0, helpers=1)
        for name, client in zip(names, clients, strict=True):
            client.send(head(f"/{name}"))
        for name, client in zip(names, clients, strict=True):
            reply = client.read_reply()
            assert (reply.status, reply.body) == (200, names[name])
    server.stop()
    assert server.counters()["errors"] == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_flood_that_sends_nothing(start_server: StartServer, docroot: Path, kind: str) -> None:
    listen = "127.0.0.1:0" if kind == "tcp" else f"unix:{docroot.parent}/s"
    config = f'[server]\nlisten = ["{listen}"]\n[limits]\nheader_timeout = 0.5\n[helpers]\nmin = 2\nmax = 2\n'
    server = start_server(config, root=docroot)
    with server.connect() as old, ExitStack() as stack:
        assert old.request("/a.txt").status == 200
        leave_free(server, 10)
        mute = [stack.enter_context(server.connect()) for _ in range(25)]
        assert old.request("/a.txt").status == 200
        with server.connect() as newcomer:
            assert newcomer.request("/index.html").status == 200
        for client in mute:
            assert client.read_to_end() == b""
        (pid,) = server.workers()
        wait_until(lambda: open_descriptors(pid) < 30, "all descriptors of the flood closed")
    server.stop()
    assert server.counters()["timeouts"] >= 20
    assert server.counters()["status_4xx"] == 0
