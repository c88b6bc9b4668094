"""News of changed files: as records, and what a worker makes of them."""

import os
from collections.abc import Callable

import pytest

from flashpy.cache.chunks import Chunks
from flashpy.cache.pathnames import Entry, Key, Pathnames
from flashpy.changes import Changes
from flashpy.config import Mount, Settings, Site
from flashpy.generation import Generation, Worker
from flashpy.heritage import watched
from flashpy.processes import Child
from flashpy.scoreboard import Scoreboard
from flashpy_helpers import channel, news, wire
from flashpy_helpers.news import Change

HOUR = 3600.0
PLAIN = wire.Root(b"/srv/plain", (b"index.html",), wire.INSIDE)
RICH = wire.Root(b"/srv/rich", (b"index.html", b"index.htm"), wire.INSIDE, clean=True, listed=True)


def test_changes_there_and_back() -> None:
    changes = [Change(0, b"", True), Change(4_000_000_000, b"a/b\n.txt", False), Change(1, b"x" * 4096, False)]
    (record,) = news.pack_changes(changes)
    assert news.unpack_changes(record) == changes
    assert list(news.pack_changes([])) == []
    assert news.unpack_changes(news.EVERYTHING) == []


def test_many_changes_take_several_records() -> None:
    changes = [Change(1, b"%05d" % number * 200, False) for number in range(500)]
    records = list(news.pack_changes(changes))
    assert len(records) > 5
    assert all(len(record) <= news.RECORD < channel.RECORD_BYTES for record in records)
    assert [change for record in records for change in news.unpack_changes(record)] == changes


@pytest.mark.parametrize("path", [None, b"/srv/www"])
def test_orders_there_and_back(path: bytes | None) -> None:
    assert news.unpack_order(news.pack_order(77, path)) == (77, path)


def test_nonsense_is_refused() -> None:
    (record,) = news.pack_changes([Change(1, b"abc", False)])
    for wrong in (b"", b"X", record[:-1], record + b"\0", record[:5]):
        with pytest.raises(wire.WireError):
            news.unpack_changes(wrong)
    order = news.pack_order(1, b"/a")
    for wrong in (b"", b"X" + order[1:], order[:5], order[:3], news.pack_order(1, None) + b"/a"):
        with pytest.raises(wire.WireError):
            news.unpack_order(wrong)
    with pytest.raises(wire.WireError):
        list(news.pack_changes([Change(-1, b"", True)]))
    with pytest.raises(wire.WireError):
        news.pack_order(-1, b"/a")


class Known:
    """Entries for some paths of two roots, as of time 100, and what is doubted."""

    def __init__(self) -> None:
        self.chunks = Chunks(memoryview(bytearray(1 << 20)), 1 << 16)
        self.pathnames = Pathnames(100, self.chunks, HOUR, HOUR)
        self.doubted: list[Callable[[Key], bool]] = []
        self.changes = Changes(self.pathnames, self.doubted.append, {0: PLAIN, 1: RICH})

    def add(self, root: int, path: bytes, *, is_file: bool = True) -> Entry:
        entry = Entry((root, path), path, path if is_file else wire.MISSING)
        self.pathnames.put(entry, 100.0, is_file=is_file)
        return entry

    def hear(self, *changes: Change) -> None:
        for record in news.pack_changes(changes):
            self.changes.hear(record, 200.0)

    def sure(self) -> set[Key]:
        """What would be served at time 300 without a look."""
        keys = [*self.pathnames._files, *self.pathnames._others]
        found = {key: self.pathnames.get(key) for key in keys}
        return {key for key, entry in found.items() if entry is not None and self.pathnames.usable(entry, 300.0)}


@pytest.fixture
def known() -> Known:
    return Known()


PATHS = (b"", b"a.txt", b"index.html", b"about", b"about.html", b"d/", b"d/index.html", b"d/x.css", b"d/e/", b"d/e/f")


@pytest.mark.parametrize(
    ("path", "deep", "root", "gone"),
    [
        (b"a.txt", False, 0, {b"a.txt"}),
        (b"a.txt", False, 1, {b"a.txt", b""}),
        (b"index.html", False, 0, {b"index.html", b""}),
        (b"index.html.br", False, 0, {b"index.html", b""}),
        (b"d/index.html", False, 1, {b"d/index.html", b"d/"}),
        (b"d/x.css.gz", False, 0, {b"d/x.css"}),
        (b"about.html", False, 0, {b"about.html"}),
        (b"about.html", False, 1, {b"about.html", b"about", b""}),
        (b"about.html.zst", False, 1, {b"about.html", b"about", b""}),
        (b"d", False, 0, {b"d/"}),
        (b"d", True, 0, {b"d/", b"d/index.html", b"d/x.css", b"d/e/", b"d/e/f"}),
        (b"d/e", True, 0, {b"d/e/", b"d/e/f"}),
        (b"", True, 0, set(PATHS)),
        (b"other", True, 0, set()),
    ],
)
def test_what_one_change_puts_in_question(known: Known, path: bytes, deep: bool, root: int, gone: set[bytes]) -> None:
    for number in (0, 1):
        for name in PATHS:
            known.add(number, name)
    everything = known.sure()
    assert len(everything) == 2 * len(PATHS)
    known.hear(Change(root, path, deep))
    assert everything - known.sure() == {(root, name) for name in gone}
    (doubted,) = known.doubted
    assert {key for key in everything if doubted(key)} == {(root, name) for name in gone}


def test_news_that_were_lost(known: Known) -> None:
    for name in PATHS:
        known.add(0, name)
    known.changes.hear(news.EVERYTHING, 200.0)
    assert known.sure() == set()
    assert known.doubted[0]((1, b"anything"))


def test_many_folders_are_all_of_their_root(known: Known) -> None:
    known.add(0, b"a")
    known.add(1, b"a")
    known.hear(*(Change(0, b"f%d" % number, True) for number in range(100)))
    assert known.sure() == {(1, b"a")}


def test_what_is_missing_is_forgotten_and_what_may_have_changed_kept(known: Known) -> None:
    missing, file, changed = known.add(0, b"m", is_file=False), known.add(0, b"f"), known.add(0, b"c")
    variant = file.add_variant(0, b"f.br", b"f.br", None)
    assert known.pathnames.usable(variant, 150.0)
    known.hear(Change(0, b"", True), Change(0, b"c", False))
    assert not known.pathnames.is_current(missing)
    assert not known.pathnames.is_current(changed)
    assert known.pathnames.is_current(file)
    assert not known.pathnames.usable(variant, 250.0)
    known.pathnames.renew(file, 260.0)
    assert known.pathnames.usable(file, 300.0)
    assert known.pathnames.usable(variant, 300.0)


def test_numbers_of_others_and_nonsense(known: Known) -> None:
    known.add(0, b"a")
    known.hear(Change(9, b"a", False), Change(9, b"", True))
    assert known.sure() == {(0, b"a")}
    with pytest.raises(wire.WireError):
        known.changes.hear(b"C\0", 200.0)


def test_a_worker_that_does_not_listen_is_told_that_it_missed_something() -> None:
    ours, its = channel.pair()
    with its:
        board = Scoreboard(4)
        index = board.claim()
        assert index is not None
        generation = Generation(Settings(site=(Site(root="/srv"),)), (), (0,))
        worker = Worker(Child(os.getpid()), ours, generation, 0, index, board.slot(index))
        record = b"C" + b"x" * 1000
        sent = 0
        while not worker._news_lost:
            worker.pass_on(record)
            sent += 1
        worker.pass_on(record)
        worker.flush()
        got = [channel.receive(its) for _ in range(sent - 1)]
        assert got == [(record, [])] * (sent - 1)
        assert channel.receive(its) is None
        worker.flush()
        assert channel.receive(its) == (news.EVERYTHING, [])
        worker.pass_on(record)
        assert channel.receive(its) == (record, [])
        ours.close()
        os.close(worker.child.fileno())


def test_watched_roots_of_a_configuration() -> None:

    mount = Mount(at="/m/", root="/srv/m")
    settings = Settings(
        site=(Site(root="/srv/a"), Site(root="/srv/b", watch=True, mount=(mount,)), Site(root="/srv/c"))
    )
    assert watched(settings, (0, 1, 2, 3)) == {1: b"/srv/b", 2: b"/srv/m"}
