"""HTTP/1.1 and 1.0 on the wire: connections, framing, expectations, refusals and limits of size."""

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server import Client, Server
from tests.web import CONFIG, exchange, head, is_open, plant, serving, statuses, stream, usable

SIZES = {"a.txt": 100, "b.txt": 2000, "c.bin": 66000, "large.bin": 3_000_000}
LIMITS = """
    [limits]
    request_line = 1000
    header_bytes = 4000
    header_fields = 20
    body = 5000
"""
METHODS = ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "CONNECT")
CHUNKED = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http")
    root = folder / "root"
    root.mkdir()
    plant(root, SIZES)
    (root / "docs").mkdir()
    with serving(folder, CONFIG + LIMITS, root=root) as server:
        yield server


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with site.connect() as client:
        yield client


_numbers = itertools.count()


def fresh(site: Server, size: int = 500) -> str:
    """The name of a file that no cache knows yet."""
    name = f"fresh{next(_numbers)}.bin"
    plant(site.root, {name: size})
    return name


# How long a connection lives


def test_keep_alive(client: Client) -> None:
    for name in ["a.txt", "b.txt", "nothing", "c.bin", "large.bin"] * 3:
        reply = client.request(f"/{name}")
        assert reply.status == (200 if name in SIZES else 404)
        assert "connection" not in reply.headers
    assert is_open(client)


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "x , CLOSE", "close, TE"])
@pytest.mark.parametrize("target", ["/a.txt", "/large.bin", "/nothing", "/docs", "*"])
def test_connection_close(site: Server, value: str, target: str) -> None:
    answer = exchange(site, head(target, f"Connection: {value}", method="OPTIONS" if target == "*" else "GET"))
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in top
    assert target != "/large.bin" or body == stream("large.bin", SIZES["large.bin"])


def test_http_10_closes(client: Client) -> None:
    client.send(b"GET /a.txt HTTP/1.0\r\n\r\n")
    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(stream("a.txt", 100))
    assert b"Connection: close\r\n" in answer


def test_http_10_keep_alive(client: Client) -> None:
    for target in ("/a.txt", "/a.txt", "/a.txt", "/nothing", "/large.bin", "/a.txt"):
        client.send(f"GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".encode())
        assert client.read_reply().headers["connection"] == "keep-alive"
    client.send(b"GET /a.txt HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n")
    assert client.read_reply().headers["connection"] == "close"
    assert client.read_to_end() == b""


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_keepalive_requests(start_server: StartServer, docroot: Path, limit: int) -> None:
    server = start_server(f"[limits]\nkeepalive_requests = {limit}\n", root=docroot)
    for _ in range(4):
        with server.connect() as client:
            replies = [client.request("/a.txt") for _ in range(limit)]
            said = ["close" if reply.headers.get("connection") == "close" else "" for reply in replies]
            assert said == [""] * (limit - 1) + ["close"]
            assert client.read_to_end() == b""
    server.stop()
    assert server.counters()["requests"] == 4 * limit


# Many requests at once, and one in many pieces


def test_pipelined_in_one_segment(site: Server, client: Client) -> None:
    names = ["a.txt", "b.txt", "a.txt", fresh(site), "c.bin", "a.txt", fresh(site, 200_000), "b.txt"] * 3
    client.send(b"".join(head(f"/{name}") for name in names))
    for name in names:
        expected = (site.root / name).read_bytes()
        assert client.read_reply().body == expected
    assert is_open(client)


def test_pipelined_requests_of_all_kinds(site: Server, client: Client) -> None:
    etag = client.request("/a.txt").headers["etag"]
    kinds = [
        (head("/a.txt", method="HEAD"), 200), (head("/nothing"), 404), (head("/a.txt", f"If-None-Match: {etag}"), 304),
        (head("*", method="OPTIONS"), 204), (head("/docs"), 301), (head("/a.txt", "Range: bytes=5-9"), 206),
        (head(f"/{fresh(site)}", method="HEAD"), 200), (head("/a.txt", "Range: bytes=900-"), 416), (head("/.env"), 404),
        (head("/large.bin", "If-Match: x"), 412), (head("/docs/"), 403), (head("/x", method="BREW"), 501),
        (head("/a.txt", "Content-Length: 5") + b"GET /", 200), (head("/", "Transfer-Encoding: chunked") + CHUNKED, 403),
        (head("/", "Content-Length: 3", method="PUT") + b"abc", 405), (b"\r\n" + head("/b.txt"), 200),
    ]  # fmt: skip
    client.send(b"".join(data for data, _ in kinds * 3))
    for data, status in kinds * 3:
        assert client.read_reply(head=data.startswith(b"HEAD")).status == status, data
    assert is_open(client)


def test_pipelined_beyond_what_fits_the_buffers(site: Server, client: Client) -> None:
    names = ["large.bin", "a.txt", "c.bin", "large.bin", "b.txt"] * 3 + [fresh(site, 700_000)]
    client.send(b"".join(head(f"/{name}") for name in names))
    for name in names:
        assert client.read_reply().body == (site.root / name).read_bytes()


def test_hundreds_of_requests_in_flight(client: Client) -> None:
    client.send(head("/a.txt") * 700)
    for _ in range(700):
        assert client.read_reply().body == stream("a.txt", 100)


def test_nothing_is_answered_after_close(site: Server, client: Client) -> None:
    name = fresh(site)
    client.send(head("/a.txt") + head(f"/{name}", "Connection: close") + head("/b.txt") * 300)
    assert client.read_reply().status == 200
    assert client.read_reply().body == stream(name, 500)
    assert client.read_to_end() == b""


def test_single_bytes(client: Client) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.request("/b.txt")
    data = head("/a.txt") + b"\r\n" + head("/b.txt", "Transfer-Encoding: chunked") + CHUNKED
    data += head("/c.bin", "Content-Length: 4") + b"\r\n\r\n" + head("/b.txt")
    for place in range(len(data)):
        client.send(data[place : place + 1])
    for name in ("a.txt", "b.txt", "c.bin", "b.txt"):
        assert client.read_reply().body == stream(name, SIZES[name])
    assert is_open(client)


@pytest.mark.parametrize("name", ["a.txt", "large.bin", ""])
def test_a_client_that_closed_its_side_gets_its_replies(site: Server, name: str) -> None:
    names = [name or fresh(site, 300_000), "b.txt"]
    answer = exchange(site, b"".join(head(f"/{name}") for name in names))
    for name in names:
        top, _, answer = answer.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 200 ")
        content = (site.root / name).read_bytes()
        assert answer[: len(content)] == content
        answer = answer[len(content) :]
    assert answer == b""


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", head("/", "Content-Length: 9") + b"x"]
)
def test_a_request_that_is_never_complete(site: Server, data: bytes) -> None:
    assert exchange(site, data) == b""


# Bodies and expectations


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_bodies_are_read_and_dropped(client: Client, method: str, split: bool) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    status = {"OPTIONS": 204, "GET": 200, "HEAD": 200}.get(method, 405)
    evil = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    for fields, body in (
        (["Content-Length: 31"], evil),
        (["Content-Length: 5000"], b"\0" * 5000),
        (["Content-Length: 0"], b""),
        (["Transfer-Encoding: chunked"], CHUNKED),
        (["Transfer-Encoding: Chunked"], b"0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"1f\r\n" + evil + b"\r\n" + b"0\r\n\r\n"),
    ):
        for piece in (
            [head("/a.txt", *fields, method=method), body] if split else [head("/a.txt", *fields, method=method) + body]
        ):
            client.send(piece)
        assert client.read_reply(head=method == "HEAD").status == status
    assert usable(client)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["/a.txt", "/nothing"])
def test_methods_that_are_not_allowed(client: Client, method: str, target: str) -> None:
    reply = client.request("example.com:443" if method == "CONNECT" else target, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert b"405 Method Not Allowed" in reply.body
    assert usable(client)


@pytest.mark.parametrize("method", ["BREW", "get", "Get", "GETT", "G"])
def test_methods_that_nobody_knows(client: Client, method: str) -> None:
    assert client.request("/a.txt", method=method).status == 501
    assert usable(client)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (["Content-Length: 5", "Content-Length: 5"], b"hello"),
        (["Content-Length: 5, 5"], b"hello"),
        (["Content-Length: +5"], b"hello"),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
        (["Transfer-Encoding: chunked, gzip"], b"0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"5 \r\nhello\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"5\r\nhello!\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"5\nhello\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
def test_bad_framing_ends_the_connection(site: Server, method: str, fields: list[str], body: bytes) -> None:
    answer = exchange(site, head("/a.txt", *fields, method=method) + body + head("/b.txt"))
    assert statuses(answer) == [400]
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_that_is_too_large(site: Server, method: str) -> None:
    for fields, body in ((["Content-Length: 5001"], b""), (["Transfer-Encoding: chunked"], b"1389\r\n")):
        with site.connect() as client:
            client.send(head("/a.txt", *fields, method=method) + body + b"x" * 300_000)
            reply = client.read_reply()
            assert (reply.status, reply.headers["connection"]) == (413, "close")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.read_to_end() == b""


def test_expect_continue(client: Client) -> None:
    for _ in range(3):
        client.send(head("/a.txt", "Expect: 100-Continue", "Content-Length: 5"))
        assert client.read_reply().status == 100
        client.send(b"hello")
        assert client.read_reply().body == stream("a.txt", 100)
        client.send(head("/a.txt", "Expect: 100-continue"))
        assert client.read_reply().status == 200
    client.send(head("/a.txt", "Expect: 100-continue", "Content-Length: 0"))
    assert client.read_reply().status == 200
    client.send(head("/a.txt", "Expect: 100-continue", "Connection: keep-alive", version="1.0"))
    assert client.read_reply().status == 200


def test_expect_continue_and_refused(site: Server) -> None:
    expects = "Expect: 100-continue"
    for fields, method, status in (
        (["Content-Length: 5001"], "GET", 413),
        (["Content-Length: 9"], "POST", 405),
        (["Content-Length: x"], "GET", 400),
    ):
        answer = exchange(site, head("/a.txt", expects, *fields, method=method))
        assert statuses(answer) == [status]
        assert b"\r\nConnection: close\r\n" in answer
    assert statuses(exchange(site, head("/a.txt", "Expect: a miracle"))) == [417]


# Targets, versions, upgrades, limits of size


def test_absolute_form(client: Client) -> None:
    for target, status in (
        ("http://localhost/a.txt", 200),
        ("HTTP://x:80/a.txt?q", 200),
        ("https://x/nothing", 421),
        ("http://x", 403),
    ):
        assert client.request(target).status == status
    assert client.request("http://x/a.txt", {"Host": "bad host"}).status == 400


@pytest.mark.parametrize(("version", "status"), [("2.0", 505), ("1.2", 200), ("0.9", 505), ("3.1", 505), ("1.10", 400)])
def test_versions(site: Server, version: str, status: int) -> None:
    assert statuses(exchange(site, head("/a.txt", version=version))) == [status]


@pytest.mark.parametrize("fields", [["Host:"], ["Host: a", "Host: a"], ["Host: a@b"], ["Host: a/b"], ["X-No-Host: 1"]])
def test_hosts(site: Server, fields: list[str]) -> None:
    data = head("/a.txt", *fields) if fields[0].startswith("Host") else b"GET /a.txt HTTP/1.1\r\nX: 1\r\n\r\n"
    assert statuses(exchange(site, data)) == [400]


def test_upgrades_are_ignored(client: Client) -> None:
    fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    for _ in range(3):
        reply = client.request("/a.txt", fields)
        assert (reply.status, "upgrade" in reply.headers) == (200, False)
    assert client.request("/a.txt", {"Connection": "Upgrade", "Upgrade": "websocket"}).status == 200


def test_limits_of_size_hold_to_the_byte(site: Server) -> None:
    def line(size: int) -> bytes:
        return head("/a.txt?" + "q" * (size - len("GET /a.txt? HTTP/1.1")))

    def whole(size: int) -> bytes:
        return head("/a.txt", "X: " + "x" * (size - len(head("/a.txt", "X: "))))

    def fields(count: int) -> bytes:
        return head("/a.txt", *(f"X-{number}: 1" for number in range(count - 1)))

    for make, limit, status in ((line, 1000, 414), (whole, 4000, 431), (fields, 20, 431)):
        assert statuses(exchange(site, make(limit))) == [200]
        assert statuses(exchange(site, make(limit + 1))) == [status]
    assert statuses(exchange(site, b"GET /" + b"a" * 100_000)) == [414]
    assert statuses(exchange(site, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000)) == [431]
    assert statuses(exchange(site, b"A" * 100_000)) == [501]
