"""Proxies of conf/examples in front of a server: each example as it stands but for its places.

They get listening sockets that exist already, so nobody waits for a port, and nobody takes it.
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.needs import find
from tests.server import SECONDS, Client, Server
from tests.web import nginx_config

EXAMPLES = Path(__file__).parent.parent / "conf" / "examples"


class Behind:
    """A server, and where the proxy in front of it listens."""

    def __init__(self, server: Server, front: tuple[str, int]) -> None:
        self.server = server
        self._front = front

    def connect(self, source: str = "") -> Client:
        """A client of the proxy, from this address or any."""
        return Client(self._front, source)


def listener(way: str, folder: Path, name: str = "back", host: str = "127.0.0.1") -> str:
    """What `[server] listen` says: "tcp" is any free port of the host, "unix" a socket of this name in the folder."""
    return f"{host}:0" if way == "tcp" else f"unix:{folder}/{name}"


def place(address: tuple[str, int] | str, unix: str = "unix:") -> str:
    """An address as proxies write it, with what they have before the path of a unix socket."""
    return f"{unix}{address}" if isinstance(address, str) else f"{address[0]}:{address[1]}"


def example(name: str, places: Mapping[str, str]) -> str:
    """The example with other addresses. Each of them stands in it as often as in this test, outside its comments."""
    lines = (EXAMPLES / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")) + "\n"
    for old, new in places.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def running(command: Sequence[str], log: Path, **options: object) -> Iterator[None]:
    """A proxy for as long as the block lasts; it must have had nothing to complain of."""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, **options)  # type: ignore[call-overload]
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        end(process)
    assert "ALERT" not in log.read_text()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and see to it that it does."""
    process.terminate()
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextmanager
def nginx(folder: Path, name: str, front: socket.socket, places: Mapping[str, str]) -> Iterator[None]:
    """nginx with this example, which listens at one place."""
    places = {"listen 127.0.0.1:80;": f"listen {place(front.getsockname())};", **places}
    (folder / "example.conf").write_text(example(name, places))
    (folder / "nginx.conf").write_text(nginx_config(folder, "nginx.log", f"    include {folder}/example.conf;\n"))
    command = [str(find("nginx")), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"]
    environment = {**os.environ, "NGINX": f"{front.fileno()};"}  # its own way to inherit a listening socket
    with running(command, folder / "nginx.out", pass_fds=[front.fileno()], env=environment):
        yield
        said = (folder / "nginx.log").read_text().splitlines()
        assert [line for line in said if "[notice]" not in line] == []


@contextmanager
def haproxy(folder: Path, fronts: Sequence[socket.socket], places: Mapping[str, str]) -> Iterator[None]:
    """HAProxy with its example, which listens at two places."""
    binds = {f"bind 127.0.0.1:{80 + n}\n": f"bind fd@{front.fileno()}\n" for n, front in enumerate(fronts)}
    (folder / "haproxy.cfg").write_text(example("haproxy.cfg", {**binds, **places}))
    command = [str(find("haproxy")), "-db", "-f", f"{folder}/haproxy.cfg"]
    with running(command, folder / "haproxy.log", pass_fds=[front.fileno() for front in fronts]):
        yield
