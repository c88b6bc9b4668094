"""Reloading under load: every request that was sent is answered, once, and has its one access line."""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import Crowd
from tests.server import Reply, wait_until
from tests.versions import content, version_of
from tests.web import head, is_open

SIZES = {"small.bin": 1000, "page.bin": 20_000, "large.bin": 300_000}
_TARGET = re.compile(r'"GET (\S+) HTTP/1\.1" 200 ')


def plant(root: Path) -> None:
    """The files that the clients ask for."""
    root.mkdir()
    for name, size in SIZES.items():
        (root / name).write_bytes(content(name, 1, size))


def check(path: str, reply: Reply) -> None:
    """A whole file."""
    name = path[1:].partition("?")[0]
    assert reply.status == 200, (path, reply)
    assert len(reply.body) == SIZES[name]
    assert version_of(name, reply.body) == 1


@pytest.mark.slow
def test_ten_reloads_in_20_s(start_server: StartServer, tmp_path: Path) -> None:
    plant(tmp_path / "files")
    config = f"""
        [server]
        listen = ["127.0.0.1:0", "unix:{tmp_path}/socket"]
        workers = 2
        [cache]
        chunk = "64KiB"
        memory = "4MiB"
    """
    server = start_server(config, root=tmp_path / "files")
    former = server.workers()
    asked: Counter[str] = Counter()
    crowd = Crowd(check)

    def client(same: str | None) -> Callable[[], str]:
        """What a client asks for: always the same (it comes from the memo), or never the same twice."""
        numbers = count(len(crowd.visitors) * 1_000_000)

        def choose() -> str:
            number = next(numbers)
            path = same or f"/{list(SIZES)[number % 3]}?{number}"
            asked[path] += 1
            return path

        return choose

    for address in server.addresses:
        for keep in (True, False):
            crowd.add(address, client("/small.bin"), keep=keep)
            crowd.add(address, client("/page.bin?a"), keep=keep, pause=0.01)
            crowd.add(address, client(None), keep=keep, pause=0.002)
            crowd.add(address, client(None), keep=keep, pause=0.3)
        crowd.add(address, client(None), pause=1.7)  # idle for longer than a worker waits when it goes

    begin = time.monotonic()
    for number in range(10):
        server.signal(signal.SIGHUP)
        crowd.run(20, partial(has_reloaded, server.log, number + 1))
        crowd.run(begin + 2 * (number + 1) - time.monotonic())
    crowd.finish()
    assert not set(former) & set(wait_until(lambda: len(server.workers()) == 2 and server.workers()))
    assert server.stop() == 0
    counters = server.counters()
    assert counters["reloads"] == 10
    assert counters["requests"] == crowd.replies == sum(asked.values())
    logged = Counter(_TARGET.findall(server.access.read_text()))
    assert logged == asked
    assert crowd.replies > 2000


def has_reloaded(log: Path, times: int) -> bool:
    """Whether so many reloads have come to their end."""
    return log.read_text().count("[info] reloaded:") >= times


def test_a_request_on_its_way_to_a_worker_that_goes(start_server: StartServer, tmp_path: Path) -> None:
    """A connection that was idle for long has its second too: its request may have been sent already."""
    plant(tmp_path / "files")
    server = start_server(root=tmp_path / "files")
    with server.connect() as late, server.connect() as silent:
        for client in (late, silent):
            check("/small.bin", client.request("/small.bin"))
        rest_until_idle = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > rest_until_idle)
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 0.5)
        assert is_open(late)
        late.send(head("/page.bin"))
        reply = late.read_reply()
        check("/page.bin", reply)
        assert reply.headers["connection"] == "close"
        assert silent.socket.recv(1) == b""
        assert 0.6 < time.monotonic() - begin < 5


def test_a_reload_during_a_large_reply(start_server: StartServer, tmp_path: Path) -> None:
    plant(tmp_path / "files")
    large = content("huge.bin", 1, 20_000_000)
    (tmp_path / "files" / "huge.bin").write_bytes(large)
    server = start_server('[cache]\nchunk = "64KiB"\nmemory = "2MiB"\n', root=tmp_path / "files")
    (former,) = server.workers()
    with server.connect() as client:
        client.send(head("/huge.bin") + head("/small.bin"))
        client.pending = client.socket.recv(1000)
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded")
        assert former in server.workers()
        assert client.read_reply().body == large
        reply = client.read_reply()
        check("/small.bin", reply)
        assert reply.headers["connection"] == "close"
        assert client.socket.recv(1) == b""
    wait_until(lambda: former not in server.workers(), "the old worker's end")
