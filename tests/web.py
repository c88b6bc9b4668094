"""What tests share: a site with known bytes, servers that several tests use, requests, what comes of them."""

import hashlib
import itertools
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server import Client, Reply, Server, wait_until

CHUNK = 65536
"""The chunk size that `CONFIG` sets: the smallest, so that small files have several."""

CONFIG = '[cache]\nchunk = "64KiB"\nmemory = "8MiB"\n'


def stream(name: str, size: int) -> bytes:
    """The content of a file: no two names have the same, and no two blocks of it are alike."""
    return hashlib.shake_128(name.encode()).digest(size)


def plant(root: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Write files of these sizes; what each holds."""
    contents = {name: stream(name, size) for name, size in sizes.items()}
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


@contextmanager
def serving(folder: Path, config: str = "", **options: Any) -> Iterator[Server]:
    """A server for as long as the block lasts, checked at its end as ``start_server`` does."""
    server = Server(folder / "server", config, wait=False, **options)
    try:
        server.wait_ready()
        yield server
    finally:
        server.finish()


def head(target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request head; Host is there unless one of the fields is."""
    lines = [f"{method} {target} HTTP/{version}", *fields]
    if not any(field.lower().startswith("host:") for field in fields):
        lines.insert(1, "Host: localhost")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def exchange(server: Server, data: bytes, listener: int = 0) -> bytes:
    """Everything that comes back for these bytes, from a client that closes its side after them."""
    with server.connect(listener) as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        return client.read_to_end()


def statuses(data: bytes) -> list[int]:
    """The status codes of replies whose content has no status line in it."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def reset(client: Client) -> None:
    """Close with a reset, as a peer that vanishes."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def is_open(client: Client) -> bool:
    """Whether the server still holds the connection open, and has sent nothing more."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        client.socket.settimeout(30)


def usable(client: Client) -> bool:
    """Whether the connection takes another request."""
    return client.request("/a.txt").status == 200


def lines_of(server: Server, count: int) -> list[str]:
    """The access lines, when there are ``count`` of them."""
    lines: list[str] = wait_until(lambda: _lines(server, count), f"{count} access lines")
    return lines


def _lines(server: Server, count: int) -> list[str] | None:
    lines = server.access.read_text().splitlines() if server.access.exists() else []
    return lines if len(lines) >= count else None


def addresses(server: Server, count: int) -> list[str]:
    """Whose each access line is."""
    return [line.split(" ")[0] for line in lines_of(server, count)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces: places beyond their end begin again at their beginning."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def fields_of(reply: Reply) -> dict[str, str]:
    """The fields of a reply, but for the date."""
    return {name: value for name, value in reply.headers.items() if name != "date"}


def nginx_config(folder: Path, log: str, http: str) -> str:
    """A configuration of nginx that lives in `folder` and writes its complaints to `log` there; `http` is the rest."""
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/{log} warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
{temporary}{http}}}
"""
