"""Where a server listens: IPv4, IPv6, unix sockets, several at once, and addresses that are taken."""

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server import Client
from tests.web import lines_of


def has_ipv6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback interface")


@needs_ipv6
def test_ipv6(start_server: StartServer, docroot: Path) -> None:
    server = start_server('[server]\nlisten = ["[::1]:0"]\n', root=docroot)
    assert server.stdout == f"flashpy: listening on http://[::1]:{server.port}\n"
    with server.connect() as client:
        assert client.request("/a.txt", {"Host": f"[::1]:{server.port}"}).body == b"a text\n"
    assert lines_of(server, 1)[0].startswith("::1 - - [")


@needs_ipv6
def test_ipv6_takes_nothing_of_ipv4(start_server: StartServer, docroot: Path) -> None:
    """V6ONLY: the same port of IPv4 is free for another listener, and not served when nobody asked for it."""
    server = start_server('[server]\nlisten = ["[::]:0"]\n', root=docroot)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    other = start_server(f'[server]\nlisten = ["127.0.0.1:{server.port}"]\n', root=docroot)
    assert other.port == server.port
    with Client(("127.0.0.1", server.port)) as four, Client(("::1", server.port)) as six:
        assert four.request("/a.txt").status == six.request("/a.txt").status == 200
    for one in (server, other):
        one.stop()
        assert one.counters()["requests"] == 1


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o666), ("0600", 0o600), ("0660", 0o660)])
def test_unix_socket_and_its_mode(start_server: StartServer, docroot: Path, mode: str | None, expected: int) -> None:
    path = docroot.parent / "socket"
    listen = f'"unix:{path}"' if mode is None else f'{{ address = "unix:{path}", mode = "{mode}" }}'
    server = start_server(f"[server]\nlisten = [{listen}]\n", root=docroot)
    assert server.stdout == f"flashpy: listening on unix:{path}\n"
    facts = os.lstat(path)
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == expected
    with server.connect() as client:
        for target in ("/a.txt", "/large.bin", "/nothing", "/a.txt"):
            assert client.request(target).status == (404 if target == "/nothing" else 200)
    assert lines_of(server, 4)[0].startswith("unix: - - [")
    server.stop()
    assert not path.exists()


def test_a_client_of_a_unix_socket_that_is_gone_at_once(start_server: StartServer, docroot: Path) -> None:
    """Its request is read and its end is not yet seen: every send fails, which is not an error."""
    server = start_server(f'[server]\nlisten = ["unix:{docroot.parent}/s"]\n', root=docroot)
    requests = [
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    for data in requests * 5:
        client = server.connect()
        client.send(data)
        client.socket.close()
    assert server.get("/a.txt").status == 200
    assert len(lines_of(server, 31)) == 31
    server.stop()
    assert server.counters()["requests"] == 31
    assert server.counters()["errors"] == 0


def test_several_listeners_at_once(start_server: StartServer, docroot: Path) -> None:
    listen = f'["127.0.0.1:0", "127.0.0.2:0", "unix:{docroot.parent}/one", "unix:{docroot.parent}/two"]'
    server = start_server(f"[server]\nlisten = {listen}\nworkers = 2\n", root=docroot)
    assert len(server.stdout.splitlines()) == len(server.addresses) == 4
    assert len({str(address) for address in server.addresses}) == 4
    for number in range(4):
        with server.connect(number) as client:
            for _ in range(3):
                assert client.request("/a.txt").body == b"a text\n"
    server.stop()
    assert server.counters()["requests"] == 12
    assert server.counters()["connections_accepted"] == 4


def test_port_0_is_named_in_the_ready_line(start_server: StartServer, docroot: Path) -> None:
    one, two = (start_server(root=docroot) for _ in range(2))
    assert one.port != two.port
    for server in (one, two):
        assert server.stdout == f"flashpy: listening on http://127.0.0.1:{server.port}\n"
        assert server.get("/a.txt").status == 200


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_in_use_is_refused_in_words(start_server: StartServer, docroot: Path, kind: str) -> None:
    own = "127.0.0.1:0" if kind == "tcp" else f"unix:{docroot.parent}/s"
    first = start_server(f'[server]\nlisten = ["{own}"]\n', root=docroot)
    taken = f"127.0.0.1:{first.port}" if kind == "tcp" else own
    second = start_server(f'[server]\nlisten = ["127.0.0.1:0", "{taken}"]\n', root=docroot, wait=False)
    second.expected_status = 1
    second.expect_error("cannot listen")
    assert second.wait() == 1
    assert second.stderr == f"flashpy: cannot listen on {taken}: the address is in use by another program\n"
    assert second.stdout == ""
    assert first.get("/a.txt").status == 200


def test_a_file_in_the_place_of_a_socket_is_kept(start_server: StartServer, docroot: Path) -> None:
    path = docroot.parent / "precious"
    path.write_text("mine")
    server = start_server(f'[server]\nlisten = ["unix:{path}"]\n', root=docroot, wait=False)
    server.expected_status = 1
    server.expect_error("cannot listen")
    assert server.wait() == 1
    assert "is not a socket" in server.stderr
    assert path.read_text() == "mine"
