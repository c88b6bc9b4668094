"""nginx and HAProxy as conf/examples has them, in front of a real server: what comes through, and as whose.

A client comes from an address of its own on the loopback network, which is not trusted; the proxies come from
127.0.0.1 or over a unix socket, which are. HAProxy's example has two ways to say whose a request is: by a PROXY
header before the first one, and by the fields of each.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import fronts
from tests.fronts import Behind, listener, place
from tests.needs import needs
from tests.server import Client, Reply, Server
from tests.web import CONFIG, addresses, head, plant, reset, serving, stream

LARGE = 20_000_000
SIZES = {"a.txt": 1000, "b.bin": 66_000, "empty.txt": 0, "large.bin": LARGE}
CLIENTS = [f"127.0.0.{number}" for number in range(2, 7)]
# What a client may claim of itself; none of it may come through.
CLAIMS = (
    "X-Forwarded-For: 6.6.6.6, 127.0.0.1",
    "Forwarded: for=6.6.6.6;host=two.example",
    "X-Forwarded-Host: two.example",
    "X-Forwarded-Proto: https",
)
SITES = """
[[site]]
[[site]]
hosts = ["two.example"]
root = "{two}"
"""


class Kind(NamedTuple):
    """A proxy and its way to the server; of 155 requests at most so many new connections, at least so many hits."""

    tool: str
    way: str
    introduces: str = ""
    connections: int = 10
    hits: int = 100


# Of the connections that are one client's alone HAProxy keeps only some; the others are used again, whoever asks.
# One more for each health check.
_FEW = {"connections": 140, "hits": 30}
KINDS = {
    "nginx-tcp": Kind("nginx", "tcp", connections=len(CLIENTS)),
    "nginx-unix": Kind("nginx", "unix", connections=len(CLIENTS)),
    "haproxy-fields-tcp": Kind("haproxy", "tcp"),
    "haproxy-fields-unix": Kind("haproxy", "unix"),
    "haproxy-v1-tcp": Kind("haproxy", "tcp", "send-proxy", **_FEW),
    "haproxy-v2-tcp": Kind("haproxy", "tcp", "send-proxy-v2", **_FEW),
    "haproxy-v2-unix": Kind("haproxy", "unix", "send-proxy-v2", **_FEW),
}


@contextmanager
def site(tmp_path: Path, listen: str, *trusted: str) -> Iterator[Server]:
    """The server that is behind, which trusts its proxies and more; a second site has nothing but one file."""
    root, two = tmp_path / "root", tmp_path / "two"
    root.mkdir()
    two.mkdir()
    plant(root, SIZES)
    (two / "two.txt").write_text("two")
    proxies = ["127.0.0.1", "unix:", *trusted]
    config = f"{CONFIG}[server]\nlisten = {listen}\ntrusted_proxies = {proxies}\n{SITES.format(two=two)}"
    with serving(tmp_path, config, root=root) as running_server:
        yield running_server


@contextmanager
def nginx(tmp_path: Path, kind: Kind, front: socket.socket, *trusted: str) -> Iterator[Behind]:
    with site(tmp_path, f'["{listener(kind.way, tmp_path)}"]', *trusted) as server:
        places = {"server 127.0.0.1:8080;": f"server {place(server.address)};"}
        with fronts.nginx(tmp_path, "nginx-proxy.conf", front, places):
            yield Behind(server, front.getsockname())


@contextmanager
def haproxy(tmp_path: Path, kind: Kind, front: socket.socket) -> Iterator[Behind]:
    introduced, plain = listener(kind.way, tmp_path), listener(kind.way, tmp_path, "plain", "127.0.0.8")
    listen = f'[{{ address = "{introduced}", proxy_protocol = true }}, "{plain}"]'
    with site(tmp_path, listen) as server, socket.create_server(("127.0.0.1", 0)) as other:
        first, second = (place(address, "unix@") for address in server.addresses)
        header = kind.introduces or "send-proxy-v2"
        places = {"127.0.0.1:8081 send-proxy-v2": f"{first} {header}", "127.0.0.1:8082": second}
        listening = [front, other] if kind.introduces else [other, front]
        with fronts.haproxy(tmp_path, listening, places):
            yield Behind(server, front.getsockname())


PROXIES = {"nginx": nginx, "haproxy": haproxy}


@pytest.fixture(params=[pytest.param(kind, id=name, marks=needs(kind.tool)) for name, kind in KINDS.items()])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def behind(tmp_path: Path, kind: Kind) -> Iterator[Behind]:
    with socket.create_server(("127.0.0.1", 0)) as front, PROXIES[kind.tool](tmp_path, kind, front) as found:
        yield found


def get(client: Client, target: str, *fields: str) -> Reply:
    client.send(head(target, *fields))
    return client.read_reply()


def ask_in_turn(clients: Mapping[str, Client]) -> None:
    """The same request of several clients, each on a connection that it keeps, and some with claims."""
    for turn in range(30):
        for source, client in clients.items():
            reply = get(client, "/a.txt", "Host: one.example", *(CLAIMS if turn % 3 == 2 else ()))
            assert reply.body == stream("a.txt", 1000), source
    for client in clients.values():
        assert get(client, "/two.txt", "Host: two.example:80").body == b"two"


def test_every_client_has_its_address_and_connections_are_used_again(behind: Behind, kind: Kind) -> None:
    server = behind.server
    with ExitStack() as stack:
        ask_in_turn({source: stack.enter_context(behind.connect(source)) for source in CLIENTS})
    assert addresses(server, 155) == CLIENTS * 31
    assert server.stop() == 0
    counters = server.counters()
    assert counters["proxy_refused"] == 0  # health checks included
    assert counters["connections_accepted"] <= kind.connections
    assert counters["memo_hits"] >= kind.hits
    assert not [line for line in server.log_lines() if "closed: " in line]


def test_pipelined(behind: Behind) -> None:
    names = ["a.txt", "b.bin", "empty.txt", "a.txt", "large.bin", "b.bin"] * 3
    with behind.connect(CLIENTS[0]) as client:
        client.send(b"".join(head(f"/{name}", *CLAIMS) for name in names))
        for name in names:
            assert client.read_reply().body == stream(name, SIZES[name])
    assert addresses(behind.server, len(names)) == [CLIENTS[0]] * len(names)


def test_ranges_and_conditions(behind: Behind) -> None:
    whole = stream("large.bin", LARGE)
    with behind.connect() as client:
        tag = get(client, "/large.bin", "Range: bytes=0-0").headers["etag"]
        part = get(client, "/large.bin", "Range: bytes=65530-70000", f"If-Range: {tag}")
        assert (part.status, part.body) == (206, whole[65_530:70_001])
        assert part.headers["content-range"] == f"bytes 65530-70000/{LARGE}"
        assert get(client, "/a.txt", "Range: bytes=5000-").headers["content-range"] == "bytes */1000"
        same = get(client, "/large.bin", f"If-None-Match: {tag}")
        assert (same.status, same.headers["etag"], same.body) == (304, tag, b"")
        assert get(client, "/a.txt", 'If-Match: "x"').status == 412
        assert get(client, "/a.txt").body == stream("a.txt", 1000)


def leave_in_the_middle(behind: Behind, sources: Sequence[str]) -> None:
    """Clients that have seen the beginning of a large reply, and go."""
    for source in sources:
        client = behind.connect(source)
        client.send(head("/large.bin"))
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 200 ")
        reset(client)


def test_clients_that_leave_in_the_middle(behind: Behind) -> None:
    """Each is logged with what was sent, as itself, and nobody else notices."""
    leave_in_the_middle(behind, CLIENTS)
    with behind.connect("127.0.0.9") as other:
        assert get(other, "/large.bin").body == stream("large.bin", LARGE)
    assert Counter(addresses(behind.server, 6)) == dict.fromkeys([*CLIENTS, "127.0.0.9"], 1)
    assert behind.server.stop() == 0
    assert behind.server.counters()["connections_open"] == 0
    assert behind.server.counters()["arena_pinned"] == 0


@needs("nginx")
def test_a_cdn_in_front_of_nginx(tmp_path: Path) -> None:
    """When both are trusted the client is whom the CDN names; what else the CDN lets through is nginx's to remove."""
    cdn = "127.0.0.7"
    with (
        socket.create_server(("127.0.0.1", 0)) as front,
        nginx(tmp_path, KINDS["nginx-tcp"], front, cdn) as behind,
        behind.connect(cdn) as client,
    ):
        reply = get(client, "/a.txt", "X-Forwarded-For: 6.6.6.6, 203.0.113.7", *CLAIMS[1:])
        assert reply.body == stream("a.txt", 1000)
        assert addresses(behind.server, 1) == ["203.0.113.7"]
