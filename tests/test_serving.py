"""Files, folders, sites and names, as a client of a running server sees them."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.needs import needs_root
from tests.server import Client, Server
from tests.web import CHUNK, CONFIG, exchange, fields_of, head, plant, serving, stream

SIZES = {
    "empty.bin": 0,
    "one.bin": 1,
    "small.bin": 1000,
    "chunk-1.bin": CHUNK - 1,
    "chunk.bin": CHUNK,
    "chunk+1.bin": CHUNK + 1,
    "chunks.bin": 3 * CHUNK,
    "large.bin": 20 * CHUNK + 7,
}
TYPES = {
    "page.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "code.js": "text/javascript; charset=utf-8",
    "data.json": "application/json",
    "picture.svg": "image/svg+xml; charset=utf-8",
    "picture.PNG": "image/png",
    "archive.tar.gz": "application/gzip",
    "noextension": "application/octet-stream",
    "odd.own": "text/x-own; charset=utf-8",
}
NAMES = {
    "with space.txt": "/with%20space.txt",
    "grüße.txt": "/gr%C3%BC%C3%9Fe.txt",
    "日本/語.txt": "/%E6%97%A5%E6%9C%AC/%e8%aa%9e.txt",
    "100%.txt": "/100%25.txt",
    "a?b#c.txt": "/a%3Fb%23c.txt",
    "%41.txt": "/%2541.txt",
    "plus+&=;,@:!$'()*~.txt": "/plus+&=;,@:!$'()*~.txt",
    "a" * 251 + ".txt": "/" + "a" * 251 + ".txt",
    "d" * 200 + "/" + "e" * 200 + "/f.txt": "/" + "d" * 200 + "/" + "e" * 200 + "/f.txt",
    "\x01\x7f.txt": "/%01%7F.txt",
    "two..dots": "/two..dots",
    "...": None,
}
PLAIN = (
    "a.txt", "index.html", "docs/index.html", "docs/a.txt", "docs/.hidden", ".hidden", ".git/config", "..a",
    "evil.com/index.html", "bare/x.txt", ".well-known/security.txt", "docs/.well-known/x",
)  # fmt: skip
BAD_TARGETS = (
    "/a%00b", "/%00", "/docs%2fa.txt", "/docs%2Fa.txt", "/docs%5ca.txt", "/docs\\a.txt", "/..", "/../etc/passwd",
    "/docs/../../etc/passwd", "/%2e%2e/etc/passwd", "/%2e%2e%2fetc/passwd", "/.%2e/etc/passwd", "/..%c0%afetc/passwd",
    "/%c0%ae%c0%ae/etc/passwd", "/%e0%80%ae", "/%ff", "/%ed%a0%80", "/%", "/%4", "/%zz", "/a#b", "*", "a.txt",
    "ftp://localhost/a.txt", "http://", "/caf\xe9",
)  # fmt: skip
MISSING = (
    "/nothing", "/docs/nothing", "/a.txt/", "/a.txt/b", "/" + "n" * 256, "/" + "/".join(["m" * 200] * 25),
    "/.hidden", "/docs/.hidden", "/.git/config", "/..a", "/docs/.well-known/x", "/.well-known/nothing",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    plant(root, SIZES)
    for name in TYPES:
        (root / name).write_text(name)
    for name, target in NAMES.items():
        if target is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
    for name in PLAIN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over all of it."""
    config = CONFIG + '[[site]]\nheaders = { X-One = "1", X-Two = "b c" }\ntypes = { own = "text/x-own" }\n'
    with serving(tmp_path_factory.mktemp("serving"), config, root=root) as server:
        yield server


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with site.connect() as client:
        yield client


@pytest.mark.parametrize("name", SIZES)
def test_every_byte_of_a_file(client: Client, name: str) -> None:
    content = stream(name, SIZES[name])
    for _ in range(3):  # cold, from memory, from the memo
        reply = client.request(f"/{name}")
        assert (reply.status, reply.headers["content-length"]) == (200, str(SIZES[name]))
        assert reply.body == content
        assert reply.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("target", ["/", "/one.bin", "/large.bin", "/empty.bin", "/docs", "/nothing", "/bare/", "/%00"])
def test_head_has_the_fields_of_get(site: Server, target: str) -> None:
    for _ in range(2):
        got = site.get(target)
        told = site.get(target, method="HEAD")
        assert (told.status, told.body) == (got.status, b"")
        assert fields_of(told) == fields_of(got)
        assert int(told.headers["content-length"]) == len(got.body)


def test_head_sends_no_byte_of_content(client: Client) -> None:
    for target in ("/small.bin", "/large.bin", "/nothing", "/docs", "/small.bin"):
        client.request(target, method="HEAD")
    assert client.request("/one.bin").body == stream("one.bin", 1)
    assert client.pending == b""


@pytest.mark.parametrize("target", ["*", "/", "/nothing", "http://localhost/a"])
def test_options(client: Client, target: str) -> None:
    reply = client.request(target, method="OPTIONS")
    assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "content-length" not in reply.headers
    assert client.request("/a.txt").status == 200


def test_common_fields(site: Server) -> None:
    reply = site.get("/a.txt")
    for field in ("date", "last-modified"):
        assert reply.headers[field].endswith(" GMT")
    assert reply.headers["etag"].startswith('"')
    assert (reply.headers["x-one"], reply.headers["x-two"]) == ("1", "b c")
    assert site.get("/docs").headers["x-one"] == "1"


@pytest.mark.parametrize("target", ["/", "/docs/", "/docs/?x=/y"])
def test_index_files(client: Client, target: str) -> None:
    name = "index.html" if target == "/" else "docs/index.html"
    for _ in range(2):
        reply = client.request(target)
        assert (reply.status, reply.body.decode()) == (200, name)
        assert reply.headers["content-type"] == "text/html; charset=utf-8"


def test_a_folder_without_an_index_is_not_shown(client: Client) -> None:
    assert client.request("/bare/").status == 403
    assert client.request("/bare").headers["location"] == "/bare/"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/docs", "/docs/"),
        ("/docs?a=1&b=%2F", "/docs/?a=1&b=%2F"),
        ("/docs?", "/docs/?"),
        ("/docs/../docs", "/docs/"),
        ("//docs", "/docs/"),
        ("//evil.com", "/evil.com/"),
        ("///evil.com", "/evil.com/"),
        ("/.//evil.com", "/evil.com/"),
        ("/%65vil.com", "/evil.com/"),
        ("http://localhost/docs?x", "/docs/?x"),
        ("http://localhost//evil.com", "/evil.com/"),
        ("/%E6%97%A5%E6%9C%AC", "/%E6%97%A5%E6%9C%AC/"),
    ],
)
def test_a_folder_without_its_slash(client: Client, target: str, location: str) -> None:
    for _ in range(2):
        reply = client.request(target)
        assert (reply.status, reply.headers["location"]) == (301, location)


@pytest.mark.parametrize(
    "target", ["/%2f%2fevil.com", "/%2fevil.com", "/\\evil.com", "/%5cevil.com", "/evil.com%0d%0aSet-Cookie:%20a=b"]
)
def test_no_open_redirect(site: Server, target: str) -> None:
    answer = exchange(site, head(target))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert b"ocation" not in answer
    assert b"Set-Cookie" not in answer


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_bad_targets(site: Server, target: str) -> None:
    reply = site.get(target)
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"400 Bad Request" in reply.body


@pytest.mark.parametrize("target", MISSING)
def test_what_is_missing_or_hidden(client: Client, target: str) -> None:
    for _ in range(2):
        assert client.request(target).status == 404


def test_well_known_is_served(client: Client) -> None:
    assert client.request("/.well-known/security.txt").body == b".well-known/security.txt"


@pytest.mark.parametrize(("name", "target"), [(name, target) for name, target in NAMES.items() if target is not None])
def test_names(client: Client, name: str, target: str) -> None:
    for _ in range(2):
        reply = client.request(target)
        assert (reply.status, reply.body.decode()) == (200, name)


@pytest.mark.parametrize("name", TYPES)
def test_types(client: Client, name: str) -> None:
    assert client.request(f"/{name}").headers["content-type"] == TYPES[name]


def test_the_query_is_not_part_of_the_name(client: Client) -> None:
    for target in ("/a.txt?", "/a.txt?b=/../../c", "/a.txt?%00%2f"):
        assert client.request(target).body == b"a.txt"


def test_what_is_no_file_is_missing_and_blocks_nobody(start_server: StartServer, docroot: Path) -> None:
    os.mkfifo(docroot / "fifo")
    (docroot / "tty").symlink_to("/dev/tty")
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(docroot / "socket"))
        server = start_server("[helpers]\nmin = 1\nmax = 2\ntimeout = 5\n[[site]]\nsymlinks = 'follow'\n", root=docroot)
        for _ in range(4):
            for name in ("fifo", "socket", "tty"):
                assert server.get(f"/{name}").status == 404
        assert server.get("/a.txt").status == 200
    server.stop()
    assert server.counters()["helpers_written_off"] == 0
    assert server.counters()["status_4xx"] == 12


def test_symlinks(start_server: StartServer, docroot: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (docroot / "near.txt").symlink_to("a.txt")
    (docroot / "docs" / "up.txt").symlink_to("../a.txt")
    (docroot / "absolute.txt").symlink_to(docroot / "a.txt")
    (docroot / "far.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (docroot / "climb.txt").symlink_to("../outside/secret.txt")
    (docroot / "folder").symlink_to(tmp_path / "outside")
    (docroot / "loop").symlink_to("loop")
    names = ("near.txt", "docs/up.txt", "absolute.txt", "far.txt", "climb.txt", "folder/secret.txt", "loop")
    expected = {
        "inside": [200, 200, 200, 403, 403, 403, 404],
        "deny": [403, 403, 403, 403, 403, 403, 403],
        "follow": [200, 200, 200, 200, 200, 200, 404],
    }
    config = "".join(f'[[site]]\nhosts = ["{policy}"]\nsymlinks = "{policy}"\n' for policy in expected)
    server = start_server(config, root=docroot)
    for policy, wanted in expected.items():
        found = [server.get(f"/{name}", {"Host": policy}).status for name in names]
        assert [404 if status == 404 else status for status in found][:6] == wanted[:6], policy
        assert found[6] in (403, 404)
        assert server.get("/a.txt", {"Host": policy}).status == 200


@needs_root()
def test_what_may_not_be_read(start_server: StartServer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("open.txt", "closed.txt", "locked/a.txt"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(name)
        (root / "closed.txt").chmod(0o600)
        (root / "locked").chmod(0o700)
        server = start_server('[server]\nuser = "nobody"\n', root=root)
        assert server.get("/open.txt").status == 200
        assert server.get("/closed.txt").status == 403
        assert server.get("/locked/a.txt").status == 403
        assert server.get("/locked/nothing").status == 403
        server.stop()


def test_sites_by_host(start_server: StartServer, tmp_path: Path) -> None:
    hosts = {"first": "[]", "second": '["second.example", "[::1]"]', "third": '["third.example"]'}
    config = ""
    for name in hosts:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        config += f'[[site]]\nroot = "{tmp_path}/{name}"\nheaders = {{ X-Site = "{name}" }}\n'
        config += f"hosts = {hosts[name]}\n"
    server = start_server(config + 'dotfiles = true\ncharset = ""\n')
    (tmp_path / "third" / ".env").write_text("shown")
    wanted = {
        "second.example": "second", "SECOND.Example": "second", "second.example:8080": "second",
        "second.example.": "second", "[::1]:80": "second", "third.example": "third",
        "unknown": "first", "127.0.0.1": "first", "www.third.example": "first",
    }  # fmt: skip
    with server.connect() as client:
        for _ in range(3):
            for host, name in wanted.items():
                reply = client.request("/a.txt", {"Host": host})
                assert (reply.body.decode(), reply.headers["x-site"]) == (name, name), host
        # The target's host is stronger than the field (RFC 9112, 3.2.2).
        assert client.request("http://third.example/a.txt", {"Host": "second.example"}).body == b"third"
        assert client.request("/.env", {"Host": "third.example"}).body == b"shown"
        assert client.request("/.env", {"Host": "second.example"}).status == 404
        assert client.request("/a.txt", {"Host": "third.example"}).headers["content-type"] == "text/plain"
        client.send(b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.read_reply().body == b"first"


def test_mounts(start_server: StartServer, docroot: Path, tmp_path: Path) -> None:
    for name in ("files", "files/deep", "media"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (docroot / "files").mkdir()
    (docroot / "files" / "a.txt").write_text("covered")
    config = f"""
        [[site]]
        mount = [{{ at = "/files/", root = "{tmp_path}/files" }}, {{ at = "/files/media/", root = "{tmp_path}/media" }}]
    """
    server = start_server(config, root=docroot)
    wanted = {
        "a.txt": "a text\n",
        "files/a.txt": "files",
        "files/deep/a.txt": "files/deep",
        "files/media/a.txt": "media",
    }
    with server.connect() as client:
        for target, body in wanted.items():
            assert client.request(f"/{target}").body.decode() == body
        assert client.request("/files?q").headers["location"] == "/files/?q"
        assert client.request("/files/media").headers["location"] == "/files/media/"
        assert client.request("/files/deep").headers["location"] == "/files/deep/"
        assert client.request("/files/media/../a.txt").body == b"files"
        assert client.request("/files/").status == 403
        assert client.request("/filesa.txt").status == 404


def test_a_root_that_goes_away_is_told_once(start_server: StartServer, docroot: Path) -> None:
    """Everything is missing then, and a file that is missing is told of nowhere else."""
    (docroot / "www").mkdir()
    (docroot / "www/a.txt").write_bytes(b"a")
    server = start_server("[cache]\nrevalidate = 0\nmax_stale = 0\n", root=docroot / "www")
    warning = f"[warning] the root '{docroot}/www' is not there"
    with server.connect() as client:
        for times in (1, 2):
            (docroot / "www").rename(docroot / "away")
            for number in range(5):
                assert client.request(f"/{times}{number}").status == 404
            server.wait_log(warning, times)
            (docroot / "away").rename(docroot / "www")
            assert client.request("/a.txt").body == b"a"
    server.stop()
    assert sum(warning in line for line in server.log_lines()) == 2
