"""Whatever is killed, the others serve on: helpers, a worker, the log helper, the spawner, the master."""

import contextlib
import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import Crowd, only
from tests.server import Client, Reply, Server, wait_until
from tests.versions import content, version_of
from tests.web import head, lines_of

SMALL_CACHE = """
[server]
workers = {workers}
[helpers]
max = 4
[cache]
chunk = "64KiB"
memory = "512KiB"
"""


def plant(root: Path, count: int, size: int) -> list[str]:
    """Files of one version each; their paths as a client asks for them."""
    root.mkdir()
    for number in range(count):
        name = f"{number}.bin"
        (root / name).write_bytes(content(name, 1, size))
    return [f"/{number}.bin" for number in range(count)]


def check(size: int, path: str, reply: Reply) -> None:
    """Every byte is the file's."""
    assert reply.status == 200, (path, reply)
    assert len(reply.body) == size, path
    assert version_of(path[1:], reply.body) == 1


def kill(pid: int) -> None:
    """Somebody else may have been quicker."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_helper_is_killed_every_200_ms_for_20_s(start_server: StartServer, tmp_path: Path) -> None:
    paths = plant(tmp_path / "many", 400, 20_000)
    server = start_server(SMALL_CACHE.format(workers=1), root=tmp_path / "many")
    choice = random.Random(7)
    killed: set[int] = set()

    def shoot() -> None:
        helpers = server.named("flashpy-helper")
        if helpers:
            killed.add(victim := choice.choice(helpers))
            kill(victim)
        crowd.later(0.2, shoot)

    crowd = Crowd(lambda path, reply: check(20_000, path, reply))
    for keep in (True, True, True, True, False, False):
        crowd.add(server.address, lambda: choice.choice(paths), keep=keep)
    shoot()
    crowd.run(20)
    crowd.finish()
    assert len(killed) > 50
    assert server.stop() == 0
    counters = server.counters()
    assert counters["helper_deaths"] > 0, "none was killed in the middle of a job"
    assert counters["helper_jobs"] > 2000
    assert counters["status_5xx"] == 0
    assert counters["requests"] == crowd.replies


def on_each_worker(server: Server) -> dict[int, Client]:
    """A keep-alive connection to each worker, by the worker's pid; one request was made on each."""
    found: dict[int, Client] = {}
    for pid in server.workers():
        with only(server, pid):
            found[pid] = server.connect()
            assert found[pid].request("/0.bin").status == 200
    return found


def test_a_worker_is_killed(start_server: StartServer, tmp_path: Path) -> None:
    paths = plant(tmp_path / "many", 20, 5000)
    server = start_server(SMALL_CACHE.format(workers=2), root=tmp_path / "many")
    clients = on_each_worker(server)
    for client in clients.values():
        for path in paths:
            check(5000, path, client.request(path))
    before = len(lines_of(server, 2 + 2 * len(paths)))  # what is logged is on the scoreboard too
    server.expect_error("killed by SIGKILL")
    victim, survivor = sorted(clients)
    kill(victim)
    for path in paths * 5:
        check(5000, path, clients[survivor].request(path))
    with clients.pop(victim) as gone:
        assert gone.socket.recv(1) == b""
    wait_until(lambda: len(server.workers()) == 2 and victim not in server.workers(), "another worker")
    fresh = on_each_worker(server)
    for client in (*fresh.values(), *clients.values()):
        check(5000, "/1.bin", client.request("/1.bin"))
        client.socket.close()
    assert server.stop() == 0
    counters = server.counters()
    assert counters["restarts"] == 1
    assert counters["requests"] == len(server.access.read_text().splitlines())
    assert counters["requests"] >= before + 5 * len(paths) + 5


def test_the_log_helper_is_killed(start_server: StartServer, tmp_path: Path) -> None:
    plant(tmp_path / "many", 1, 5000)
    server = start_server(SMALL_CACHE.format(workers=2), root=tmp_path / "many")
    clients = on_each_worker(server)
    first = len(lines_of(server, 2))
    server.expect_error("the log helper")
    (former,) = wait_until(lambda: server.named("flashpy-log"))
    kill(former)
    wait_until(lambda: former not in server.tree(), "the log helper's end")
    for number in range(50):
        for client in clients.values():
            assert client.request(f"/0.bin?{number}").status == 200
    server.wait_log("the log helper")
    assert former not in wait_until(lambda: server.named("flashpy-log"), "another log helper")
    lines = lines_of(server, first + 100)[first:]
    for number in range(50):
        assert sum(f"/0.bin?{number} " in line for line in lines) == 2
    assert server.get("/0.bin?last").status == 200
    assert "/0.bin?last" in lines_of(server, first + 101)[-1]
    for client in clients.values():
        client.socket.close()


def test_the_spawner_and_all_helpers_are_killed(start_server: StartServer, tmp_path: Path) -> None:
    paths = plant(tmp_path / "many", 60, 20_000)
    server = start_server(SMALL_CACHE.format(workers=2), root=tmp_path / "many")
    former = [*server.named("flashpy-spawner"), *server.named("flashpy-helper")]
    server.expect_error("the spawner")
    choice = random.Random(1)
    crowd = Crowd(lambda path, reply: check(20_000, path, reply))
    for _ in range(4):
        crowd.add(server.address, lambda: choice.choice(paths))
    crowd.run(0.3)
    for pid in former:
        kill(pid)
    crowd.run(1)
    crowd.run(10, lambda: server.named("flashpy-spawner") and len(server.named("flashpy-helper")) >= 4)
    served = crowd.replies
    crowd.run(10, lambda: crowd.replies > served + 500)
    crowd.finish()
    assert crowd.replies > served + 400
    assert not set(former) & set(server.tree())
    assert server.stop() == 0
    assert server.counters()["status_5xx"] == 0
    assert server.counters()["spawner_restarts"] == 1


def test_the_master_is_killed(start_server: StartServer, tmp_path: Path) -> None:
    """Who is served is served to the end, and then nothing is left."""
    plant(tmp_path / "many", 1, 5000)
    large = content("large.bin", 1, 20_000_000)
    (tmp_path / "many" / "large.bin").write_bytes(large)
    server = start_server(SMALL_CACHE.format(workers=2), root=tmp_path / "many")
    loading, asking, idle = server.connect(), server.connect(), server.connect()
    loading.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    loading.send(head("/large.bin"))
    start = loading.socket.recv(50_000)
    asking.send(b"GET /0.bin HTTP/1.1\r\n")
    assert idle.request("/0.bin").status == 200
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    asking.send(b"Host: localhost\r\n\r\n")
    reply = asking.read_reply()
    check(5000, "/0.bin", reply)
    loading.pending = start
    assert loading.read_reply().body == large
    assert idle.socket.recv(1) == b""
    for client in (loading, asking, idle):
        client.socket.close()
    begin = time.monotonic()
    wait_until(lambda: not server.tree(), f"processes left: {server.tree()}", 10)
    assert time.monotonic() - begin < 5
