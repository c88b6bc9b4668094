"""Compression on the fly, corrupt siblings and tags of contents, over a running server with real heavy helpers."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import pytest

from flashpy_helpers.codings import CODINGS, Coding, compress, decoded
from tests.conftest import StartServer
from tests.server import Reply, Server, wait_until
from tests.web import head, stream

TEXT = b"".join(b"%d: the quick brown fox jumps over the lazy dog\n" % n for n in range(4000))
QUICK = '[cache]\nrevalidate = "0.1s"\nmax_stale = "0.5s"\n'
SITE = '[[site]]\ncompress = ["br", "zstd", "gzip"]\n'


@pytest.fixture
def site(docroot: Path) -> Path:
    (docroot / "a.js").write_bytes(TEXT)
    return docroot


@pytest.fixture
def server(start_server: StartServer, site: Path) -> Server:
    return start_server(QUICK + SITE, root=site)


def accepting(*codings: str) -> dict[str, str]:
    return {"Accept-Encoding": ", ".join(codings)}


def content(reply: Reply) -> bytes:
    """What a browser makes of it."""
    coding = reply.headers.get("content-encoding")
    if coding is None:
        return reply.body
    assert coding in CODINGS
    return b"".join(decoded(coding, reply.body))


# On the fly


@pytest.mark.parametrize("coding", CODINGS)
def test_a_file_is_compressed_for_who_accepts_it(server: Server, coding: Coding) -> None:
    with server.connect() as client:
        tags = set()
        for _ in range(5):  # made, from the cache, from the memo
            reply = client.request("/a.js", accepting(coding))
            assert reply.status == 200
            assert reply.headers["content-encoding"] == coding
            assert reply.headers["vary"] == "Accept-Encoding"
            assert reply.body == compress(coding, TEXT, "fast")
            tags.add(reply.headers["etag"])
        plain = client.request("/a.js")
        assert (content(plain), plain.headers["vary"]) == (TEXT, "Accept-Encoding")
        assert len(tags) == 1
        assert plain.headers["etag"] not in tags
        assert plain.headers["last-modified"] == reply.headers["last-modified"]
        client.send(head("/a.js", f"Accept-Encoding: {coding}", method="HEAD"))
        only_head = client.read_reply(head=True)
        assert only_head.headers["content-length"] == str(len(reply.body))
        assert {only_head.headers["etag"]} == tags
    server.stop()
    assert server.counters()["heavy_jobs"] == 1


def test_conditions_and_ranges_of_what_was_made(server: Server) -> None:
    made = compress("br", TEXT, "fast")
    with server.connect() as client:
        tag = client.request("/a.js", accepting("br")).headers["etag"]
        for _ in range(3):
            unchanged = client.request("/a.js", accepting("br") | {"If-None-Match": tag})
            assert (unchanged.status, unchanged.headers["etag"]) == (304, tag)
            part = client.request("/a.js", accepting("br") | {"Range": "bytes=10-19", "If-Range": tag})
            assert (part.status, part.body) == (206, made[10:20])
            assert part.headers["content-encoding"] == "br"
            several = client.request("/a.js", accepting("br") | {"Range": "bytes=0-9,30-39"})
            assert (several.status, several.body) == (200, made), "it lies in no file: ranges are one at most"
        assert client.request("/a.js", accepting("br") | {"If-Match": '"other"'}).status == 412
        beyond = client.request("/a.js", accepting("br") | {"Range": "bytes=999999-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(made)}")


def test_a_changed_file_is_compressed_anew(server: Server, site: Path) -> None:
    with server.connect() as client:
        first = client.request("/a.js", accepting("br"))
        (site / "fresh").write_bytes(TEXT[::-1])
        (site / "fresh").rename(site / "a.js")
        wait_until(lambda: content(client.request("/a.js", accepting("br"))) == TEXT[::-1])
        assert client.request("/a.js", accepting("br")).headers["etag"] != first.headers["etag"]


def test_what_is_not_compressed(server: Server, site: Path) -> None:
    for name, data in (("small.js", b"a"), ("noise.js", stream("noise.js", 20_000)), ("a.png", TEXT)):
        (site / name).write_bytes(data)
        for _ in range(3):
            reply = server.get(f"/{name}", accepting("br"))
            assert (reply.body, reply.headers.get("content-encoding")) == (data, None), name
        assert ("vary" in reply.headers) == (name == "noise.js")
        wanted = server.get(f"/{name}", accepting("br", "identity;q=0"))
        assert wanted.status == 406
    server.stop()
    assert server.counters()["heavy_jobs"] == 1, "it is tried once"


def test_a_file_that_is_asked_for_by_two_names_is_compressed_once(server: Server, site: Path) -> None:
    (site / "index.html").write_bytes(TEXT)
    for path in ("/", "/index.html", "/"):
        assert content(server.get(path, accepting("zstd"))) == TEXT
    server.stop()
    assert server.counters()["heavy_jobs"] == 1


def test_a_sibling_goes_before_what_would_be_made(server: Server, site: Path) -> None:
    best = compress("br", TEXT, "best")
    (site / "a.js.br").write_bytes(best)
    assert server.get("/a.js", accepting("br", "gzip")).body == best
    assert server.get("/a.js", accepting("gzip")).headers["content-encoding"] == "gzip"


def test_equal_wishes_wait_for_one_job(server: Server, site: Path) -> None:
    (site / "b.js").write_bytes(TEXT * 20)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        for client in clients:
            client.send(head("/b.js", "Accept-Encoding: br;q=1, identity;q=0"))
        for client in clients:
            assert content(client.read_reply()) == TEXT * 20
    server.stop()
    assert server.counters()["heavy_jobs"] == 1


def test_nobody_who_takes_the_file_waits_while_all_are_busy(start_server: StartServer, site: Path) -> None:
    """The only heavy helper hangs: who must have a coding waits for it, the others have the file."""
    server = start_server("[heavy]\nmin = 1\nmax = 1\n" + SITE, root=site)
    (site / "b.js").write_bytes(TEXT)
    wait_until(lambda: server.named("flashpy-press"))
    (helper,) = server.named("flashpy-press")
    os.kill(helper, signal.SIGSTOP)
    with server.connect() as waiting, server.connect() as client:
        assert client.request("/a.js").body == TEXT
        waiting.send(head("/a.js", "Accept-Encoding: gzip, identity;q=0"))
        for _ in range(3):  # each after a turn of the loop, so the first one has been heard
            assert client.request("/b.js").body == TEXT
        for _ in range(3):
            assert client.request("/b.js", accepting("gzip")).body == TEXT
            reply = client.request("/a.js", accepting("gzip"))
            assert (reply.body, reply.headers.get("content-encoding")) == (TEXT, None)
            assert reply.headers["vary"] == "Accept-Encoding"
        os.kill(helper, signal.SIGCONT)
        assert waiting.read_reply().headers["content-encoding"] == "gzip"
        wait_until(lambda: client.request("/a.js", accepting("gzip")).headers.get("content-encoding") == "gzip")


@pytest.fixture
def stuck(start_server: StartServer, site: Path) -> Iterator[Server]:
    """A server whose heavy helpers do nothing for long."""
    server = start_server('[heavy]\nmin = 1\nmax = 1\ntimeout = "0.5s"\n' + SITE, root=site)
    wait_until(lambda: server.named("flashpy-press"))
    stopped = server.named("flashpy-press")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    yield server
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)


def test_what_takes_too_long_is_sent_in_another_way(stuck: Server) -> None:
    reply = stuck.get("/a.js", accepting("br"))
    assert (reply.body, reply.headers.get("content-encoding")) == (TEXT, None)


def test_a_compressor_that_dies_costs_nobody_the_file(start_server: StartServer, site: Path) -> None:
    server = start_server("[heavy]\nmin = 1\nmax = 1\n" + SITE, root=site)
    dead: set[int] = set()
    with server.connect() as client:
        for number in range(4):
            for name in (f"{number}.js", f"before-{number}.js"):
                (site / name).write_bytes(TEXT)
            assert content(client.request(f"/before-{number}.js", accepting("br", "identity;q=0"))) == TEXT
            pid = wait_until(lambda: next(iter(set(server.named("flashpy-press")) - dead), None))
            os.kill(pid, signal.SIGSTOP)
            client.send(head(f"/{number}.js", "Accept-Encoding: br, identity;q=0"))
            client.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
            client.socket.settimeout(30)
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
            assert content(client.read_reply()) == TEXT
    server.stop()
    assert server.counters()["heavy_deaths"] == 4


def test_two_sites_of_one_root_need_not_both_compress(start_server: StartServer, site: Path) -> None:
    text = f'[[site]]\nhosts = ["a"]\nroot = "{site}"\ncompress = ["gzip"]\n[[site]]\nhosts = ["b"]\nroot = "{site}"\n'
    server = start_server(text)
    for _ in range(3):
        assert server.get("/a.js", accepting("gzip") | {"Host": "a"}).headers["content-encoding"] == "gzip"
        other = server.get("/a.js", accepting("gzip") | {"Host": "b"})
        assert (other.body, other.headers.get("vary")) == (TEXT, None)


def test_what_was_evicted_is_made_again(start_server: StartServer, site: Path) -> None:
    """The memory holds but a few files: what was made goes with its bytes."""
    config = '[helpers]\nmax = 2\n[heavy]\nmax = 1\n[cache]\nchunk = "64KiB"\nmemory = "320KiB"\n' + SITE
    server = start_server(config, root=site)
    texts = {f"{n}.js": stream(f"{n}.js", 30_000).hex().encode()[:60_000] for n in range(8)}
    for name, text in texts.items():
        (site / name).write_bytes(text)
    with server.connect() as client:
        for _ in range(3):
            for name, text in texts.items():
                reply = client.request(f"/{name}", accepting("gzip"))
                assert (reply.status, content(reply)) == (200, text)


# Corrupt siblings


@pytest.mark.parametrize("coding", CODINGS)
def test_a_corrupt_sibling_is_not_sent(start_server: StartServer, site: Path, coding: Coding) -> None:
    suffix = {"br": "br", "zstd": "zst", "gzip": "gz"}[coding]
    good = compress(coding, TEXT, "best")
    server = start_server(QUICK, root=site)
    for bad in (b"garbage", good[:-1], compress(coding, TEXT[1:], "best"), b""):
        (site / "fresh").write_bytes(bad)
        (site / "fresh").rename(site / f"a.js.{suffix}")
        with server.connect() as client:
            wait_until(lambda: client.request("/a.js", accepting(coding)).headers.get("vary"))
            for _ in range(3):
                reply = client.request("/a.js", accepting(coding))
                assert (reply.body, reply.headers.get("content-encoding")) == (TEXT, None)
                assert client.request("/a.js", accepting(coding, "identity;q=0")).status == 406
    server.wait_log(f"'{site}/a.js.{suffix}' does not decode to its original and is not used")
    (site / "fresh").write_bytes(good)
    (site / "fresh").rename(site / f"a.js.{suffix}")
    wait_until(lambda: server.get("/a.js", accepting(coding)).body == good)


def test_the_next_best_takes_the_place_of_a_corrupt_sibling(start_server: StartServer, site: Path) -> None:
    (site / "a.js.br").write_bytes(b"garbage")
    (site / "a.js.gz").write_bytes(compress("gzip", TEXT, "best"))
    server = start_server("", root=site)
    reply = server.get("/a.js", accepting("br", "gzip"))
    assert (reply.headers["content-encoding"], content(reply)) == ("gzip", TEXT)


def test_siblings_may_be_trusted(start_server: StartServer, site: Path) -> None:
    (site / "a.js.br").write_bytes(b"garbage")
    server = start_server("[[site]]\nverify_precompressed = false\n", root=site)
    assert server.get("/a.js", accepting("br")).body == b"garbage"
    assert not server.named("flashpy-heavy")
    server.stop()
    assert server.counters()["heavy_jobs"] == 0


# Tags


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def test_a_tag_of_the_content(start_server: StartServer, site: Path) -> None:
    (site / "copy.js").write_bytes(TEXT)
    (site / "empty.js").write_bytes(b"")
    os.utime(site / "copy.js", (1_000_000_000, 1_000_000_000))
    (site / "a.js.gz").write_bytes(compress("gzip", TEXT, "best"))
    server = start_server('[[site]]\netag = "hash"\ncompress = ["br"]\n', root=site)
    for _ in range(3):
        for name in ("a.js", "copy.js"):
            reply = server.get(f"/{name}")
            assert (reply.headers["etag"], reply.body) == (f'"{digest(TEXT)}"', TEXT)
        zipped = server.get("/a.js", accepting("gzip"))
        assert zipped.headers["etag"] == f'"{digest(zipped.body)}"'
        made = server.get("/a.js", accepting("br"))
        assert made.headers["etag"] == f'"{digest(TEXT)}-{len(made.body):x}~br"'
        assert server.get("/empty.js").headers["etag"] == f'"{digest(b"")}"'
        known = server.get("/a.js", {"If-None-Match": f'"{digest(TEXT)}"'})
        assert known.status == 304
    server.stop()
    # A digest of the text for two files, one of the sibling and one of nothing; the sibling's verifying, the coding.
    assert server.counters()["heavy_jobs"] == 6


def test_without_a_digest_there_is_no_tag(start_server: StartServer, site: Path) -> None:
    server = start_server('[heavy]\nmin = 1\nmax = 1\ntimeout = "0.5s"\n[[site]]\netag = "hash"\n', root=site)
    wait_until(lambda: server.named("flashpy-press"))
    (helper,) = server.named("flashpy-press")
    os.kill(helper, signal.SIGSTOP)
    reply = server.get("/a.js")
    assert (reply.body, reply.headers.get("etag")) == (TEXT, None)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: server.get("/a.js").headers.get("etag") == f'"{digest(TEXT)}"')


def test_a_date_that_two_codings_share_joins_no_parts_of_both(start_server: StartServer, site: Path) -> None:
    os.utime(site / "a.js", (1_000_000_000, 1_000_000_000))
    os.utime(site / "large.bin", (1_000_000_000, 1_000_000_000))
    config = '[heavy]\nmin = 1\nmax = 1\ntimeout = "0.5s"\n[[site]]\netag = "off"\ncompress = ["gzip"]\n'
    server = start_server(config, root=site)
    wait_until(lambda: server.named("flashpy-press"))
    (helper,) = server.named("flashpy-press")
    os.kill(helper, signal.SIGSTOP)
    first = server.get("/a.js", accepting("gzip"))
    assert (first.body, "etag" in first.headers) == (TEXT, False)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: server.get("/a.js", accepting("gzip")).headers.get("content-encoding"))
    resumed = {"Range": "bytes=100-", "If-Range": first.headers["last-modified"]}
    for _ in range(3):
        assert server.get("/a.js", accepting("gzip") | resumed).status == 200
        assert server.get("/large.bin", accepting("gzip") | resumed).status == 206, "it has no other coding"


def test_a_very_large_file_is_not_digested(start_server: StartServer, site: Path) -> None:
    """Nobody waits for minutes, and no helper is at it when the server has ended."""
    with (site / "huge.bin").open("wb") as file:
        file.truncate(200 << 30)
    os.utime(site / "huge.bin", (1_000_000_000, 1_000_000_000))
    server = start_server('[heavy]\ntimeout = "1s"\n[[site]]\netag = "hash"\n', root=site)
    with server.connect() as client:
        for _ in range(3):
            client.send(head("/huge.bin", method="HEAD"))
            reply = client.read_reply(head=True)
            assert (reply.status, reply.headers["content-length"]) == (200, str(200 << 30))
            assert "etag" not in reply.headers
        part = client.request("/huge.bin", {"Range": "bytes=5-9", "If-Range": reply.headers["last-modified"]})
        assert (part.status, part.body) == (206, bytes(5))
    server.stop()
    assert server.counters()["heavy_jobs"] == 0


def test_no_tags(start_server: StartServer, site: Path) -> None:
    server = start_server('[[site]]\netag = "off"\ncompress = ["br"]\nlisting = "html"\n', root=site)
    (site / "folder").mkdir()
    for path, fields in (("/a.js", {}), ("/a.js", accepting("br")), ("/folder/", {})):
        for _ in range(3):
            reply = server.get(path, fields)
            assert reply.status == 200
            assert "etag" not in reply.headers
            for tags in ("", '""', '"x"', "W/", 'W/""', "W/x"):
                assert server.get(path, fields | {"If-None-Match": tags}).status == 200, tags
                assert server.get(path, fields | {"If-Match": tags}).status == 412, tags
    when = server.get("/a.js").headers["last-modified"]
    assert server.get("/a.js", {"If-Modified-Since": when}).status == 304
    assert server.get("/a.js", {"If-None-Match": "*"}).status == 304
