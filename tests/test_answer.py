"""The decision, with values only: a request and what the caches know -> Reply, Refusal or Wanted."""

import pytest

from flashpy.answer import Answerer
from flashpy.asking import InHand, Wanted
from flashpy.cache.chunks import Chunks
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.config import Mount, Settings, Site
from flashpy.content import Content, Facts
from flashpy.findings import Findings
from flashpy.guard import Guard
from flashpy.http.negotiation import BARE
from flashpy.http.request import RequestParser
from flashpy.http.response import Reply, read_tally
from flashpy.http.status import Refusal
from flashpy.representations import Representations
from flashpy.sites import Sites
from flashpy_helpers import wire

TOP = 65536
NOW, WALL = 1000.0, 1_800_000_000.0
TEXT = b"0123456789"
VERSION = wire.Identity(1, 2, len(TEXT), 1_700_000_000_000_000_000, 4)
SETTINGS = Settings(site=(Site(root="/", headers={"X-A": "b"}, mount=(Mount(at="/m/", root="/m"),)),))


class Desk:
    """An answerer, and caches that the test fills."""

    def __init__(self) -> None:
        self.chunks = Chunks(memoryview(bytearray(8 * TOP)), TOP)
        self.pathnames = Pathnames(100, self.chunks, 1.0, 10.0)
        self.findings = Findings()
        self.busy = False
        representations = Representations(self.chunks, self.findings, lambda: self.busy)
        content, guard = Content(self.chunks, "seed"), Guard(self.findings)
        self.answerer = Answerer(self.pathnames, content, TOP, representations, guard)
        self.site = Sites(SETTINGS, [0, 1]).all[0]

    def know(self, path: bytes, outcome: wire.Identity | int = VERSION, *, root: int = 0, at: float = NOW) -> Entry:
        facts = Facts(outcome, WALL) if isinstance(outcome, wire.Identity) else None
        entry = Entry((root, path), path, outcome, facts)
        entry.siblings = None if facts is None else ()
        self.pathnames.put(entry, at, is_file=facts is not None)
        return entry

    def read_in(self, entry: Entry, text: bytes = TEXT) -> Entry:
        offset = self.chunks.reserve(TOP)
        assert offset is not None
        self.chunks.memory[offset : offset + len(text)] = text
        chunk = self.chunks.commit((entry.outcome, 0), offset, len(text))
        self.chunks.unpin(chunk)
        entry.attach(chunk)
        return entry

    def ask(self, target: str, *fields: bytes, method: str = "GET", in_hand: Entry | None = None) -> Reply | Wanted:
        line = f"{method} {target} HTTP/1.1".encode()
        request = RequestParser(8192, 100).parse([line, b"Host: x", *fields, b"", b""])
        return self.answerer.answer(request, self.site, NOW, WALL, InHand(in_hand))

    def reply(self, target: str, *fields: bytes, method: str = "GET") -> Reply:
        found = self.ask(target, *fields, method=method)
        assert isinstance(found, Reply)
        return found

    def refused(self, target: str, *fields: bytes, method: str = "GET") -> Refusal:
        with pytest.raises(Refusal) as problem:
            self.ask(target, *fields, method=method)
        return problem.value


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.read_in(desk.know(b"a.txt"))
    return desk


def field(reply: Reply, name: bytes) -> bytes | None:
    lines = dict(line.split(b": ", 1) for line in reply.head.split(b"\r\n")[1:] if line)
    return lines.get(name)


def test_a_hit(desk: Desk) -> None:
    reply = desk.reply("/a.txt")
    assert (reply.status, bytes(reply.body), reply.lasting) == (200, TEXT, True)
    assert field(reply, b"Content-Length") == b"10"
    assert field(reply, b"ETag") == b'"%x-a"' % VERSION.mtime_ns
    assert field(reply, b"X-A") == b"b"
    assert desk.reply("/a.txt?x") is reply
    assert desk.reply("/%61.txt") is reply


def test_head_has_the_fields_of_get(desk: Desk) -> None:
    get, head = desk.reply("/a.txt"), desk.reply("/a.txt", method="HEAD")
    assert (head.head, head.body) == (get.head, b"")


def test_what_is_not_known_is_wanted(desk: Desk) -> None:
    assert desk.ask("/b.txt") == Wanted(wire.Lookup(0, 0, b"b.txt", 0, TOP, None, BARE))
    assert desk.ask("/m/b.txt") == Wanted(wire.Lookup(0, 1, b"b.txt", 0, TOP, None, BARE))
    assert desk.ask("/") == Wanted(wire.Lookup(0, 0, b"", 0, TOP, None, BARE))


def test_what_is_too_old_is_looked_at_and_read_only_when_it_is_not_the_same(desk: Desk) -> None:
    desk.read_in(desk.know(b"old.txt", at=NOW - 11))
    assert desk.ask("/old.txt") == Wanted(wire.Lookup(0, 0, b"old.txt", 0, TOP, VERSION, BARE))
    evicted = desk.know(b"bare.txt", at=NOW - 11)
    assert evicted.chunk is None
    assert desk.ask("/bare.txt") == Wanted(wire.Lookup(0, 0, b"bare.txt", 0, TOP, None, BARE))


def test_what_is_stale_is_served_and_listed(desk: Desk) -> None:
    entry = desk.read_in(desk.know(b"stale.txt", at=NOW - 5))
    assert desk.reply("/stale.txt").status == 200
    assert desk.pathnames.take_stale() == [entry]


def test_what_is_in_hand_is_used_whatever_the_cache_holds(desk: Desk) -> None:
    entry = Entry((0, b"b.txt"), b"b.txt", VERSION._replace(inode=7), Facts(VERSION, WALL))
    desk.read_in(entry, b"in hand...")
    reply = desk.ask("/b.txt", in_hand=entry)
    assert isinstance(reply, Reply)
    assert bytes(reply.body) == b"in hand..."
    assert desk.pathnames.get((0, b"b.txt")) is None


def test_what_is_not_in_memory_is_a_stream_and_not_remembered(desk: Desk) -> None:
    desk.know(b"far.bin", VERSION._replace(inode=8, size=3 * TOP))
    reply = desk.reply("/far.bin")
    assert (reply.stream, reply.length, reply.lasting) == (((0, 3 * TOP),), 3 * TOP, False)
    assert desk.reply("/far.bin", method="HEAD").stream is None


@pytest.mark.parametrize("verdict", [wire.REFUSED, wire.NO_INDEX])
def test_known_failures(desk: Desk, verdict: int) -> None:
    desk.know(b"x", verdict)
    problem = desk.refused("/x")
    assert (problem.status, problem.close) == (403, False)
    assert problem.reason  # the operator's to mend, so it is logged


def test_what_is_missing_may_be_remembered(desk: Desk) -> None:
    desk.know(b"x", wire.MISSING)
    reply = desk.reply("/x")
    assert (reply.status, reply.lasting) == (404, True)
    assert field(reply, b"Content-Length") == b"%d" % len(reply.body)
    assert desk.reply("/x") is reply
    bare = desk.reply("/x", method="HEAD")
    assert (bare.head, bare.body, bare.lasting) == (reply.head, b"", True)


def test_a_folder_is_redirected_with_its_query(desk: Desk) -> None:
    desk.know(b"docs", wire.FOLDER)
    reply = desk.reply("//docs?a=%20b")
    assert (reply.status, field(reply, b"Location"), field(reply, b"X-A")) == (301, b"/docs/?a=%20b", b"b")
    assert desk.reply("/docs", method="HEAD").body == b""


def test_a_mounts_name_is_a_folder_unless_a_file_has_it(desk: Desk) -> None:
    assert field(desk.reply("/m"), b"Location") == b"/m/"


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("DELETE", 405), ("CONNECT", 405), ("TRACE", 405), ("NONE", 501), ("get", 501)],
)
def test_other_methods(desk: Desk, method: str, status: int) -> None:
    problem = desk.refused("example.com:443" if method == "CONNECT" else "/a.txt", method=method)
    assert (problem.status, problem.close) == (status, False)
    assert dict(problem.headers).get(b"Allow") == (b"GET, HEAD, OPTIONS" if status == 405 else None)


def test_options(desk: Desk) -> None:
    for target in ("*", "/a.txt", "/none"):
        reply = desk.reply(target, method="OPTIONS")
        assert (reply.status, field(reply, b"Allow")) == (204, b"GET, HEAD, OPTIONS")
    assert desk.refused("/../x", method="OPTIONS").status == 400


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "*"), ("TRACE", "/a#b"), ("PUT", "/../a"), ("CONNECT", "/a.txt"), ("CONNECT", "x"), ("CONNECT", "x:0")],
)
def test_a_method_that_is_not_allowed_needs_a_target_all_the_same(desk: Desk, method: str, target: str) -> None:
    assert desk.refused(target, method=method).status == 400


@pytest.mark.parametrize(
    ("target", "status"),
    [("/../a", 400), ("/%2e%2e/a", 400), ("/a%2fb", 400), ("/.git/x", 404), ("*", 400), ("a.txt", 400)],
)
def test_targets(desk: Desk, target: str, status: int) -> None:
    assert desk.refused(target).status == status


ETAG = b'"%x-a"' % VERSION.mtime_ns


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([b"If-None-Match: " + ETAG], 304),
        ([b'If-None-Match: "x", W/' + ETAG], 304),
        ([b'If-None-Match: "x"'], 200),
        ([b"If-Modified-Since: Fri, 01 Jan 2027 00:00:00 GMT"], 304),
        ([b"If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT"], 200),
        ([b'If-None-Match: "x"', b"If-Modified-Since: Fri, 01 Jan 2027 00:00:00 GMT"], 200),
        ([b"If-Match: " + ETAG], 200),
        ([b"Range: bytes=2-4"], 206),
        ([b"Range: bytes=2-4", b"If-Range: " + ETAG], 206),
        ([b"Range: bytes=2-4", b'If-Range: "x"'], 200),
        ([b"Range: lines=1"], 200),
    ],
)
def test_conditions(desk: Desk, fields: list[bytes], status: int) -> None:
    reply = desk.reply("/a.txt", *fields)
    assert reply.status == status
    assert bytes(reply.body) == {200: TEXT, 206: TEXT[2:5], 304: b""}[status]
    assert field(reply, b"ETag") == ETAG
    assert reply.lasting
    assert read_tally(2 * reply.tally) == (2 * len(reply.body), 2 * (status == 304), 0)


def test_conditions_that_are_refused(desk: Desk) -> None:
    assert desk.refused("/a.txt", b'If-Match: "x"').status == 412
    problem = desk.refused("/a.txt", b"Range: bytes=10-")
    assert (problem.status, problem.headers) == (416, ((b"Content-Range", b"bytes */10"),))
    assert not problem.close


def test_several_ranges(desk: Desk) -> None:
    reply = desk.reply("/a.txt", b"Range: bytes=0-0,8-9")
    assert reply.status == 206
    assert reply.stream is not None
    spans = [segment for segment in reply.stream if isinstance(segment, tuple)]
    assert spans == [(0, 1), (8, 10)]
    total = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in reply.stream)
    assert field(reply, b"Content-Length") == b"%d" % total
    again = desk.reply("/a.txt", b"Range: bytes=0-0,8-9")
    assert field(again, b"Content-Type") != field(reply, b"Content-Type"), "a boundary that can be guessed"
