"""nginx in front, as many sites have it: proxy_pass with keep-alive, over TCP and over a unix socket."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import find, needs
from tests.server import Client, Reply, Server, wait_until
from tests.web import CONFIG, head, lines_of, nginx_config, plant, reset, serving, stream

pytestmark = needs("nginx")

LARGE = 20_000_000
SIZES = {"a.txt": 1000, "b.bin": 66_000, "large.bin": LARGE, "empty.txt": 0}
PROXY = """
    upstream flashpy {{
        server {upstream};
        keepalive 8;
    }}
    server {{
        listen unix:{folder}/front;
        location / {{
            proxy_pass http://flashpy;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-ID $request_id;
            proxy_max_temp_file_size 0;
        }}
    }}
"""


class Front:
    """nginx, and the server behind it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self._address = str(folder / "front")
        upstream = server.address if isinstance(server.address, tuple) else None
        text = PROXY.format(
            folder=folder, upstream=f"{upstream[0]}:{upstream[1]}" if upstream else f"unix:{server.address}"
        )
        (folder / "nginx.conf").write_text(nginx_config(folder, "error.log", text))
        command = [str(find("nginx") or "nginx"), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        self._log = folder / "error.log"
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        # It is written when the socket listens.
        wait_until((folder / "nginx.pid").exists, "nginx")

    def connect(self) -> Client:
        return Client(self._address)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        """What nginx has to say against its upstream."""
        return self._log.read_text()


@pytest.fixture(params=["tcp", "unix"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    root = tmp_path / "root"
    root.mkdir()
    plant(root, SIZES)
    (root / "docs").mkdir()
    listen = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/back"
    with serving(tmp_path, f'{CONFIG}[server]\nlisten = ["{listen}"]\n', root=root) as server:
        front = Front(tmp_path, server)
        try:
            yield front
            assert front.log() == ""
        finally:
            front.stop()


def accepted(front: Front) -> int:
    """Connections that the server behind has taken; it is stopped for that."""
    front.stop()
    assert front.server.stop() == 0
    return front.server.counters()["connections_accepted"]


def get(client: Client, target: str, *fields: str, method: str = "GET") -> Reply:
    client.send(head(target, *fields, method=method))
    return client.read_reply(head=method == "HEAD")


def test_whole_files_and_connections_that_are_used_again(front: Front) -> None:
    with front.connect() as client:
        for _ in range(5):
            for name, size in SIZES.items():
                reply = get(client, f"/{name}")
                assert (reply.status, reply.body) == (200, stream(name, size))
            assert get(client, "/nothing").status == 404
            assert get(client, "/docs").headers["location"].endswith("/docs/")
            assert get(client, "/a.txt", method="HEAD").headers["content-length"] == "1000"
            assert get(client, "/large.bin", method="HEAD").headers["content-length"] == str(LARGE)
            assert get(client, "/docs/").status == 403
    for _ in range(20):
        with front.connect() as client:
            assert get(client, "/a.txt").body == stream("a.txt", 1000)
    assert len(lines_of(front.server, 65)) == 65
    assert accepted(front) == 1


def test_ranges_and_conditions(front: Front) -> None:
    with front.connect() as client:
        reply = get(client, "/large.bin", "Range: bytes=65530-70000")
        assert (reply.status, reply.body) == (206, stream("large.bin", LARGE)[65530:70001])
        assert reply.headers["content-range"] == f"bytes 65530-70000/{LARGE}"
        several = get(client, "/b.bin", "Range: bytes=0-1,65000-")
        assert several.headers["content-type"].startswith("multipart/byteranges; boundary=")
        assert stream("b.bin", 66_000)[65_000:] in several.body
        assert get(client, "/a.txt", "Range: bytes=5000-").headers["content-range"] == "bytes */1000"
        for name in SIZES:
            tag = get(client, f"/{name}", method="HEAD").headers["etag"]
            same = get(client, f"/{name}", f"If-None-Match: {tag}")
            assert (same.status, same.headers["etag"], same.body) == (304, tag, b"")
        assert get(client, "/a.txt", 'If-Match: "x"').status == 412
        assert get(client, "/a.txt").body == stream("a.txt", 1000)
    assert accepted(front) == 1


def test_pipelined(front: Front) -> None:
    names = ["a.txt", "b.bin", "empty.txt", "a.txt", "large.bin", "b.bin"] * 3
    with front.connect() as client:
        client.send(b"".join(head(f"/{name}") for name in names))
        for name in names:
            assert client.read_reply().body == stream(name, SIZES[name])
    assert accepted(front) == 1


def test_requests_with_bodies(front: Front) -> None:
    """nginx passes the body on; the server reads and drops it, and the connection is used again."""
    with front.connect() as client:
        for method, status in (("POST", 405), ("PUT", 405), ("GET", 200)) * 3:
            client.send(head("/a.txt", "Content-Length: 1000", method=method) + b"x" * 1000)
            assert client.read_reply().status == status
    assert accepted(front) == 1


def test_clients_that_leave_in_the_middle(front: Front) -> None:
    for number in range(6):
        client = front.connect()
        client.send(head("/large.bin"))
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 200 ")
        if number % 2:
            reset(client)
        else:
            client.socket.close()
        with front.connect() as other:
            assert get(other, "/a.txt").body == stream("a.txt", 1000)
    lines = [line for line in lines_of(front.server, 12) if "large" in line]
    assert len(lines) == 6
    assert all('" 200 ' in line for line in lines)
    with front.connect() as client:
        assert get(client, "/large.bin").body == stream("large.bin", LARGE)
    assert accepted(front) <= 8  # one that stays, and one for each that was left
    assert front.server.counters()["disconnects"] >= 1
    assert front.server.counters()["connections_open"] == 0


def test_the_server_closes_idle_connections_and_nginx_comes_back(front: Front) -> None:
    """A worker that ends closes what nginx keeps; the next request goes to another without an error."""
    with front.connect() as client:
        assert get(client, "/a.txt").status == 200
        (old,) = front.server.workers()
        os.kill(old, 15)
        wait_until(lambda: front.server.workers() not in ([old], []), "another worker")
        wait_until(lambda: old not in front.server.tree(), "the end of the old one")
        for _ in range(3):
            assert get(client, "/a.txt").body == stream("a.txt", 1000)
