"""nginx and HAProxy as conf/examples has them, in front of a real server: whose addresses the log has.

A client comes from an address of its own on the loopback network, which is not trusted; the proxies come from
127.0.0.1, which is. Each example is used as it stands but for its addresses: the proxies get listening sockets that
exist already, so nobody waits for a port, and nobody takes it.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import fronts
from tests.fronts import example, running
from tests.needs import find, needs
from tests.server import Client, Server
from tests.web import CONFIG, head, lines_of, plant, reset, serving, stream

LARGE = 20_000_000
SIZES = {"a.txt": 1000, "large.bin": LARGE}
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


class Behind:
    """The server, and where its proxy listens: the first for whatever the example does first."""

    def __init__(self, server: Server, fronts: Sequence[socket.socket]) -> None:
        self.server = server
        self._fronts = [front.getsockname() for front in fronts]

    def connect(self, source: str, front: int = 0) -> Client:
        return Client(self._fronts[front], source)

    def addresses(self, count: int) -> list[str]:
        """Whose each access line is."""
        return [line.split(" ")[0] for line in lines_of(self.server, count)]


@contextmanager
def site(tmp_path: Path, server: str) -> Iterator[Server]:
    """The server that is behind; a second site has nothing but one file."""
    root, two = tmp_path / "root", tmp_path / "two"
    root.mkdir()
    two.mkdir()
    plant(root, SIZES)
    (two / "two.txt").write_text("two")
    config = f"{CONFIG}[server]\n{server}{SITES.format(two=two)}"
    with serving(tmp_path, config, root=root) as running_server:
        yield running_server


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Behind]:
    with ExitStack() as stack:
        server = stack.enter_context(site(tmp_path, 'trusted_proxies = ["127.0.0.1"]\n'))
        front = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        places = {"server 127.0.0.1:8080;": f"server 127.0.0.1:{server.port};"}
        stack.enter_context(fronts.nginx(tmp_path, "nginx-proxy.conf", front, places))
        yield Behind(server, [front])


@pytest.fixture(params=["send-proxy-v2", "send-proxy"])
def haproxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Behind]:
    listen = 'listen = [{ address = "127.0.0.1:0", proxy_protocol = true }, "127.0.0.8:0"]\n'
    with ExitStack() as stack:
        server = stack.enter_context(site(tmp_path, f'{listen}trusted_proxies = ["127.0.0.1"]\n'))
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        introduced, plain = (":".join(map(str, address)) for address in server.addresses)
        places = {
            "bind 127.0.0.1:80\n": f"bind fd@{sockets[0].fileno()}\n",
            "bind 127.0.0.1:81\n": f"bind fd@{sockets[1].fileno()}\n",
            "127.0.0.1:8081 send-proxy-v2": f"{introduced} {request.param}",
            "127.0.0.1:8082": plain,
        }
        (tmp_path / "haproxy.cfg").write_text(example("haproxy.cfg", places))
        command = [str(find("haproxy")), "-db", "-f", f"{tmp_path}/haproxy.cfg"]
        descriptors = [front.fileno() for front in sockets]
        stack.enter_context(running(command, tmp_path / "haproxy.log", pass_fds=descriptors))
        yield Behind(server, sockets)


def every_client_has_its_address(behind: Behind, front: int = 0) -> None:
    """The same request of several clients in turn, each on a connection that it keeps, and some with claims."""
    with ExitStack() as stack:
        clients = {source: stack.enter_context(behind.connect(source, front)) for source in CLIENTS}
        for turn in range(30):
            for source, client in clients.items():
                client.send(head("/a.txt", "Host: one.example", *(CLAIMS if turn % 3 == 2 else ())))
                assert client.read_reply().body == stream("a.txt", 1000), source
        for client in clients.values():
            client.send(head("/two.txt", "Host: two.example:80"))
            assert client.read_reply().body == b"two"
    assert behind.addresses(155) == CLIENTS * 31


def clients_leave_in_the_middle(behind: Behind, front: int = 0) -> None:
    """Each is logged with what was sent, as itself, and nobody else notices."""
    for source in CLIENTS:
        client = behind.connect(source, front)
        client.send(head("/large.bin"))
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 200 ")
        reset(client)
    with behind.connect("127.0.0.9", front) as other:
        other.send(head("/large.bin"))
        assert other.read_reply().body == stream("large.bin", LARGE)
    assert Counter(behind.addresses(6)) == dict.fromkeys([*CLIENTS, "127.0.0.9"], 1)


@needs("nginx")
def test_nginx_and_the_address_of_each_client(nginx: Behind) -> None:
    every_client_has_its_address(nginx)
    assert nginx.server.stop() == 0
    counters = nginx.server.counters()
    assert counters["connections_accepted"] <= len(CLIENTS)  # used again, whoever the client
    assert counters["memo_hits"] >= 100


@needs("nginx")
def test_nginx_and_clients_that_leave(nginx: Behind) -> None:
    clients_leave_in_the_middle(nginx)


@needs("haproxy")
@pytest.mark.parametrize("front", [0, 1], ids=["introduced", "fields"])
def test_haproxy_and_the_address_of_each_client(haproxy: Behind, front: int) -> None:
    every_client_has_its_address(haproxy, front)
    assert haproxy.server.stop() == 0
    counters = haproxy.server.counters()
    assert counters["proxy_refused"] == 0  # its health checks included
    # Of the connections that are one client's alone HAProxy keeps only some; the others are used again, whoever asks.
    most, least = ((10, 100), (140, 30))[front == 0]
    assert counters["connections_accepted"] <= most
    assert counters["memo_hits"] >= least
    assert not [line for line in haproxy.server.log_lines() if "closed: " in line]


@needs("haproxy")
@pytest.mark.parametrize("front", [0, 1], ids=["introduced", "fields"])
def test_haproxy_and_clients_that_leave(haproxy: Behind, front: int) -> None:
    clients_leave_in_the_middle(haproxy, front)
