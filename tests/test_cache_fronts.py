"""Caches in front, as conf/examples has them: nginx with proxy_cache, and Varnish. The server is their origin.

What reached it is in its access log: a hit does not, a reply that was too old comes as a 304. Everything is tried
over TCP and over a unix socket.
"""

import gzip
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import brotli
import pytest

from tests import fronts
from tests.fronts import Behind, listener, place
from tests.needs import find, needs
from tests.server import Reply, Server, wait_until
from tests.web import CONFIG, head, lines_of, plant, reset, serving, stream

LARGE = 20_000_000
PIECE = 1 << 20
SIZES = {"a.txt": 1000, "b.bin": 66_000, "downloads/large.bin": LARGE, "private/large.bin": LARGE}
PAGE = b"<p>A page that is long enough.</p>" * 20
# Varnish unpacks what says gzip, to see whether it is.
CODED = {".br": brotli.compress(PAGE), ".gz": gzip.compress(PAGE, mtime=0), "": PAGE}
SITE = """
[[site]]
[[site.rule]]
match = "/**"
cache = "{fresh}"
[[site.rule]]
match = "/private/**"
cache = "no-store"
[[site]]
hosts = ["two.example"]
root = "{two}"
"""
FRESH = "1h"
SHORT = "1s"


class Cached(Behind):
    """The server, and the cache in front of it, which says in the field `state` whether it had something."""

    def __init__(self, server: Server, front: tuple[str, int], state: str, past: str) -> None:
        super().__init__(server, front)
        self._state = state
        self.past = past
        """A large file that goes past the cache, no faster than the client takes it."""

    def get(self, target: str, *fields: str) -> Reply:
        with self.connect() as client:
            client.send(head(target, *fields))
            return client.read_reply()

    def state(self, reply: Reply) -> str:
        """What the cache says of itself: HIT, MISS."""
        return reply.headers[self._state]

    def asked(self, target: str, count: int = 1) -> list[str]:
        """The access lines of the server for this target, when there are so many."""
        lines: list[str] = wait_until(lambda: self._asked(target, count), f"{count} lines of {target}")
        return lines

    def _asked(self, target: str, count: int) -> list[str] | None:
        log = self.server.access
        lines = log.read_text().splitlines() if log.exists() else []
        found = [line for line in lines if f'"GET {target} HTTP' in line]
        return found if len(found) >= count else None

    def sockets(self) -> int:
        """Sockets of the worker: its connections, and a constant number of others."""
        (worker,) = self.server.workers()
        held = 0
        for entry in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(FileNotFoundError):
                held += os.readlink(entry).startswith("socket:")
        return held


def plant_all(root: Path, two: Path) -> None:
    """The files of both sites; the page and its siblings have one time."""
    root.mkdir()
    two.mkdir()
    plant(root, SIZES)
    (two / "a.txt").write_text("two")
    for suffix, content in CODED.items():
        (root / f"page.html{suffix}").write_bytes(content)
        os.utime(root / f"page.html{suffix}", (1_700_000_000, 1_700_000_000))


@contextmanager
def origin(tmp_path: Path, way: str, fresh: str) -> Iterator[Server]:
    """The server that is behind."""
    root, two = tmp_path / "root", tmp_path / "two"
    plant_all(root, two)
    listen = listener(way, tmp_path)
    server = f'[server]\nlisten = ["{listen}"]\ntrusted_proxies = ["127.0.0.1", "unix:"]\n'
    with serving(tmp_path, CONFIG + server + SITE.format(fresh=fresh, two=two), root=root) as running:
        yield running


@contextmanager
def nginx(tmp_path: Path, server: Server) -> Iterator[Cached]:
    places = {
        "server 127.0.0.1:8080;": f"server {place(server.address)};",
        "/var/cache/nginx/flashpy": f"{tmp_path}/cache",
    }
    with socket.create_server(("127.0.0.1", 0)) as front, fronts.nginx(tmp_path, "nginx-cache.conf", front, places):
        yield Cached(server, front.getsockname(), "x-cache-status", "/private/large.bin")


def backend(address: tuple[str, int] | str) -> dict[str, str]:
    """Where Varnish finds the server, in the place of what the example has."""
    host, port = '.host = "127.0.0.1";', '.port = "8080";'
    if isinstance(address, str):
        return {host: f'.path = "{address}";', port: ""}
    return {host: f'.host = "{address[0]}";', port: f'.port = "{address[1]}";'}


@contextmanager
def varnish(tmp_path: Path, server: Server) -> Iterator[Cached]:
    # So that the large files of this test are such.
    places = {**backend(server.address), "> 50000000": f"> {LARGE - 1}"}
    (tmp_path / "varnish.vcl").write_text(fronts.example("varnish.vcl", places))
    work = tmp_path / "varnish"
    command = [str(find("varnishd")), "-F", "-j", "none", "-n", str(work), "-f", str(tmp_path / "varnish.vcl")]
    command += ["-a", "127.0.0.1:0", "-s", "malloc,64m", "-p", "http_gzip_support=off"]
    with fronts.running(command, tmp_path / "varnish.log"):
        front = wait_until(lambda: varnish_address(work), "varnishd")
        yield Cached(server, front, "x-cache", "/downloads/large.bin")


def varnish_address(work: Path) -> tuple[str, int] | None:
    """Where it listens, as soon as it says so: "a0 127.0.0.1 36817"."""
    command = [str(find("varnishadm")), "-n", str(work), "-t", "1", "debug.listen_address"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    words = said.stdout.split()
    return (words[1], int(words[2])) if said.returncode == 0 and len(words) >= 3 else None


Open = Callable[[str], Cached]


@pytest.fixture(
    params=[
        pytest.param((kind, way), id=f"{kind.__name__}-{way}", marks=needs(*tools))
        for kind, tools in ((nginx, ["nginx"]), (varnish, ["varnishd"]))
        for way in ("tcp", "unix")
    ]
)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Starts the server, whose files stay fresh for so long, and the cache in front of it."""
    kind, way = request.param
    with ExitStack() as stack:

        def start(fresh: str = FRESH) -> Cached:
            server = stack.enter_context(origin(tmp_path, way, fresh))
            behind: Cached = stack.enter_context(kind(tmp_path, server))
            return behind

        yield start


def test_a_hit_does_not_reach_the_server(cache: Open) -> None:
    behind = cache(FRESH)
    replies = [behind.get("/a.txt") for _ in range(5)]
    assert {reply.body for reply in replies} == {stream("a.txt", 1000)}
    assert [behind.state(reply) for reply in replies] == ["MISS", *["HIT"] * 4]
    assert len({reply.headers["etag"] for reply in replies}) == 1
    assert behind.server.stop() == 0
    assert len(behind.asked("/a.txt")) == 1


def test_the_client_of_a_miss_is_in_the_log(cache: Open) -> None:
    behind = cache(FRESH)
    with behind.connect("127.0.0.3") as client:
        client.send(head("/a.txt", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6"))
        assert client.read_reply().status == 200
    assert behind.asked("/a.txt")[0].startswith("127.0.0.3 ")


def test_sites_are_kept_apart(cache: Open) -> None:
    """By the host that the client asked for, which the proxy passes on."""
    behind = cache(FRESH)
    for _ in range(2):
        assert behind.get("/a.txt").body == stream("a.txt", 1000)
        claim = "X-Forwarded-Host: one.example"
        assert behind.get("/a.txt", "Host: two.example", claim).body == b"two"


def test_what_is_too_old_is_asked_for_with_its_tag(cache: Open) -> None:
    behind = cache(SHORT)
    tag = behind.get("/a.txt").headers["etag"]

    def unchanged() -> bool:
        assert behind.get("/a.txt").body == stream("a.txt", 1000)
        return any('HTTP/1.1" 304 ' in line for line in behind.asked("/a.txt"))

    wait_until(unchanged, "a 304")
    again = behind.get("/a.txt", f"If-None-Match: {tag}")
    assert (again.status, again.headers["etag"], again.body) == (304, tag, b"")
    # What has another tag by then comes whole.
    fresh = behind.server.root / "fresh"
    fresh.write_bytes(b"another")
    fresh.rename(behind.server.root / "a.txt")
    wait_until(lambda: behind.get("/a.txt").body == b"another", "the new file")
    wait_until(lambda: [line for line in behind.asked("/a.txt") if '" 200 7 ' in line], "its line")


def test_ranges_of_what_is_cached_and_of_what_is_not(cache: Open) -> None:
    behind = cache(FRESH)
    for _ in range(2):
        part = behind.get("/b.bin", "Range: bytes=65530-65539")
        assert (part.status, part.body) == (206, stream("b.bin", 66_000)[65_530:65_540])
        assert part.headers["content-range"] == "bytes 65530-65539/66000"
    assert behind.get("/b.bin", "Range: bytes=70000-").headers["content-range"] == "bytes */66000"
    assert behind.get("/b.bin").body == stream("b.bin", 66_000)
    tag = behind.get("/b.bin").headers["etag"]
    assert behind.get("/b.bin", "Range: bytes=0-9", f"If-Range: {tag}").body == stream("b.bin", 66_000)[:10]
    assert behind.get("/b.bin", "Range: bytes=0-9", 'If-Range: "x"').status == 200


def test_codings_are_kept_apart(cache: Open) -> None:
    """Each client gets what it accepts, whatever was cached first."""
    behind = cache(FRESH)
    wanted = {"br": ".br", "gzip": ".gz", "identity": ""}
    for turn in range(3):
        for coding, suffix in wanted.items():
            reply = behind.get("/page.html", f"Accept-Encoding: {coding}")
            assert reply.body == CODED[suffix]
            assert reply.headers.get("content-encoding", "identity") == coding
            assert "accept-encoding" in reply.headers["vary"].lower()
            assert (behind.state(reply) == "HIT") == (turn > 0)
        assert behind.get("/page.html").body == CODED[""]
    tags = {coding: behind.get("/page.html", f"Accept-Encoding: {coding}").headers["etag"] for coding in wanted}
    assert len(set(tags.values())) == 3
    for coding, tag in tags.items():
        same = behind.get("/page.html", f"Accept-Encoding: {coding}", f"If-None-Match: {tag}")
        assert (same.status, same.headers["etag"]) == (304, tag)
    assert behind.get("/page.html", "Accept-Encoding: gzip", f"If-None-Match: {tags['br']}").status == 200


def test_pipelined_hits_and_misses(cache: Open) -> None:
    behind = cache(FRESH)
    # The last one is piped by Varnish, and its connection ends.
    names = ["a.txt", "b.bin", "a.txt", "private/large.bin", "b.bin", "a.txt", "downloads/large.bin"]
    with behind.connect() as client:
        client.send(b"".join(head(f"/{name}") for name in names))
        for name in names:
            assert client.read_reply().body == stream(name, SIZES[name])


def test_misses_use_connections_again(cache: Open) -> None:
    """Clients that come one after the other, each with a connection of its own."""
    behind = cache(FRESH)
    for number in range(30):
        assert behind.get(f"/a.txt?{number}").body == stream("a.txt", 1000)
    assert behind.server.stop() == 0
    assert len(lines_of(behind.server, 30)) == 30
    # Varnish may have answered before it has put the connection back.
    assert behind.server.counters()["connections_accepted"] <= 15


def test_a_client_that_leaves_a_large_download_lets_the_server_go(cache: Open) -> None:
    """Of what goes past the cache: the connection behind ends with the one in front."""
    behind = cache(FRESH)
    before = behind.sockets()
    for leave in (reset, lambda client: client.socket.close()):
        client = behind.connect()
        client.send(head(behind.past))
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: behind.sockets() == before + 1, "the connection behind")
        leave(client)
        wait_until(lambda: behind.sockets() == before, "the end of the connection behind")
    assert behind.get(behind.past).body == stream(behind.past[1:], LARGE)
    assert behind.server.stop() == 0
    assert behind.server.counters()["connections_open"] == 0
    assert behind.server.counters()["arena_pinned"] == 0


@needs("nginx")
def test_nginx_fetches_large_files_in_pieces(tmp_path: Path) -> None:
    whole = stream("downloads/large.bin", LARGE)
    with origin(tmp_path, "tcp", FRESH) as server, nginx(tmp_path, server) as behind:
        for state in ("MISS", "HIT"):
            part = behind.get("/downloads/large.bin", "Range: bytes=5000000-5000999")
            assert (part.status, part.body, behind.state(part)) == (206, whole[5_000_000:5_001_000], state)
        (line,) = behind.asked("/downloads/large.bin")
        assert f'" 206 {PIECE} ' in line
        assert behind.get("/downloads/large.bin").body == whole
        pieces = -(-LARGE // PIECE)
        assert len(behind.asked("/downloads/large.bin", pieces)) == pieces  # one of them was there


@needs("varnishd")
@pytest.mark.parametrize("folder", ["downloads", "private"], ids=["piped", "passed"])
def test_varnish_leaves_large_files_and_their_ranges_to_the_server(tmp_path: Path, folder: str) -> None:
    target = f"/{folder}/large.bin"
    whole = stream(target[1:], LARGE)
    with origin(tmp_path, "tcp", FRESH) as server, varnish(tmp_path, server) as behind:
        assert behind.get(target).body == whole
        part = behind.get(target, "Range: bytes=5000000-5000999")
        assert (part.status, part.body) == (206, whole[5_000_000:5_001_000])
        assert '" 206 1000 ' in behind.asked(target, 2)[1]


@needs("varnishd")
def test_nothing_follows_a_piped_request_unseen(tmp_path: Path) -> None:
    """Varnish would not look at it, and what a client claims in it would be believed."""
    with origin(tmp_path, "tcp", FRESH) as server, varnish(tmp_path, server) as behind:
        with behind.connect() as client:
            client.send(head(behind.past) + head("/a.txt", "X-Forwarded-For: 6.6.6.6"))
            with suppress(ConnectionResetError):  # of who sends more than is read
                client.pending = client.read_to_end()
            assert client.pending.startswith(b"HTTP/1.1 200 ")
            assert client.pending.count(b"HTTP/1.1 ") == 1
        assert server.stop() == 0
        assert len(behind.asked(behind.past)) == 1
        assert "6.6.6.6" not in server.access.read_text()
