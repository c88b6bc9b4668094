"""Listening sockets, bound for real."""

import os
import socket
import stat
from pathlib import Path

import pytest

from flashpy.config import Listen
from flashpy.sockets import BindError, Listener, bind, bind_all, discard, retune

LOCAL = Listen(address="127.0.0.1:0")


def port_of(listener: Listener) -> int:
    return int(listener.socket.getsockname()[1])


def accept(listener: Listener) -> socket.socket:
    listener.socket.settimeout(20)
    connection, _ = listener.socket.accept()
    return connection


def test_tcp_options_reach_the_accepted_connection() -> None:
    listener = bind(LOCAL, 10)
    try:
        assert listener.socket.getblocking() is False
        assert listener.socket.get_inheritable() is False
        assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
        with socket.create_connection(listener.socket.getsockname()) as client:
            client.sendall(b"x")
            with accept(listener) as connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        listener.close()


def test_the_url_has_the_real_port() -> None:
    listener = bind(LOCAL, 10)
    assert listener.url() == f"http://127.0.0.1:{port_of(listener)}"
    assert port_of(listener) > 0
    listener.close()


def test_v6_is_v6_only() -> None:
    try:
        listener = bind(Listen(address="[::1]:0"), 10)
    except BindError:
        pytest.skip("no IPv6 on this machine")
    assert listener.url() == f"http://[::1]:{port_of(listener)}"
    assert listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    listener.close()


def test_an_address_in_use_is_named() -> None:
    listener = bind(LOCAL, 10)
    address = f"127.0.0.1:{port_of(listener)}"
    with pytest.raises(BindError, match=f"{address}: the address is in use"):
        bind(Listen(address=address), 10)
    listener.close()


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o660])
def test_a_unix_socket_has_its_mode_and_goes(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "s"
    listener = bind(Listen(address=f"unix:{path}", mode=mode), 10)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert listener.url() == f"unix:{path}"
    discard([listener])
    assert not path.exists()


def test_binding_leaves_the_umask_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        bind(Listen(address=f"unix:{tmp_path}/s"), 10).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    listen = Listen(address=f"unix:{tmp_path}/s")
    bind(listen, 10).close()
    listener = bind(listen, 10)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
        accept(listener).close()
    listener.close()


def test_a_unix_socket_in_use_is_left(tmp_path: Path) -> None:
    listen = Listen(address=f"unix:{tmp_path}/s")
    listener = bind(listen, 10)
    with pytest.raises(BindError, match="in use"):
        bind(listen, 10)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    listener.close()


def test_a_unix_socket_with_a_full_queue_is_in_use(tmp_path: Path) -> None:
    listen = Listen(address=f"unix:{tmp_path}/s")
    listener = bind(listen, 0)
    clients = []
    try:
        while True:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            client.connect(f"{tmp_path}/s")
    except BlockingIOError:
        pass
    with pytest.raises(BindError, match="in use"):
        bind(listen, 10)
    for sock in (*clients, listener.socket):
        sock.close()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        bind(Listen(address=f"unix:{path}"), 10)
    assert path.read_text() == "precious"


def test_another_servers_socket_is_not_unlinked(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = bind(Listen(address=f"unix:{path}"), 10)
    path.unlink()
    other = bind(Listen(address=f"unix:{path}"), 10)
    discard([listener])
    assert path.exists()
    discard([other])


def test_all_or_none(tmp_path: Path) -> None:
    taken = bind(LOCAL, 10)
    wanted = [
        Listen(address=f"unix:{tmp_path}/s"),
        Listen(address=f"127.0.0.1:{port_of(taken)}"),
    ]
    with pytest.raises(BindError):
        bind_all(wanted, 10)
    assert not (tmp_path / "s").exists()
    taken.close()


def test_a_kept_address_is_the_same_socket(tmp_path: Path) -> None:
    unix = Listen(address=f"unix:{tmp_path}/s")
    before = bind_all([LOCAL, unix], 10)
    after = bind_all([unix, Listen(address="127.0.0.2:0"), LOCAL], 10, before)
    assert after[0] is before[1]
    assert after[2] is before[0]
    assert after[1] not in before
    discard([*before, after[1]])


def test_a_failed_change_leaves_what_was_kept(tmp_path: Path) -> None:
    before = bind_all([LOCAL], 10)
    with pytest.raises(BindError):
        bind_all([LOCAL, Listen(address=f"unix:{tmp_path}/none/s")], 10, before)
    with socket.create_connection(before[0].socket.getsockname()) as client:
        client.sendall(b"x")
        accept(before[0]).close()
    discard(before)


def test_a_kept_unix_socket_gets_its_new_mode(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = bind_all([Listen(address=f"unix:{path}", mode=0o600)], 10)
    retune(listeners, [Listen(address=f"unix:{path}", mode=0o666)], 20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    discard(listeners)


def test_a_port_that_needs_rights_says_so() -> None:
    free_from = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        if free_from > 80:
            with pytest.raises(BindError, match="missing rights"):
                bind(Listen(address="127.0.0.1:80"), 10)
        else:  # a system on which anybody may have it
            discard([bind(Listen(address="127.0.0.1:80"), 10)])
    finally:
        os.seteuid(was)
