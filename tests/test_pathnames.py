"""The pathname cache: freshness, order, and what an entry takes with it when it dies."""

import pytest

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.memo import Memo
from flashpy.cache.pathnames import LISTINGS, Entry, Pathnames

TOP = 16384


@pytest.fixture
def chunks() -> Chunks:
    return Chunks(memoryview(bytearray(8 * TOP)), TOP)


@pytest.fixture
def pathnames(chunks: Chunks) -> Pathnames:
    return Pathnames(8, chunks, revalidate=1.0, max_stale=10.0)


def entry(name: str, root: int = 0) -> Entry:
    return Entry((root, name.encode()), name.encode(), f"version of {name}")


def with_chunk(chunks: Chunks, one: Entry) -> Chunk:
    offset = chunks.reserve(TOP)
    assert offset is not None
    chunk = chunks.commit((one.outcome, 0), offset, 100)
    one.attach(chunk)
    chunks.unpin(chunk)
    return chunk


def test_fresh_then_stale_then_not_at_all(pathnames: Pathnames) -> None:
    one = entry("a")
    pathnames.put(one, 100.0, is_file=True)
    assert pathnames.usable(one, 101.0)
    assert pathnames.take_stale() == []
    assert pathnames.usable(one, 101.5)
    assert pathnames.usable(one, 109.0)
    assert pathnames.take_stale() == [one], "listed once"
    assert pathnames.take_stale() == []
    assert not pathnames.usable(one, 110.5)
    pathnames.renew(one, 105.0)
    assert pathnames.usable(one, 106.0)
    assert pathnames.take_stale() == []
    assert pathnames.usable(one, 114.0)
    assert pathnames.take_stale() == [one]
    assert not pathnames.usable(one, 115.5)


def test_a_check_that_came_to_nothing_is_listed_again(pathnames: Pathnames) -> None:
    one = entry("a")
    pathnames.put(one, 100.0, is_file=True)
    assert pathnames.usable(one, 102.0)
    assert pathnames.take_stale() == [one]
    pathnames.relist(one)
    assert pathnames.usable(one, 103.0)
    assert pathnames.take_stale() == [one]
    assert not pathnames.usable(one, 111.0), "no failure makes it last longer"


def test_a_flood_of_missing_names_does_not_push_out_the_site(pathnames: Pathnames) -> None:
    files = [entry(f"file{n}") for n in range(8)]
    for one in files:
        pathnames.put(one, 1.0, is_file=True)
    for n in range(100):
        pathnames.put(entry(f"none{n}"), 1.0, is_file=False)
    assert all(pathnames.is_current(one) for one in files)
    assert len(pathnames) == 8 + 2
    assert pathnames.get((0, b"none99")) is not None
    assert pathnames.get((0, b"none90")) is None


def test_the_longest_unrenewed_goes_first(pathnames: Pathnames) -> None:
    files = [entry(f"file{n}") for n in range(8)]
    for one in files:
        pathnames.put(one, 1.0, is_file=True)
    pathnames.renew(files[0], 2.0)
    pathnames.put(entry("new"), 2.0, is_file=True)
    assert pathnames.is_current(files[0])
    assert not pathnames.is_current(files[1])
    assert not pathnames.usable(files[1], 1.0)


def test_roots_are_apart(pathnames: Pathnames) -> None:
    first, second = entry("a", 0), entry("a", 1)
    pathnames.put(first, 1.0, is_file=True)
    pathnames.put(second, 1.0, is_file=True)
    assert pathnames.get((0, b"a")) is first
    assert pathnames.get((1, b"a")) is second
    pathnames.drop((0, b"a"))
    assert pathnames.is_current(second)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_file_that_went_missing_is_known_once(pathnames: Pathnames, is_file: bool) -> None:
    old, new = entry("a"), entry("a")
    pathnames.put(old, 1.0, is_file=not is_file)
    pathnames.put(new, 2.0, is_file=is_file)
    assert pathnames.get((0, b"a")) is new
    assert len(pathnames) == 1
    assert not pathnames.usable(old, 1.0)


def test_death_takes_chunk_prepared_answers_and_memos(pathnames: Pathnames, chunks: Chunks) -> None:
    memo: Memo[bytes, str] = Memo()
    one = entry("a")
    pathnames.put(one, 1.0, is_file=True)
    chunk = with_chunk(chunks, one)
    one.prepared["x"] = "reply"
    memo.put(b"head", "reply", one, 1)
    pathnames.drop(one.key)
    assert (one.chunk, one.prepared, one.memos) == (None, {}, [])
    assert memo.get(b"head") is None
    assert chunk.view is None
    assert chunks.arena.used == 0
    assert not pathnames.usable(one, 0.5)


def test_eviction_of_the_chunk_takes_the_answers_and_leaves_the_facts(pathnames: Pathnames, chunks: Chunks) -> None:
    memo: Memo[bytes, str] = Memo()
    one = entry("a")
    pathnames.put(one, 1.0, is_file=True)
    with_chunk(chunks, one)
    one.prepared["x"] = "reply"
    memo.put(b"head", "reply", one, 1)
    while chunks.reserve(TOP) is not None:
        pass
    assert (one.chunk, one.prepared, memo.get(b"head")) == (None, {}, None)
    assert pathnames.is_current(one)
    assert pathnames.usable(one, 1.5)


def test_two_paths_of_one_file_share_its_chunk(pathnames: Pathnames, chunks: Chunks) -> None:
    first, second = entry("a"), entry("b")
    pathnames.put(first, 1.0, is_file=True)
    pathnames.put(second, 1.0, is_file=True)
    chunk = with_chunk(chunks, first)
    second.attach(chunk)
    pathnames.drop(first.key)
    assert chunk.view is not None
    assert second.chunk is chunk
    pathnames.drop(second.key)
    assert chunk.view is None


def test_a_dead_entrys_pinned_chunk_lives_until_it_is_sent(pathnames: Pathnames, chunks: Chunks) -> None:
    one = entry("a")
    pathnames.put(one, 1.0, is_file=True)
    chunk = with_chunk(chunks, one)
    chunks.pin(chunk)
    pathnames.drop(one.key)
    assert chunk.view is not None
    assert chunks.get(chunk.key) is None
    chunks.unpin(chunk)
    assert chunk.view is None
    assert chunks.arena.used == chunks.pinned == 0


def test_listings_of_a_folder_are_few_and_grow_old(pathnames: Pathnames, chunks: Chunks) -> None:
    folder = entry("folder/")
    pathnames.put(folder, 100.0, is_file=False)
    pages = []
    for number in range(LISTINGS + 1):
        page = pathnames.add_listing(folder, number, ("page", number), None, 100.0)
        if number < 3:
            with_chunk(chunks, page)
        pages.append(page)
    assert list(folder.variants.values()) == [pages[-1]]
    assert all(page.chunk is None and not pathnames.usable(page, 100.0) for page in pages[:-1])
    assert chunks.arena.used == 0
    assert pathnames.usable(pages[-1], 105.0)
    assert pathnames.take_stale() == [folder]
    pathnames.renew(folder, 109.0)
    assert pathnames.usable(pages[-1], 109.5)
    assert not pathnames.usable(pages[-1], 110.5), "its folder is fresh, and it is not"
    assert pathnames.usable(folder, 110.5)


def test_a_variant_is_as_fresh_as_its_original(pathnames: Pathnames, chunks: Chunks) -> None:
    one = entry("a")
    pathnames.put(one, 100.0, is_file=True)
    variant = one.add_variant(0, b"a.br", "version of a.br", None)
    chunk = with_chunk(chunks, variant)
    assert (variant.source, one.source, variant.coding) == (one, one, 0)
    assert pathnames.usable(variant, 101.0)
    assert pathnames.usable(variant, 105.0)
    assert pathnames.take_stale() == [one]
    assert not pathnames.usable(variant, 111.0)
    pathnames.renew(one, 110.9)
    assert pathnames.usable(variant, 111.5)
    assert variant.fresh_until == one.fresh_until
    pathnames.drop(one.key)
    assert not pathnames.usable(variant, 111.6)
    assert (one.variants, chunk.view, chunks.arena.used) == ({}, None, 0)
