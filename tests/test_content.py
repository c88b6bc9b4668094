"""Replies from entries: what is prepared once, and what dies with the bytes it shows."""

import gc

import pytest

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.config import Settings, Site
from flashpy.content import Chosen, Content, Facts, made_key
from flashpy.findings import Findings
from flashpy.http.conditional import Decision
from flashpy.http.response import Reply
from flashpy.representations import Representations
from flashpy.sites import Sites
from flashpy_helpers.wire import BR, Identity, Load

TOP = 65536
WALL = 1_800_000_000.0
SITES = Sites(Settings(site=(Site(root="/", headers={"X-A": "1"}), Site(hosts=("b",), root="/"))), [0, 1]).all


@pytest.fixture
def chunks() -> Chunks:
    return Chunks(memoryview(bytearray(8 * TOP)), TOP)


@pytest.fixture
def content(chunks: Chunks) -> Content:
    return Content(chunks, "seed")


def entry(size: int = 100) -> Entry:
    version = Identity(1, 2, size, 1_700_000_000_000_000_000, 4)
    return Entry((0, b"docs/"), b"docs/index.html", version, Facts(version, WALL))


def read_in(chunks: Chunks, one: Entry, number: int = 0, length: int = 100) -> Chunk:
    offset = chunks.reserve(TOP)
    assert offset is not None
    chunks.memory[offset : offset + length] = b"x" * length
    chunk = chunks.commit((one.outcome, number), offset, length)
    chunks.unpin(chunk)
    return chunk


def made(content: Content, one: Entry, site: int, method: bytes, decision: None) -> Reply:
    extra = SITES[site].rules.ruling(one.key[1]).fields
    return content.reply(Chosen(one, one.facts.etag, ()), SITES[site], extra, method, decision)


def test_a_reply_is_prepared_once_for_each_site(content: Content, chunks: Chunks) -> None:
    one = entry()
    one.attach(read_in(chunks, one))
    first = made(content, one, 0, b"GET", None)
    assert made(content, one, 0, b"GET", None) is first
    other = made(content, one, 1, b"GET", None)
    assert (b"X-A: 1" in first.head, b"X-A: 1" in other.head) == (True, False)
    assert b"Content-Type: text/html; charset=utf-8\r\n" in first.head, "the type of the index file, not the folder"
    assert first.size == len(first.head) + 100
    assert first.said == b" 200 100 "


def test_a_prepared_reply_goes_with_its_bytes(content: Content, chunks: Chunks) -> None:
    one = entry()
    one.attach(read_in(chunks, one))
    first = made(content, one, 0, b"GET", None)
    while chunks.reserve(TOP) is not None:
        pass
    second = made(content, one, 0, b"GET", None)
    assert second is not first
    assert (second.body, second.stream, second.lasting) == (b"", ((0, 100),), False)


def test_bytes_that_came_back_are_found(content: Content, chunks: Chunks) -> None:
    one = entry()
    assert made(content, one, 0, b"GET", None).stream == ((0, 100),)
    chunk = read_in(chunks, one)
    reply = made(content, one, 0, b"GET", None)
    assert (bytes(reply.body), reply.chunk, one.chunk) == (b"x" * 100, chunk, chunk)
    chunks.forget(chunk.key)
    assert (one.chunk, one.prepared) == (None, {})


def test_an_empty_file_needs_no_bytes(content: Content) -> None:
    reply = made(content, entry(0), 0, b"GET", None)
    assert (reply.stream, reply.body, reply.length, reply.lasting) == (None, b"", 0, True)
    assert b"Content-Length: 0\r\n" in reply.head


def test_head_needs_no_bytes(content: Content) -> None:
    reply = made(content, entry(), 0, b"HEAD", None)
    assert (reply.stream, reply.body, reply.lasting) == (None, b"", True)
    assert b"Content-Length: 100\r\n" in reply.head


def test_a_file_of_exactly_one_chunk_and_of_one_byte_more(content: Content, chunks: Chunks) -> None:
    exact, more = entry(TOP), entry(TOP + 1)
    for one in (exact, more):
        one.attach(read_in(chunks, one, 0, TOP))
    assert made(content, exact, 0, b"GET", None).stream is None
    assert made(content, more, 0, b"GET", None).stream == ((0, TOP + 1),)


def test_the_chunk_or_the_job_that_brings_it(content: Content, chunks: Chunks) -> None:
    one = entry(2 * TOP + 10)
    version = one.outcome
    assert content.chunk_at(one, 0) == Load(0, 0, b"docs/index.html", version, 0, TOP, 0)
    assert content.chunk_at(one, TOP + 5) == Load(0, 0, b"docs/index.html", version, TOP, TOP, 0)
    assert content.chunk_at(one, 2 * TOP + 9) == Load(0, 0, b"docs/index.html", version, 2 * TOP, 10, 0)
    chunk = read_in(chunks, one, 1, TOP)
    assert content.chunk_at(one, 2 * TOP - 1) is chunk


def test_what_died_while_a_request_waits_answers_it_and_is_held_by_nobody(content: Content, chunks: Chunks) -> None:
    """A worker collects no cycles, so an entry must not come to be named by what it holds once it has died."""
    names = Pathnames(8, chunks, 1.0, 10.0)
    representations = Representations(chunks, Findings(), lambda: False)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(one, Entry) for one in gc.get_objects())
        for _ in range(3):
            one = entry()
            names.put(one, 0.0, is_file=True)
            names.drop(one.key)
            chunk = chunks.get(made_key(one.outcome, BR)) or of_made(chunks, one)
            variant = representations._make(one, BR)
            assert isinstance(variant, Entry)
            for of, facts in ((variant, variant.facts), (one, one.facts)):
                for method, decision in ((b"GET", None), (b"HEAD", None), (b"GET", Decision(304))):
                    reply = content.reply(Chosen(of, facts.etag, ()), SITES[0], b"", method, decision)
                    assert not reply.lasting
            assert bytes(content.reply(Chosen(variant, b"", ()), SITES[0], b"", b"GET", None).body) == b"y" * 50
            assert chunk.on_evict == []
        del one, variant, of, facts, reply
        assert sum(isinstance(one, Entry) for one in gc.get_objects()) == before
    finally:
        gc.enable()


def of_made(chunks: Chunks, one: Entry) -> Chunk:
    offset = chunks.reserve(TOP)
    assert offset is not None
    chunks.memory[offset : offset + 50] = b"y" * 50
    chunk = chunks.commit(made_key(one.outcome, BR), offset, 50)
    chunks.unpin(chunk)
    return chunk
