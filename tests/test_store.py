"""What a helper's answer does to the caches, answer by answer. Values only; the pool is a list."""

from typing import Any

import pytest

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.findings import Findings
from flashpy.store import LATE_SECONDS, ROUNDS, HelperStore
from flashpy.tasks import Trouble
from flashpy_helpers import records, wire

TOP = 65536
VERSION = wire.Identity(1, 2, 100, 1_700_000_000_000_000_000, 4)


class Checks:
    """Takes the store's checks, as the pool does."""

    def __init__(self) -> None:
        self.now = 100.0
        self.jobs: list[wire.Check] = []

    def check(self, job: wire.Check) -> None:
        self.jobs.append(job)


class Desk:
    """A store and all it works on."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.chunks = Chunks(memoryview(bytearray(8 * TOP)), TOP)
        self.pathnames = Pathnames(1000, self.chunks, 1.0, 10.0)
        self.store = HelperStore(
            self.chunks, self.pathnames, lambda: 1_800_000_000.0, self.said.append, self.said.append, Findings()
        )
        self.checks: Any = Checks()

    def lookup(
        self, answer: wire.Answer, path: bytes = b"a", known: wire.Identity | None = None, at: float = 5.0
    ) -> Any:
        job = wire.Lookup(0, 0, path, 0, TOP, known)
        return self.store.settle(job, answer, self.store.reserve(TOP), at)

    def found(self, path: bytes = b"a", version: wire.Identity = VERSION, at: float = 5.0) -> Entry:
        entry = self.lookup(wire.Found(0, version, path, version.size), path, at=at)
        assert isinstance(entry, Entry)
        return entry

    def stale(self, *entries: Entry) -> None:
        for entry in entries:
            entry.expires = 1e9
            assert self.pathnames.usable(entry, entry.fresh_until + 1)
        self.store.check_stale(self.checks)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_file_is_kept_with_its_first_chunk(desk: Desk) -> None:
    entry = desk.found()
    assert desk.pathnames.get((0, b"a")) is entry
    assert (entry.outcome, entry.checked) == (VERSION, 5.0)
    assert entry.chunk is desk.chunks.get((VERSION, 0))
    assert entry.chunk is not None
    assert (entry.chunk.length, entry.chunk.pins) == (100, 1)
    assert entry.facts.etag == b'"1797a2f7ae6e0000-64"' or entry.facts.etag == b'"%x-64"' % VERSION.mtime_ns
    desk.store.end_turn()
    assert desk.chunks.pinned == 0
    desk.store.end_turn()
    assert entry.chunk.pins == 0


def test_an_empty_file_has_no_chunk(desk: Desk) -> None:
    entry = desk.found(version=VERSION._replace(size=0))
    assert entry.chunk is None
    assert desk.chunks.arena.used == 0


def test_a_time_in_the_future_is_said_as_now(desk: Desk) -> None:
    entry = desk.found(version=VERSION._replace(mtime_ns=1_900_000_000_000_000_000))
    assert entry.facts.mtime == 1_800_000_000


def test_another_path_of_the_same_file_shares_the_chunk(desk: Desk) -> None:
    first, second = desk.found(b"a"), desk.found(b"b")
    assert first.chunk is second.chunk
    assert len(desk.chunks.arena.blocks()) == 1
    desk.store.end_turn()
    assert desk.chunks.pinned == 0


def test_a_new_version_takes_the_place_of_the_old_one(desk: Desk) -> None:
    old = desk.found()
    desk.store.end_turn()
    new = desk.found(version=VERSION._replace(mtime_ns=7, size=50))
    assert desk.pathnames.get((0, b"a")) is new
    assert old.chunk is None
    assert desk.chunks.get((VERSION, 0)) is None


def test_unchanged_renews_and_gives_the_block_back(desk: Desk) -> None:
    entry = desk.found(at=5.0)
    desk.store.end_turn()
    assert desk.lookup(wire.Unchanged(0), known=VERSION, at=50.0) is entry
    assert entry.checked == 50.0
    assert desk.chunks.pinned == 0


def test_unchanged_of_what_has_gone_by_now_is_asked_again(desk: Desk) -> None:
    desk.found()
    desk.pathnames.drop((0, b"a"))
    assert desk.lookup(wire.Unchanged(0), known=VERSION) is None
    desk.found(version=VERSION._replace(inode=9))
    assert desk.lookup(wire.Unchanged(0), known=VERSION) is None


@pytest.mark.parametrize("verdict", [wire.MISSING, wire.REFUSED, wire.FOLDER, wire.NO_INDEX])
def test_what_lasts_is_kept(desk: Desk, verdict: int) -> None:
    desk.found()
    desk.store.end_turn()
    entry = desk.lookup(wire.Failure(0, verdict, 2))
    assert isinstance(entry, Entry)
    assert entry.outcome == verdict
    assert desk.pathnames.get((0, b"a")) is entry
    assert desk.chunks.arena.used == 0
    assert desk.said == []


@pytest.mark.parametrize(("verdict", "status"), [(wire.MOVING, 503), (wire.BUSY, 503), (wire.BROKEN, 500)])
def test_what_does_not_last_is_trouble_and_what_was_known_is_dropped(desk: Desk, verdict: int, status: int) -> None:
    desk.found()
    desk.store.end_turn()
    trouble = desk.lookup(wire.Failure(0, verdict, 5))
    assert isinstance(trouble, Trouble)
    assert trouble.status == status
    assert desk.pathnames.get((0, b"a")) is None
    assert desk.chunks.arena.used == 0
    assert len(desk.said) == (verdict == wire.BROKEN)


def load(desk: Desk, answer: wire.Answer, start: int = TOP, length: int = 1000) -> Any:
    job = wire.Load(0, 0, b"a", VERSION, start, length, 0)
    return desk.store.settle(job, answer, desk.store.reserve(length), 5.0)


def test_a_later_chunk(desk: Desk) -> None:
    chunk = load(desk, wire.Loaded(0, 1000), start=3 * TOP)
    assert isinstance(chunk, Chunk)
    assert desk.chunks.get((VERSION, 3)) is chunk
    assert load(desk, wire.Loaded(0, 1000), start=3 * TOP) is chunk
    desk.store.end_turn()
    assert desk.chunks.pinned == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (wire.Loaded(0, 999), 503),
        (wire.Failure(0, wire.MOVING, 0), 503),
        (wire.Failure(0, wire.MISSING, 2), 404),
        (wire.Failure(0, wire.REFUSED, 13), 403),
        (wire.Failure(0, wire.BROKEN, 5), 500),
    ],
)
def test_a_chunk_that_could_not_be_read(desk: Desk, answer: wire.Answer, status: int) -> None:
    assert load(desk, answer).status == status
    assert desk.chunks.arena.used == 0


def test_stale_entries_go_as_one_job_of_their_root(desk: Desk) -> None:
    files = [desk.found(b"%d" % n, VERSION._replace(inode=n)) for n in range(3)]
    desk.store.end_turn()
    desk.stale(*files)
    (job,) = desk.checks.jobs
    assert sorted(job.expected) == [(b"%d" % n, VERSION._replace(inode=n), None) for n in range(3)]
    changed = [path for path, *_ in job.expected].index(b"1")
    desk.store.settle(job, wire.Changed(0, (changed,)), None, 60.0)
    assert [desk.pathnames.get(entry.key) for entry in files] == [files[0], None, files[2]]
    assert (files[0].checked, files[2].checked) == (60.0, 60.0)


def test_one_job_of_a_root_at_a_time_while_it_is_in_time(desk: Desk) -> None:
    first, second = desk.found(b"1"), desk.found(b"2")
    desk.stale(first)
    desk.stale(second)
    assert len(desk.checks.jobs) == 1
    desk.store.settle(desk.checks.jobs[0], wire.Changed(0, ()), None, 60.0)
    desk.store.check_stale(desk.checks)
    assert [path for path, *_ in desk.checks.jobs[1].expected] == [b"2"]


def test_a_late_check_does_not_hold_up_the_others_and_rounds_are_bounded(desk: Desk) -> None:
    files = [desk.found(b"%d" % n) for n in range(20)]
    desk.stale(*files)
    desk.checks.now += LATE_SECONDS + 0.1
    desk.store.check_stale(desk.checks)
    assert len(desk.checks.jobs) == ROUNDS
    assert all(len(job.expected) == 1 for job in desk.checks.jobs[1:])
    for _ in range(10):
        desk.checks.now += 10
        desk.store.check_stale(desk.checks)
    assert len(desk.checks.jobs) == ROUNDS
    for number in range(1, 100):
        if number < len(desk.checks.jobs):
            desk.store.settle(desk.checks.jobs[number], wire.Changed(0, ()), None, 60.0)
            desk.store.check_stale(desk.checks)
    assert all(entry.checked == 60.0 for entry in files)


def test_a_check_that_failed_is_asked_again_and_harms_nobody(desk: Desk) -> None:
    entry = desk.found()
    desk.stale(entry)
    desk.store.settle(desk.checks.jobs[0], wire.Failure(0, wire.BROKEN, 5), None, 60.0)
    assert desk.pathnames.is_current(entry)
    assert entry.checked == 5.0
    assert desk.pathnames.usable(entry, entry.checked + 2.0)
    desk.store.check_stale(desk.checks)
    assert len(desk.checks.jobs) == 2


def test_an_answer_about_what_was_replaced_meanwhile_is_ignored(desk: Desk) -> None:
    old = desk.found()
    desk.stale(old)
    new = desk.found(version=VERSION._replace(inode=9), at=70.0)
    desk.store.settle(desk.checks.jobs[0], wire.Changed(0, (0,)), None, 60.0)
    assert desk.pathnames.is_current(new)
    assert new.checked == 70.0


def test_checks_keep_to_what_a_record_holds(desk: Desk) -> None:
    files = [desk.found(b"%d" % n + b"x" * 1000) for n in range(300)]
    desk.stale(*files)
    seen = 0
    while desk.checks.jobs:
        job = desk.checks.jobs.pop()
        assert len(records.pack_job(job)) <= wire.CHECK_BYTES
        seen += len(job.expected)
        desk.store.settle(job, wire.Changed(0, ()), None, 60.0)
        desk.store.check_stale(desk.checks)
    assert seen == 300
