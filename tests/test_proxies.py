"""Behind proxies, as raw bytes: who is believed, whose address is logged, and that no memo mixes two clients up."""

import contextlib
import itertools
import random
import signal
import struct
from collections import Counter
from pathlib import Path
from socket import inet_aton

import pytest

from flashpy.http.proxyprotocol import SIGNATURE
from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import addresses, head, lines_of, reset

TRUSTING = '[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8", "unix:"]\n'
INTRODUCED = 'listen = [{ address = "127.0.0.1:0", proxy_protocol = true }]\n'
STRANGER = "127.0.0.2"


def ask(client: Client, *fields: str, target: str = "/a.txt") -> int:
    client.send(head(target, *fields))
    return client.read_reply().status


def wait_gone(server: Server, worker: int) -> None:
    wait_until(lambda: worker not in server.tree(), "the end of the old worker")


def v2(source: str, command: int = 0x21) -> bytes:
    block = inet_aton(source) + inet_aton("192.0.2.9") + struct.pack("!HH", 1, 2)
    return SIGNATURE + struct.pack("!BBH", command, 0x11, len(block)) + block


def v1(source: str) -> bytes:
    return f"PROXY TCP4 {source} 192.0.2.9 1 2\r\n".encode()


# Forwarded and X-Forwarded-*


def test_only_trusted_peers_are_believed(start_server: StartServer, docroot: Path) -> None:
    """The same bytes again and again, so that the memos answer them, from both classes of peers in turn."""
    server = start_server(TRUSTING, root=docroot)
    with server.connect() as proxy, server.connect(source=STRANGER) as stranger:
        for _ in range(20):
            for client in (proxy, stranger):
                assert ask(client, "X-Forwarded-For: 203.0.113.7") == 200
                assert ask(client, "Forwarded: for=203.0.113.7") == 200
                assert ask(client) == 200
    counts = Counter(addresses(server, 120))
    assert counts == {"203.0.113.7": 40, "127.0.0.1": 20, STRANGER: 60}
    server.stop()
    assert server.counters()["memo_hits"] >= 120 - 6 * 4


def test_nobody_is_believed_by_default(server: Server) -> None:
    with server.connect() as client:
        for _ in range(6):
            assert ask(client, "X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.8") == 200
    assert set(addresses(server, 6)) == {"127.0.0.1"}


def test_chains(start_server: StartServer, docroot: Path) -> None:
    server = start_server(TRUSTING, root=docroot)
    cases = [
        (["X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.1"], "203.0.113.7"),
        (["x-forwarded-for: 203.0.113.7", "X-FORWARDED-FOR: 10.0.0.2"], "203.0.113.7"),
        (["X-Forwarded-For: 203.0.113.7, nonsense, 10.0.0.2"], "10.0.0.2"),
        (["X-Forwarded-For: nonsense"], "127.0.0.1"),
        (["X-Forwarded-For: [2001:db8::1]:99"], "2001:db8::1"),
        (['Forwarded: for="[2001:db8::1]"', "X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
        (['Forwarded: for="[2001:db8::1]"', "X-Forwarded-Proto: https"], "2001:db8::1"),
        (["Forwarded: for=_hidden"], "127.0.0.1"),
    ]
    with server.connect() as client:
        for fields, _ in cases:
            for _ in range(4):
                assert ask(client, *fields) == 200
    assert addresses(server, 4 * len(cases)) == [address for _, address in cases for _ in range(4)]


def test_the_address_that_is_a_peers_own_is_not_remembered_for_another(
    start_server: StartServer, docroot: Path
) -> None:
    """Two proxies say the same of their client, namely nothing: each line has the address of the one that asked."""
    server = start_server(TRUSTING.replace('"127.0.0.1"', '"127.0.0.0/8"'), root=docroot)
    said = [("X-Forwarded-For: ?",), ("Forwarded: for=unknown",), (), ("X-Forwarded-For: 127.0.0.1",)]
    with server.connect() as one, server.connect(source=STRANGER) as two:
        for _ in range(10):
            for fields in said:
                assert ask(one, *fields) == ask(two, *fields) == 200
    found = addresses(server, 80)
    assert found == ["127.0.0.1", STRANGER] * 3 + ["127.0.0.1"] * 2 + found[8:]
    assert Counter(found) == {"127.0.0.1": 50, STRANGER: 30}


def test_clients_of_one_proxy_keep_their_addresses(start_server: StartServer, docroot: Path) -> None:
    """Many clients with one request through one connection, in any order; volatile lines are left out of heads."""
    server = start_server(TRUSTING, root=docroot)
    chance, numbers = random.Random(7), itertools.count()
    clients = [f"203.0.113.{number}" for number in range(5)]
    asked = [chance.choice(clients) for _ in range(1500)]
    with server.connect() as proxy:
        for client in asked:
            fields = [f"X-Forwarded-For: {client}", f"X-Request-ID: {next(numbers)}"]
            assert ask(proxy, *fields, target="/a.txt" if next(numbers) % 3 else "/nothing") in (200, 404)
        for client in clients:
            for _ in range(20):
                assert ask(proxy, f"X-Forwarded-For: {client}") == 200
    expected = asked + [client for client in clients for _ in range(20)]
    assert addresses(server, len(expected)) == expected
    server.stop()
    counters = server.counters()
    assert counters["misses"] == 2
    assert counters["hits"] >= 1400  # by what is left of a head without its volatile line
    assert counters["memo_hits"] >= 85


def test_pipelined_requests_of_several_clients(start_server: StartServer, docroot: Path) -> None:
    """Small and large, found and not, refused and with a body: each is logged as its own client's."""
    server = start_server(TRUSTING, root=docroot)
    kinds: list[tuple[str, str, str, bytes]] = [
        ("GET", "/a.txt", "", b""),
        ("GET", "/nothing", "", b""),
        ("GET", "/large.bin", "", b""),
        ("DELETE", "/a.txt", "", b""),
        ("GET", "/docs", "", b""),
        ("GET", "/index.html", "Content-Length: 3", b"abc"),
        ("GET", "/a.txt", "Range: bytes=0-1", b""),
    ]
    data, expected = b"", []
    for number, (method, target, field, body) in enumerate(kinds * 12):
        client = f"198.51.100.{number % 11}"
        data += head(target, f"X-Forwarded-For: {client}", *filter(None, [field]), method=method) + body
        expected.append((client, f'"{method} {target} HTTP/1.1"'))
    with server.connect() as proxy:
        proxy.send(data)
        for _ in expected:
            proxy.read_reply()
    lines = lines_of(server, len(expected))
    assert [
        (line.split(" ")[0], line[line.index('"') : line.index('"', line.index('"') + 1) + 1]) for line in lines
    ] == expected


def test_error_lines_name_the_client(start_server: StartServer, docroot: Path) -> None:
    (docroot / "empty").mkdir()
    server = start_server(TRUSTING, root=docroot)
    with server.connect() as proxy:
        assert ask(proxy, "X-Forwarded-For: 203.0.113.7", target="/empty/") == 403
        assert ask(proxy, "X-Forwarded-For: 203.0.113.8", target="/.git") == 404
        assert ask(proxy, "X-Forwarded-For: 203.0.113.9", "Host: a b") == 400
    server.wait_log('203.0.113.7: 403: a folder without an index file: "GET /empty/ HTTP/1.1" for ')
    server.wait_log("203.0.113.8: 404: hidden file")
    server.wait_log('203.0.113.9: 400: malformed Host: "GET /a.txt HTTP/1.1" for a b')
    with server.connect() as proxy:  # who sends what cannot be parsed is the proxy: nothing of it is believed
        assert ask(proxy, "X-Forwarded-For: 203.0.113.9", "Broken") == 400
    server.wait_log("127.0.0.1: 400: ")
    assert addresses(server, 4) == ["203.0.113.7", "203.0.113.8", "203.0.113.9", "127.0.0.1"]


def test_a_reply_that_is_broken_off_is_its_clients(start_server: StartServer, docroot: Path) -> None:
    """A large reply that was remembered does not fit the socket, and the proxy goes away."""
    (docroot / "huge.bin").write_bytes(bytes(40_000_000))
    server = start_server(TRUSTING, root=docroot)
    for number in range(4):
        with server.connect() as proxy:
            proxy.send(head("/huge.bin", f"X-Forwarded-For: 203.0.113.{number}"))
            assert proxy.socket.recv(100)
            reset(proxy)
    assert sorted(addresses(server, 4)) == [f"203.0.113.{number}" for number in range(4)]


def test_the_host_that_a_trusted_proxy_tells_chooses_the_site(start_server: StartServer, tmp_path: Path) -> None:
    config = TRUSTING
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        config += f'[[site]]\nhosts = ["{name}.example"]\nroot = "{tmp_path}/{name}"\n'
    server = start_server(config)
    fields = ["X-Forwarded-Host: two.example:443", "Forwarded: for=1.2.3.4;host=two.example", "X-Forwarded-Host: a/b"]
    with server.connect() as proxy, server.connect(source=STRANGER) as stranger:
        for _, field in itertools.product(range(6), fields):
            for client, body in ((proxy, b"one" if field == fields[2] else b"two"), (stranger, b"one")):
                client.send(head("/a.txt", "Host: one.example", field))
                assert client.read_reply().body == body, field
        assert ask(proxy, "Host: a/b", fields[0]) == 400  # what is stronger does not excuse what is malformed


def test_a_unix_socket_is_trusted_as_a_whole(start_server: StartServer, docroot: Path) -> None:
    listen = f'listen = ["unix:{docroot.parent}/s", "127.0.0.1:0"]\n'
    server = start_server(f'[server]\ntrusted_proxies = ["unix:"]\n{listen}', root=docroot)
    with server.connect(0) as local, server.connect(1) as remote:
        for client in (local, remote):
            for _ in range(5):
                assert ask(client, "X-Forwarded-For: 203.0.113.7") == 200
            assert ask(client) == 200
    assert Counter(addresses(server, 12)) == {"203.0.113.7": 5, "unix:": 1, "127.0.0.1": 6}


# The PROXY protocol


@pytest.mark.parametrize("header", [v1("203.0.113.7"), v2("203.0.113.7")], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_header_in_pieces(start_server: StartServer, docroot: Path, header: bytes, size: int) -> None:
    """Byte by byte, and all with its request in one segment; then the connection is like any other."""
    server = start_server(f"[server]\n{INTRODUCED}", root=docroot)
    data = header + head("/a.txt")
    with server.connect() as client:
        for place in range(0, len(data), size):
            client.send(data[place : place + size])
        assert client.read_reply().body == b"a text\n"
        for _ in range(6):
            assert ask(client) == 200
        client.send(head("/a.txt") + head("/nothing") + head("/large.bin"))
        assert [client.read_reply().status for _ in range(3)] == [200, 404, 200]
    assert addresses(server, 10) == ["203.0.113.7"] * 10
    server.stop()
    counters = server.counters()
    assert (counters["connections_accepted"], counters["connections_open"], counters["proxy_refused"]) == (1, 0, 0)


def test_whose_address_it_is(start_server: StartServer, docroot: Path) -> None:
    server = start_server(f"[server]\n{INTRODUCED}", root=docroot)
    headers = [
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (v2("203.0.113.7", 0x20), "127.0.0.1"),
        (v2("203.0.113.8"), "203.0.113.8"),
    ]
    for header, _ in headers:
        with server.connect() as client:
            client.send(header + head("/a.txt", "X-Forwarded-For: 6.6.6.6"))
            assert client.read_reply().status == 200
            assert ask(client, "X-Forwarded-For: 6.6.6.6", target="/.x") == 404
            server.wait_log(": 404: hidden file")
    assert addresses(server, 6) == [address for _, address in headers for _ in range(2)]
    server.wait_log("203.0.113.8: 404: hidden file")


def test_who_is_introduced_counts_as_the_peer(start_server: StartServer, docroot: Path) -> None:
    """A balancer introduces a proxy, which is trusted, and a client, which is not."""
    server = start_server(f"{TRUSTING}{INTRODUCED}", root=docroot)
    for peer in ("10.1.2.3", "203.0.113.8"):
        with server.connect() as client:
            client.send(v2(peer))
            for _ in range(5):
                assert ask(client, "X-Forwarded-For: 203.0.113.7") == 200
    assert addresses(server, 10) == ["203.0.113.7"] * 5 + ["203.0.113.8"] * 5


REFUSED = {
    "a request": (head("/a.txt"), "no PROXY header"),
    "a malformed line": (b"PROXY TCP4 1.2.3.4 5\r\n", "malformed line"),
    "a second version": (SIGNATURE + b"\x31\x11\0\0", "an unknown version or command"),
    "too much": (SIGNATURE + b"\x21\x11\xff\xff" + bytes(5000), "a header of more than 4096 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_reply_to_whoever_does_not_introduce_itself(start_server: StartServer, docroot: Path, name: str) -> None:
    server = start_server(f"[server]\n{INTRODUCED}", root=docroot)
    data, words = REFUSED[name]
    with server.connect() as client:
        client.send(data)
        with contextlib.suppress(ConnectionResetError):  # what it sent was left unread
            assert client.read_to_end() == b""
    server.wait_log(f"127.0.0.1: closed: {words}")
    server.stop()
    counters = server.counters()
    assert (counters["proxy_refused"], counters["requests"], counters["connections_open"]) == (1, 0, 0)
    assert len([line for line in server.log_lines() if "closed: " in line]) == 1


def test_a_header_that_does_not_come_in_time(start_server: StartServer, docroot: Path) -> None:
    """Closed without a reply; whoever was introduced in time is a client, and gets its 408."""
    server = start_server(f'[server]\n{INTRODUCED}[limits]\nheader_timeout = "1s"\n', root=docroot)
    with server.connect() as silent, server.connect() as slow, server.connect() as good:
        slow.send(v1("203.0.113.7")[:20])
        good.send(v1("203.0.113.9") + head("/a.txt")[:10])
        assert slow.read_to_end() == silent.read_to_end() == b""
        assert good.read_reply().status == 408
    server.wait_log("127.0.0.1: closed: no whole PROXY header in time", 2)
    server.wait_log("203.0.113.9: 408: ")
    server.stop()
    assert (server.counters()["proxy_refused"], server.counters()["timeouts"]) == (2, 3)


def test_an_end_within_the_header_and_before_it(start_server: StartServer, docroot: Path) -> None:
    """Who connects and says nothing is a health check, and not worth a line."""
    server = start_server(f"[server]\n{INTRODUCED}", root=docroot)
    with server.connect() as one:
        one.send(v2("203.0.113.7")[:20])
        one.socket.shutdown(1)
        assert one.read_to_end() == b""
    with server.connect() as two:
        two.socket.shutdown(1)
        assert two.read_to_end() == b""
    server.stop()
    assert [line for line in server.log_lines() if "closed" in line] == [
        line for line in server.log_lines() if line.endswith("the connection ended within the PROXY header")
    ]
    assert (server.counters()["proxy_refused"], server.counters()["connections_open"]) == (1, 0)


def test_only_trusted_peers_introduce_when_any_are_named(start_server: StartServer, docroot: Path) -> None:
    server = start_server(f"{TRUSTING}{INTRODUCED}", root=docroot)
    with server.connect(source=STRANGER) as stranger:
        stranger.send(v1("203.0.113.7") + head("/a.txt"))
        with contextlib.suppress(ConnectionResetError):
            assert stranger.read_to_end() == b""
    server.wait_log(f"{STRANGER}: closed: a PROXY header is expected, and the peer is no trusted proxy")
    with server.connect() as proxy:
        proxy.send(v1("203.0.113.7") + head("/a.txt"))
        assert proxy.read_reply().status == 200
    assert addresses(server, 1) == ["203.0.113.7"]


def test_a_header_over_a_unix_socket_and_a_plain_listener_beside_it(start_server: StartServer, docroot: Path) -> None:
    listen = f'[{{ address = "unix:{docroot.parent}/s", proxy_protocol = true }}, "127.0.0.1:0"]'
    server = start_server(f"[server]\nlisten = {listen}\n", root=docroot)
    with server.connect(0) as local, server.connect(1) as plain:
        local.send(v2("203.0.113.7"))
        assert ask(local) == ask(plain) == 200
        plain.send(v1("203.0.113.7") + head("/a.txt"))
        assert plain.read_reply().status == 400
    found = addresses(server, 3)
    assert found == ["203.0.113.7", "127.0.0.1", "127.0.0.1"]


def test_a_reload_turns_it_on_and_off(start_server: StartServer, docroot: Path) -> None:
    """The listening socket stays; what a connection begins with is the new settings' affair."""
    plain = f'"unix:{docroot.parent}/s"'
    introduced = f"{{ address = {plain}, proxy_protocol = true }}"
    server = start_server(f"[server]\nlisten = [{plain}]\n", root=docroot)
    for count, listen in enumerate((introduced, plain), 1):
        (old,) = server.workers()
        server.configure(f"[server]\nlisten = [{listen}]\n")
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded", count)
        wait_gone(server, old)
        with server.connect() as client:
            client.send(v1("203.0.113.7") if listen is introduced else b"")
            assert ask(client) == 200
    assert addresses(server, 2) == ["203.0.113.7", "unix:"]
