"""Precompressed siblings over a running server: which is sent, with which fields, and for how long."""

import os
from pathlib import Path

import brotli
import pytest

from flashpy_helpers.codings import compress
from tests.conftest import StartServer
from tests.server import Server, wait_until
from tests.web import stream

PAGE = b"<p>A page that is long enough.</p>" * 20
BROTLI = compress("br", PAGE, "best")
ZSTD = compress("zstd", PAGE, "best")
GZIP = compress("gzip", PAGE, "best")
ALL = {"Accept-Encoding": "gzip, deflate, br, zstd"}


@pytest.fixture
def server(start_server: StartServer, docroot: Path) -> Server:
    write(docroot / "a.html", PAGE)
    for suffix, content in ((".br", BROTLI), (".zst", ZSTD), (".gz", GZIP)):
        write(docroot / f"a.html{suffix}", content)
    return start_server('[cache]\nrevalidate = "0.1s"\nmax_stale = "0.5s"\n', root=docroot)


def write(path: Path, content: bytes) -> None:
    """In one step, and with the same age as all others."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    os.utime(fresh, (1_700_000_000, 1_700_000_000))
    fresh.rename(path)


@pytest.mark.parametrize(
    ("accepted", "coding", "content"),
    [
        ("gzip, deflate, br, zstd", "br", BROTLI),
        ("gzip, zstd", "zstd", ZSTD),
        ("gzip", "gzip", GZIP),
        ("br;q=0.1, gzip", "gzip", GZIP),
        ("identity;q=0, *;q=0.5", "br", BROTLI),
        ("identity, br;q=0.5", None, PAGE),
        ("br;q=0", None, PAGE),
        ("", None, PAGE),
        (None, None, PAGE),
    ],
)
def test_what_is_sent(server: Server, accepted: str | None, coding: str | None, content: bytes) -> None:
    fields = {} if accepted is None else {"Accept-Encoding": accepted}
    with server.connect() as client:
        for _ in range(5):  # by the miss, by the cache, by the memo
            reply = client.request("/a.html", fields)
            assert (reply.status, reply.body) == (200, content)
            assert reply.headers.get("content-encoding") == coding
            assert reply.headers["content-length"] == str(len(content))
            assert reply.headers["content-type"] == "text/html; charset=utf-8"
            assert reply.headers["vary"] == "Accept-Encoding"
        client.send(b"HEAD /a.html HTTP/1.1\r\nHost: x\r\nAccept-Encoding: %b\r\n\r\n" % (accepted or "").encode())
        assert client.read_reply(head=True).headers["content-length"] == str(len(content))


def test_each_coding_has_a_tag_of_its_own_that_holds_for_304_and_ranges(server: Server) -> None:
    with server.connect() as client:
        tags = []
        for coding, content in (("br", BROTLI), ("zstd", ZSTD), ("gzip", GZIP), ("identity", PAGE)):
            fields = {"Accept-Encoding": coding}
            tag = client.request("/a.html", fields).headers["etag"]
            tags.append(tag)
            for _ in range(4):
                unchanged = client.request("/a.html", {**fields, "If-None-Match": tag})
                assert (unchanged.status, unchanged.headers["etag"]) == (304, tag)
                assert unchanged.headers["vary"] == "Accept-Encoding"
                part = client.request("/a.html", {**fields, "Range": "bytes=4-9", "If-Range": tag})
                assert (part.status, part.body, part.headers["etag"]) == (206, content[4:10], tag)
                assert part.headers.get("content-encoding", "identity") == coding
                assert part.headers["vary"] == "Accept-Encoding"
                parts = client.request("/a.html", {**fields, "Range": "bytes=0-0,9-9"})
                assert parts.headers.get("content-encoding", "identity") == coding
                assert b"Content-Type: text/html; charset=utf-8\r\n" in parts.body
        assert len(set(tags)) == 4
        other = client.request("/a.html", {"Accept-Encoding": "gzip", "If-None-Match": tags[0]})
        assert (other.status, other.body) == (200, GZIP)


def test_nothing_acceptable_is_406(server: Server) -> None:
    for accepted in ("identity;q=0", "*;q=0", "identity;q=0, deflate"):
        refused = server.get("/a.html", {"Accept-Encoding": accepted})
        assert (refused.status, refused.headers["vary"]) == (406, "Accept-Encoding")


def test_what_has_no_siblings_does_not_vary(server: Server, docroot: Path) -> None:
    (docroot / "photo.png").write_bytes(b"png")
    (docroot / "photo.png.br").write_bytes(b"not looked for")
    for path in ("/a.txt", "/photo.png"):
        reply = server.get(path, ALL)
        assert "vary" not in reply.headers
        assert "content-encoding" not in reply.headers
    assert server.get("/photo.png", ALL).body == b"png"


def test_a_sibling_by_its_own_name_is_a_file(server: Server) -> None:
    reply = server.get("/a.html.gz", ALL)
    assert (reply.body, reply.headers["content-type"]) == (GZIP, "application/gzip")
    assert "content-encoding" not in reply.headers
    assert server.get("/a.html", {"Accept-Encoding": "gzip"}).headers["etag"] != reply.headers["etag"]


def test_siblings_come_go_and_change(server: Server, docroot: Path) -> None:
    with server.connect() as client:

        def served(accepted: str = "br") -> bytes:
            return client.request("/a.html", {"Accept-Encoding": accepted}).body

        assert served() == BROTLI
        another = brotli.compress(PAGE, quality=0)
        assert another != BROTLI
        write(docroot / "a.html.br", another)
        wait_until(lambda: served() == another)
        (docroot / "a.html.br").unlink()
        wait_until(lambda: served() == PAGE)
        write(docroot / "a.html.br", BROTLI)
        wait_until(lambda: served() == BROTLI)
        for suffix in (".br", ".zst", ".gz"):
            (docroot / f"a.html{suffix}").unlink()
        wait_until(lambda: "vary" not in client.request("/a.html", ALL).headers)


def test_an_original_that_changes_leaves_its_siblings_behind(server: Server, docroot: Path) -> None:
    with server.connect() as client:
        assert client.request("/a.html", ALL).body == BROTLI
        (docroot / "fresh").write_bytes(b"new")
        (docroot / "fresh").rename(docroot / "a.html")
        wait_until(lambda: client.request("/a.html", ALL).body == b"new")
        for coding in ("br", "zst", "gz"):
            server.wait_log(f"'{docroot}/a.html.{coding}' is older than its original and not used")


def test_they_can_be_switched_off(start_server: StartServer, docroot: Path) -> None:
    write(docroot / "a.html", PAGE)
    write(docroot / "a.html.br", BROTLI)
    server = start_server("[[site]]\nprecompressed = false\n", root=docroot)
    reply = server.get("/a.html", ALL)
    assert (reply.body, reply.headers.get("vary")) == (PAGE, None)


def test_a_sibling_of_many_chunks(start_server: StartServer, docroot: Path) -> None:
    original = stream("large.css", 3_000_000)
    large = compress("br", original, "fast")
    (docroot / "large.css").write_bytes(original)
    (docroot / "large.css.br").write_bytes(large)
    server = start_server('[cache]\nchunk = "64KiB"\n', root=docroot)
    with server.connect() as client:
        for _ in range(2):
            assert client.request("/large.css", ALL).body == large
        part = client.request("/large.css", {**ALL, "Range": "bytes=1000000-1999999"})
        assert (part.status, part.body) == (206, large[1_000_000:2_000_000])
        assert client.request("/large.css").body == original


def test_two_who_want_different_codings_wait_for_one_lookup(server: Server) -> None:
    with server.connect() as one, server.connect() as two:
        one.send(b"GET /a.html HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\n\r\n")
        two.send(b"GET /a.html HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
        assert one.read_reply().body == BROTLI
        assert two.read_reply().body == GZIP


def test_an_outdated_sibling_is_told_once(start_server: StartServer, docroot: Path) -> None:
    for number in range(8):
        write(docroot / f"{number}.css", b"a{}")
    (docroot / "a.css.gz").write_bytes(b"old")
    os.utime(docroot / "a.css.gz", (1, 1))
    write(docroot / "a.css", b"new")
    server = start_server("[cache]\npaths = 4\n", root=docroot)
    with server.connect() as client:
        for _ in range(3):
            assert client.request("/a.css", ALL).body == b"new"
            for number in range(8):  # which push it out
                assert client.request(f"/{number}.css", ALL).body == b"a{}"
    server.stop()
    assert len([line for line in server.log_lines() if "is older than its original" in line]) == 1


def test_sites_of_one_root_may_differ_in_what_has_siblings(start_server: StartServer, docroot: Path) -> None:
    """By the media types of one a file has none; that it was asked first is nothing to the other."""
    (docroot / "a.js").write_bytes(b"text " * 500)
    (docroot / "b.js").write_bytes(b"text " * 500)
    (docroot / "a.js.gz").write_bytes(compress("gzip", b"text " * 500, "best"))
    cache = '[cache]\nrevalidate = "60s"\nmax_stale = "60s"\n'
    site = '[[site]]\nhosts = ["a"]\ntypes = { js = "image/png" }\n[[site]]\nhosts = ["b"]\n'
    server = start_server(cache + site, root=docroot)
    with server.connect() as client:
        for _ in range(3):
            assert client.request("/a.js", {"Host": "a", "Accept-Encoding": "gzip"}).status == 200
            reply = client.request("/a.js", {"Host": "b", "Accept-Encoding": "gzip"})
            assert reply.headers.get("content-encoding") == "gzip"
            assert client.request("/b.js", {"Host": "a"}).status == 200
            assert "content-encoding" not in client.request("/b.js", {"Host": "b", "Accept-Encoding": "gzip"}).headers
    server.stop()
    assert server.counters()["helper_jobs"] == 4, "each of two files for each of two sites, once"
