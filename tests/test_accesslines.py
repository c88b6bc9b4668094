"""The access log: every request exactly one line, which nobody can forge."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.server import Server, wait_until
from tests.web import exchange, head, lines_of, plant, reset

COMBINED = re.compile(
    r'(\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"'
)


def take_apart(line: str) -> tuple[str, ...]:
    """Address, request line, status, bytes, Referer, User-Agent."""
    found = COMBINED.fullmatch(line)
    assert found is not None, line
    return found.groups()


def taken_apart(server: Server, count: int) -> list[tuple[str, ...]]:
    """All lines, of which there are exactly so many once the server has stopped."""
    assert server.stop() == 0
    lines = lines_of(server, count)
    assert len(lines) == count == server.counters()["requests"]
    return [take_apart(line) for line in lines]


def test_the_combined_format(server: Server, raw: object) -> None:
    fields = {"Referer": "http://x/y?z", "User-Agent": "curl/8 (x; y)"}
    with server.connect() as client:
        for _ in range(3):
            client.request("/a.txt?q=1", fields)
        client.request("/", method="HEAD")
        client.request("/a.txt", {"Range": "bytes=1-3"})
        client.request("*", method="OPTIONS")
        etag = client.request("/empty.txt").headers["etag"]
        client.request("/empty.txt", {"If-None-Match": etag, "User-Agent": ""})
        missing = len(client.request("/nothing").body)
        moved = len(client.request("/docs").body)
        client.send(b"GET /a.txt HTTP/1.0\r\n\r\n")
        client.read_to_end()
    agent = "curl/8 (x; y)"
    assert taken_apart(server, 11) == [
        *[("127.0.0.1", "GET /a.txt?q=1 HTTP/1.1", "200", "7", "http://x/y?z", agent)] * 3,
        ("127.0.0.1", "HEAD / HTTP/1.1", "200", "0", "-", "-"),
        ("127.0.0.1", "GET /a.txt HTTP/1.1", "206", "3", "-", "-"),
        ("127.0.0.1", "OPTIONS * HTTP/1.1", "204", "0", "-", "-"),
        ("127.0.0.1", "GET /empty.txt HTTP/1.1", "200", "0", "-", "-"),
        ("127.0.0.1", "GET /empty.txt HTTP/1.1", "304", "0", "-", "-"),
        ("127.0.0.1", "GET /nothing HTTP/1.1", "404", str(missing), "-", "-"),
        ("127.0.0.1", "GET /docs HTTP/1.1", "301", str(moved), "-", "-"),
        ("127.0.0.1", "GET /a.txt HTTP/1.0", "200", "7", "-", "-"),
    ]


EVIL = [
    (b'GET /a.txt?"%22" HTTP/1.1', {"User-Agent": 'x" 200 0 "-" "y'}, r"GET /a.txt?\x22%22\x22 HTTP/1.1"),
    (b"GET /a.txt?\\ HTTP/1.1", {"Referer": "\\\"\\x22"}, r"GET /a.txt?\x5c HTTP/1.1"),
    (b"GET /a.txt HTTP/1.1", {"User-Agent": "caf\xe9\t\xff"}, "GET /a.txt HTTP/1.1"),
    (b"GET /\x1b[2J\x00 HTTP/1.1", {}, r"GET /\x1b[2J\x00 HTTP/1.1"),
    (b"GET /\xc3\xa9 HTTP/1.1", {}, r"GET /\xc3\xa9 HTTP/1.1"),
    (b"GET /\n127.0.0.1 - - [forged]", {}, "GET /"),
    (b"\x16\x03\x01\x02\x00\x01\x00", {}, r"\x16\x03\x01\x02\x00\x01\x00"),
    (b'"" "" ""', {}, r"\x22\x22 \x22\x22 \x22\x22"),
    (b"GET /a\rb HTTP/1.1", {}, r"GET /a\x0db HTTP/1.1"),
]  # fmt: skip


def test_nobody_can_forge_a_line(server: Server) -> None:
    for line, fields, _ in EVIL:
        rest = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")
        exchange(server, line + b"\r\nHost: x\r\n" + rest + b"\r\n")
    for found, (_, _, said) in zip(taken_apart(server, len(EVIL)), EVIL, strict=True):
        assert found[1] == said
    whole = server.access.read_bytes()
    assert all(32 <= byte < 127 or byte == 10 for byte in whole)
    assert rb"x\x22 200 0 \x22-\x22 \x22y" in whole


def test_refused_requests_have_a_line(server: Server) -> None:
    refused = [
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", "400", "GET /%00 HTTP/1.1"),
        (b"GET /a.txt HTTP/1.1\r\n\r\n", "400", "GET /a.txt HTTP/1.1"),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", "505", "GET / HTTP/3.0"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", "501", "BREW / HTTP/1.1"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", "405", "PUT / HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "413", "GET / HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: y\r\n\r\n", "417", "GET / HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", "431", "GET / HTTP/1.1"),
        (b"GET /" + b"a" * 20000, "414", "GET /" + "a" * 1019),
        (b"nonsense\r\n\r\n", "400", "nonsense"),
    ]
    for data, _, _ in refused:
        exchange(server, data)
    found = taken_apart(server, len(refused))
    assert [(line[2], line[1]) for line in found] == [(status, said) for _, status, said in refused]
    # The error log says why, with the client's address, where the status alone does not.
    assert len([line for line in server.log_lines() if "127.0.0.1: 4" in line]) == 7


def test_requests_that_came_to_nothing_have_a_line(start_server: StartServer, docroot: Path) -> None:
    plant(docroot, {"huge.bin": 50_000_000})
    listen = f"unix:{docroot.parent}/s"
    config = f'[server]\nlisten = ["127.0.0.1:0", "{listen}"]\n[limits]\nheader_timeout = 0.5\nsend_timeout = 0.8\n'
    server = start_server(config, root=docroot)
    for listener in (0, 1):
        with server.connect(listener) as client:  # aborted while the reply is sent
            client.send(head("/huge.bin?aborted"))
            client.socket.recv(100)
            reset(client)
        with server.connect(listener) as client:  # gone before the reply
            client.send(head("/nothing?gone"))
            reset(client)
        with server.connect(listener) as client:  # aborted while its body is read
            client.send(head("/a.txt?body", "Content-Length: 10") + b"x")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.read_to_end() == b""
    with server.connect() as late:
        late.send(b"GET /late HTTP/1.1\r\n")
        assert late.read_reply().status == 408
    with server.connect() as slow:
        slow.send(head("/huge.bin?slow"))
        wait_until(lambda: "?slow" in server.access.read_text(), "the line of the client that takes nothing")
    lines = wait_until(lambda: (found := server.access.read_text().splitlines()) and len(found) >= 6 and found)
    server.stop()
    assert server.counters()["requests"] == len(server.access.read_text().splitlines())
    found = [take_apart(line) for line in server.access.read_text().splitlines()]
    assert lines
    for text, count, status in (("?aborted", 2, "200"), ("?body", 2, "499"), ("/late", 1, "408"), ("?slow", 1, "200")):
        matching = [line for line in found if text in line[1]]
        assert [line[2] for line in matching] == [status] * count, text
        assert all(int(line[3]) < 50_000_000 for line in matching)
    # Over TCP a reset may overtake the request itself, then there was none.
    assert len([line for line in found if "?gone" in line[1]]) in (1, 2)
    assert {line[0] for line in found} == {"127.0.0.1", "unix:"}


def test_pipelined_requests_have_a_line_each(server: Server) -> None:
    targets = [f"/a.txt?{number}" for number in range(50)] + ["/nothing"] * 3 + ["/large.bin", "/a.txt?0"] * 4
    exchange(server, b"".join(head(target) for target in targets))
    found = taken_apart(server, len(targets))
    assert sorted(line[1] for line in found) == sorted(f"GET {target} HTTP/1.1" for target in targets)
    assert {line[3] for line in found if "large" in line[1]} == {"1048576"}


def test_lines_are_dropped_and_counted_when_nobody_writes_them(server: Server) -> None:
    (helper,) = wait_until(lambda: server.named("flashpy-log"))
    agent = {"User-Agent": "x" * 8000}
    count = 600
    os.kill(helper, signal.SIGSTOP)
    try:
        with server.connect() as client:
            for _ in range(count):
                assert client.request("/a.txt", agent).status == 200
    finally:
        os.kill(helper, signal.SIGCONT)
    with server.connect() as client:

        def writes_again() -> bool:
            nonlocal count
            count += client.request("/a.txt?after").status == 200
            return "?after" in server.access.read_text()

        wait_until(writes_again, "a line after the gap")
    server.stop()
    written = server.access.read_text().splitlines()
    for line in written:
        take_apart(line)
    counters = server.counters()
    assert counters["log_dropped"] > 0
    assert len(written) + counters["log_dropped"] == counters["requests"] == count


def test_usr1_opens_the_file_again(server: Server) -> None:
    old = server.access.with_suffix(".1")
    with server.connect() as client:
        for _ in range(20):
            client.request("/a.txt?old")
        lines_of(server, 20)
        server.access.rename(old)
        client.request("/a.txt?between")
        server.signal(signal.SIGUSR1)
        wait_until(server.access.exists, "the new file")
        for _ in range(20):
            client.request("/a.txt?new")
    server.stop()
    lines = old.read_text().splitlines() + server.access.read_text().splitlines()
    assert len(lines) == 41 == server.counters()["requests"]
    assert "?old" not in server.access.read_text()
    assert "?new" in lines[-1]


@pytest.mark.parametrize("access", ["off", "-"])
def test_off_and_standard_output(start_server: StartServer, docroot: Path, access: str) -> None:
    server = start_server(f'[log]\naccess = "{access}"\n', root=docroot)
    with server.connect() as client:
        for _ in range(5):
            assert client.request("/a.txt").status == 200
    server.stop()
    lines = [line for line in server.stdout.splitlines() if not line.startswith("flashpy: ")]
    assert [take_apart(line)[2] for line in lines] == ([] if access == "off" else ["200"] * 5)
    assert not (server.folder / "access.log").exists()
    assert server.counters()["requests"] == 5
