"""Limits of one client: requests in time, connections at a time, bytes a second."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGHUP, SIGKILL

import pytest

from flashpy.config import Limits
from flashpy.loop import Loop
from flashpy.meter import Meter
from flashpy.shares import Shares, place_of
from tests.conftest import StartServer
from tests.server import Client, Reply, Server, wait_until
from tests.web import head, plant

ONE, TWO = b"192.0.2.1 - - [", b"192.0.2.2 - - ["
STRANGER = "127.0.0.2"


def meter(shares: Shares, slot: int = 1, **limits: int) -> Meter:
    def complain(_fd: int, problem: Exception) -> None:
        raise problem

    return Meter(shares.of(slot), Limits(**limits), Loop(complain))


def at(one: Meter, now: float) -> Meter:
    one._loop.now = now
    return one


def test_a_bucket_of_requests() -> None:
    one = meter(Shares(2), client_requests=10, client_burst=3)
    assert [at(one, 100.0).wait(ONE) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert one.wait(ONE) == pytest.approx(0.1)
    assert one.wait(ONE) == pytest.approx(0.1), "who is refused does not pay"
    assert one.wait(TWO) == 0.0
    assert at(one, 100.11).wait(ONE) == 0.0
    assert one.wait(ONE) > 0
    assert [at(one, 200.0).wait(ONE) > 0 for _ in range(4)] == [False, False, False, True], "no more is saved up"
    assert one.wait(b"") == 0.0


def test_workers_share_a_bucket_and_sum_connections() -> None:
    shares = Shares(2)
    one, two = (meter(shares, slot, client_requests=2, client_connections=3) for slot in (1, 2))
    assert [at(one, 50.0).wait(ONE), at(two, 50.0).wait(ONE)] == [0.0, 0.0]
    assert one.wait(ONE) > 0
    assert two.wait(ONE) > 0
    for worker in (one, two, two):
        assert not worker.is_crowded(ONE)
        worker.enter(ONE)
    assert one.is_crowded(ONE)
    assert not one.is_crowded(TWO)
    two.leave(ONE)
    assert not one.is_crowded(ONE)
    two.enter(ONE)
    shares.retire(2)
    assert not one.is_crowded(ONE), "the connections of a worker that is gone are gone"


def test_an_ipv6_client_is_its_network() -> None:
    places = {place_of(address + b" - - [") for address in (b"2001:db8::1", b"2001:db8:0:0:ffff::", b"2001:db8::")}
    assert len(places) == 1
    assert len({place_of(b"2001:db8:0:%x::1 - - [" % number) for number in range(100)}) > 90


def statuses(client: Client, count: int, target: str = "/a.txt") -> list[int]:
    found = []
    for _ in range(count):
        client.send(head(target))
        found.append(client.read_reply().status)
    return found


def refusal(client: Client, data: bytes = head("/none")) -> Reply:
    """The first 429: a request that comes late may be within its share."""
    for _ in range(50):
        client.send(data)
        reply = client.read_reply()
        if reply.status == 429:
            return reply
    raise AssertionError("never refused")


def test_too_many_requests(start_server: StartServer, docroot: Path) -> None:
    """From the memo or not; another client is not disturbed, and the connection goes on."""
    server = start_server("[limits]\nclient_requests = 5\nclient_burst = 20\n", root=docroot)
    with server.connect() as client, server.connect(source=STRANGER) as other:
        begun = time.monotonic()
        found = statuses(client, 60)
        spent = time.monotonic() - begun
        assert set(found) == {200, 429}
        assert 20 <= found.count(200) <= 20 + 5 * spent + 1
        assert found[:20] == [200] * 20
        assert statuses(other, 20) == [200] * 20
        assert refusal(client).headers["retry-after"] == "1"
        wait_until(lambda: statuses(client, 1) == [200])
    server.stop()
    counters = server.counters()
    assert counters["limited"] == counters["status_4xx"]
    assert counters["memo_hits"] > 20
    assert counters["requests"] == len(server.access.read_text().splitlines())


def test_a_body_of_a_request_that_is_refused_is_no_request(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[limits]\nclient_requests = 1\n", root=docroot)
    with server.connect() as client:
        refusal(client, head("/a.txt", "Content-Length: 40") + (head("/x") + bytes(40))[:40])
        assert client.read_to_end() == b""


def test_too_many_connections(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[server]\nworkers = 2\n[limits]\nclient_connections = 4\n", root=docroot)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        assert all(statuses(client, 2) == [200, 200] for client in clients)
        late = stack.enter_context(server.connect())
        assert statuses(late, 1) == [429]
        assert late.read_to_end() == b""
        other = stack.enter_context(server.connect(source=STRANGER))
        assert statuses(other, 1) == [200]
        for client in clients[:2]:
            client.socket.close()
        wait_until(lambda: server.get("/a.txt").status == 200)


def test_who_is_counted_when_a_worker_dies(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[server]\nworkers = 1\n[limits]\nclient_connections = 2\n", root=docroot)
    server.expect_error("killed")
    server.expect_error("SIGKILL")
    with server.connect() as one, server.connect() as two:
        assert statuses(one, 1) == statuses(two, 1) == [200]
        (worker,) = server.workers()
        os.kill(worker, SIGKILL)
        assert one.read_to_end() == two.read_to_end() == b""
    wait_until(lambda: worker not in server.workers() and server.workers())
    with server.connect() as one, server.connect() as two:
        assert statuses(one, 1) == statuses(two, 1) == [200]


def test_the_client_behind_a_proxy_is_meant(start_server: StartServer, docroot: Path) -> None:
    limits = "[limits]\nclient_requests = 1\nclient_burst = 6\nclient_connections = 1\n"
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\n' + limits
    server = start_server(config, root=docroot)

    def asks(proxy: Client, address: str, count: int) -> list[int]:
        found = []
        for _ in range(count):
            proxy.send(head("/a.txt", f"X-Forwarded-For: {address}"))
            found.append(proxy.read_reply().status)
        return found

    with server.connect() as proxy, server.connect() as second:
        found = asks(proxy, "203.0.113.7", 30)
        assert (found[:6], found.count(429) > 10) == ([200] * 6, True)
        assert asks(second, "203.0.113.8", 6) == [200] * 6
        assert 429 in asks(second, "203.0.113.7", 10)
        assert statuses(proxy, 20) == [200] * 20, "what the proxy asks for itself"


def test_nobody_is_limited_as_a_unix_socket(start_server: StartServer, docroot: Path) -> None:
    listen = f'[server]\nlisten = ["unix:{docroot.parent}/s"]\n'
    server = start_server(listen + "[limits]\nclient_requests = 1\nclient_connections = 1\n", root=docroot)
    with server.connect() as one, server.connect() as two:
        assert statuses(one, 10) == statuses(two, 10) == [200] * 10


def test_limits_outlive_a_reload(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[limits]\nclient_requests = 1\nclient_burst = 30\n", root=docroot)
    with server.connect() as client:
        assert statuses(client, 25) == [200] * 25
    server.signal(SIGHUP)
    server.wait_log("reloaded")
    with server.connect() as client:
        assert statuses(client, 40).count(429) >= 10


def drain_into(client: Client, size: int) -> list[tuple[float, int]]:
    """When how many bytes of a reply had come."""
    begun, seen, found = time.monotonic(), 0, []
    while seen < size:
        seen += len(client.socket.recv(65536))
        found.append((time.monotonic() - begun, seen))
    return found


@pytest.mark.parametrize("size", [300_000, 1_500_000])
def test_the_rate_of_a_reply(start_server: StartServer, docroot: Path, size: int) -> None:
    """Whether it lies in one chunk or in several; the first time and when it is in memory."""
    (content,) = plant(docroot, {"big.bin": size}).values()
    rate, free = (200_000, 100_000) if size < 10**6 else (1_000_000, 500_000)
    config = f"[limits]\nrate = {rate}\nrate_after = {free}\n"
    server = start_server(config, root=docroot)
    with server.connect() as client, server.connect() as hot:
        for _ in range(2):
            client.send(head("/big.bin"))
            steps = drain_into(client, size)
            assert all(seen <= free + seconds * rate + 140_000 for seconds, seen in steps)
            assert 0.8 * (size - free) / rate < steps[-1][0] < 3 * (size - free) / rate + 1
            client.socket.setblocking(True)
            assert statuses(hot, 3) == [200] * 3
        client.send(head("/big.bin", "Connection: close"))
        body = client.read_to_end().partition(b"\r\n\r\n")[2]
        assert body[-size:] == content


def test_a_client_that_goes_while_its_reply_pauses(start_server: StartServer, docroot: Path) -> None:
    plant(docroot, {"big.bin": 400_000})
    server = start_server('[limits]\nrate = "10KB"\nrate_after = "10KB"\n', root=docroot)
    with server.connect() as client:
        client.send(head("/big.bin"))
        assert client.socket.recv(1000)
    server.stop()
    assert server.counters()["disconnects"] == 1


def test_small_replies_are_not_measured(server: Server, start_server: StartServer, docroot: Path) -> None:
    slow = start_server('[limits]\nrate = "1KB"\nrate_after = "100KB"\n', root=docroot)
    with slow.connect() as client:
        assert statuses(client, 50) == [200] * 50
    slow.stop()
    assert slow.counters()["memo_hits"] > 40
