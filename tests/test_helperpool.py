"""The pool over a real spawner and real helpers, which are stopped and killed as it happens to them."""

import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flashpy.cache.pathnames import Entry
from flashpy.helperpool import ATTEMPTS, QueueFull
from flashpy.tasks import Trouble
from flashpy_helpers import channel, records, wire
from tests.workbench import Bench, Spawner, ended

MakeBench = Callable[..., Bench]


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    roots = [tmp_path / name for name in ("first", "second")]
    for root in roots:
        root.mkdir()
        for n in range(20):
            (root / f"{n}.txt").write_bytes(b"%d of %b" % (n, root.name.encode()))
    return roots


@pytest.fixture
def make(roots: list[Path]) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(count: int = 1, **options: Any) -> Bench:
        made.append(Bench(*roots[:count], **options))
        made[-1].ready()
        return made[-1]

    yield make
    for bench in made:
        signal_all(bench, signal.SIGCONT)
        bench.close()


def signal_all(bench: Bench, number: int) -> list[int]:
    pids = bench.spawner.helpers() if bench.spawner.process.poll() is None else []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


def kill_all(bench: Bench) -> None:
    assert all(ended(pid) for pid in signal_all(bench, signal.SIGKILL))


def ask(bench: Bench, path: str, root: int = 0, **options: Any) -> list[Any]:
    """Want a path; the list takes what comes in hand."""
    got: list[Any] = []
    bench.pool.want(bench.lookup(path.encode(), root), got.append, **options)
    return got


def ticking(bench: Bench, goal: Callable[[], object]) -> None:
    """Turn the loop until the goal is reached, with the pool's clock running."""

    def ticked() -> object:
        bench.pool.tick()
        return goal()

    bench.until(ticked)


def content(entry: Any) -> bytes:
    assert isinstance(entry, Entry)
    assert entry.chunk is not None
    assert entry.chunk.view is not None
    return bytes(entry.chunk.view)


def test_identical_misses_are_joined(make: MakeBench) -> None:
    bench = make()
    answers = [ask(bench, "1.txt") for _ in range(5)]
    bench.until(lambda: all(answers))
    assert (bench.pool.jobs, bench.pool.joined) == (1, 4)
    assert len({id(got[0]) for got in answers}) == 1
    assert content(answers[0][0]) == b"1 of first"
    assert not bench.pool._tasks


def test_a_cancelled_waiter_is_not_called_and_its_job_is_done_all_the_same(make: MakeBench) -> None:
    bench = make()
    got: list[Any] = []
    bench.pool.want(bench.lookup(b"1.txt"), got.append).cancel()
    bench.until(lambda: bench.pathnames.get((0, b"1.txt")))
    assert got == []
    assert bench.chunks.pinned == 0


def test_a_queued_job_that_nobody_waits_for_is_not_done(make: MakeBench) -> None:
    bench = make(least=1, most=1)
    signal_all(bench, signal.SIGSTOP)
    first = ask(bench, "1.txt")
    bench.pool.want(bench.lookup(b"2.txt"), first.append).cancel()
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: first and not bench.pool._tasks)
    assert bench.pool.jobs == 1


def test_the_queue_is_bounded(make: MakeBench) -> None:
    bench = make(least=2, most=2, queue=3)
    signal_all(bench, signal.SIGSTOP)
    answers = [ask(bench, f"{n}.txt") for n in range(5)]
    with pytest.raises(QueueFull):
        ask(bench, "6.txt")
    assert bench.pool.refused == 1
    answers.append(ask(bench, "4.txt"))  # joining needs no place
    answers.append(ask(bench, "7.txt", must=True))
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: all(answers))
    assert [content(got[0]) for got in answers[:5]] == [b"%d of first" % n for n in range(5)]
    assert len(bench.pool._lines) == 0


def test_helpers_are_hired_while_jobs_wait_and_let_go_when_idle(make: MakeBench) -> None:
    bench = make(least=1, most=3)
    signal_all(bench, signal.SIGSTOP)
    answers = [ask(bench, f"{n}.txt") for n in range(8)]
    bench.until(lambda: bench.greetings == 3)
    bench.until(lambda: sum(map(bool, answers)) == 7)
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: all(answers))
    assert len(bench.spawner.helpers()) == 3
    bench.loop.now += 11
    bench.pool.tick()
    bench.until(lambda: len(bench.spawner.helpers()) == 1)
    assert content(_answer(bench, "9.txt")) == b"9 of first"


def _answer(bench: Bench, path: str, root: int = 0) -> Any:
    got = ask(bench, path, root)
    bench.until(lambda: got)
    return got[0]


def test_a_hanging_root_holds_no_more_than_its_share(make: MakeBench) -> None:
    bench = make(2, least=2, most=4)
    signal_all(bench, signal.SIGSTOP)
    hanging = [ask(bench, f"{n}.txt", 0) for n in range(10)]
    assert bench.pool.jobs == 2
    for n in range(5):
        assert content(_answer(bench, f"{n}.txt", 1)) == b"%d of second" % n
    assert not any(hanging)
    assert bench.pool.jobs == 7
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: all(hanging))


def test_roots_take_turns(make: MakeBench) -> None:
    bench = make(2, least=1, most=2)
    signal_all(bench, signal.SIGSTOP)
    order: list[int] = []
    ask(bench, "0.txt", 0)
    for n in range(1, 6):
        bench.pool.want(bench.lookup(b"%d.txt" % n, 0), lambda _: order.append(0))
    for n in range(2):
        bench.pool.want(bench.lookup(b"%d.txt" % n, 1), lambda _: order.append(1))
    bench.until(lambda: order == [1, 1])  # root 0 holds its share
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: len(order) == 7)


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_a_helper_written_off_keeps_its_block_until_it_answers_or_dies(make: MakeBench, end: int) -> None:
    bench = make(timeout=0.1)
    stopped = signal_all(bench, signal.SIGSTOP)
    got = ask(bench, "1.txt")
    blocks = bench.chunks.arena.blocks()
    assert len(blocks) == 1
    ticking(bench, lambda: got and bench.pool.write_offs)
    assert isinstance(got[0], Trouble)
    assert got[0].status == 504
    assert content(_answer(bench, "2.txt")) == b"2 of first"
    assert content(_answer(bench, "1.txt")) == b"1 of first"
    bench.settle()
    assert blocks[0] in bench.chunks.arena.blocks()
    assert bench.chunks.pinned == blocks[0][1]
    os.kill(stopped[0], end)
    bench.until(lambda: bench.chunks.pinned == 0)
    assert blocks[0] not in bench.chunks.arena.blocks()
    assert got == got[:1]
    assert bench.pool.write_offs == 1


def test_write_offs_are_bounded_and_so_are_processes(make: MakeBench) -> None:
    bench = make(least=2, most=2, timeout=0.05, queue=100)
    answers = []
    for n in range(12):
        signal_all(bench, signal.SIGSTOP)
        answers.append(ask(bench, f"{n}.txt"))
        ticking(bench, lambda: answers[-1])
        helpers = bench.pool._helpers
        assert sum(helper.written_off for helper in helpers) <= 2
        assert len(helpers) <= 4
    assert any(isinstance(got[0], Trouble) and got[0].status == 504 for got in answers)
    signal_all(bench, signal.SIGCONT)
    ticking(bench, lambda: bench.chunks.pinned == 0 and not bench.pool._tasks)
    assert content(_answer(bench, "15.txt")) == b"15 of first"
    bench.until(lambda: len(bench.spawner.helpers()) <= 4)  # one that was let go needs a moment to end


def test_a_killed_helpers_job_goes_to_another(make: MakeBench) -> None:
    bench = make()
    signal_all(bench, signal.SIGSTOP)
    got = ask(bench, "1.txt")
    kill_all(bench)
    bench.until(lambda: got)
    assert content(got[0]) == b"1 of first"
    assert (bench.pool.jobs, bench.pool.deaths) == (2, 1)
    bench.settle()
    assert bench.chunks.pinned == 0


def test_a_job_that_kills_its_helpers_is_given_up(make: MakeBench) -> None:
    bench = make()
    got: list[Any] = []
    # Longer than any record, so the helper gives up: a job that kills.
    bench.pool.want(bench.lookup(b"a/" * 35_000), got.append)
    ticking(bench, lambda: got)
    assert got[0].status == 500
    assert bench.pool.deaths == ATTEMPTS
    assert [text for text in bench.said if "gave up a job" in text]
    assert bench.chunks.pinned == 0
    ticking(bench, lambda: bench.pool._idle)
    assert content(_answer(bench, "1.txt")) == b"1 of first"
    bench.noise = b"a record longer than agreed"


def test_all_idle_helpers_dead_at_once(make: MakeBench) -> None:
    """A helper that was dead before it got the job says nothing against the job."""
    bench = make(least=3)
    kill_all(bench)
    got = ask(bench, "1.txt")
    assert got == [], "called back before want() returned"
    ticking(bench, lambda: got)
    assert content(got[0]) == b"1 of first"


def test_the_spawner_dies_and_another_takes_its_place(make: MakeBench, roots: list[Path]) -> None:
    bench = make(timeout=1e6)
    bench.spawner.kill()
    for helper in bench.pool._helpers:
        helper.sock.shutdown(2)  # as if the helper had died too
    got = ask(bench, "1.txt")
    for _ in range(1100):
        bench.pool.tick()
        bench.loop.now += 10
    assert not got
    bench.spawner.control.close()
    bench.spawner.requests.close()
    bench.spawner.process.communicate()
    bench.spawner = Spawner(roots[0])
    bench._pool_end = bench.spawner.requests.dup()
    bench.pool.rebind(bench._pool_end)
    bench.until(lambda: got)
    assert content(got[0]) == b"1 of first"


def test_a_pool_without_helpers_and_spawner_is_busy(make: MakeBench, roots: list[Path]) -> None:
    """Whoever can do without its work need not wait for another spawner."""
    bench = make()
    assert not bench.pool.busy
    bench.spawner.kill()
    for helper in bench.pool._helpers:
        helper.sock.shutdown(2)
    got = ask(bench, "1.txt")
    bench.until(lambda: bench.pool.busy)
    bench.spawner.close()
    bench.spawner = Spawner(roots[0])
    bench._pool_end = bench.spawner.requests.dup()
    bench.pool.rebind(bench._pool_end)
    bench.until(lambda: got)
    assert not bench.pool.busy
    assert content(got[0]) == b"1 of first"


def test_what_changes_while_a_helper_has_it_serves_those_who_wait_and_is_not_kept(make: MakeBench) -> None:
    bench = make()
    signal_all(bench, signal.SIGSTOP)
    doubted, other = ask(bench, "1.txt"), ask(bench, "2.txt")
    bench.pool.doubt(lambda key: key == (0, b"1.txt"))
    late = ask(bench, "1.txt")  # joins
    queued = ask(bench, "3.txt")
    bench.pool.doubt(lambda key: key == (0, b"3.txt"))  # nobody has looked at it yet
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: doubted and other and late and queued)
    for got in (doubted, other, late, queued):
        assert isinstance(got[0], Entry)
    assert bench.pathnames.get((0, b"1.txt")) is None
    assert bench.pathnames.get((0, b"2.txt")) is other[0]
    assert bench.pathnames.get((0, b"3.txt")) is queued[0]
    again = ask(bench, "1.txt")
    bench.until(lambda: again)
    assert bench.pathnames.get((0, b"1.txt")) is again[0]


def test_checks_have_a_helper_of_their_own(make: MakeBench) -> None:
    bench = make(least=1, most=1)
    entry = _answer(bench, "1.txt")
    signal_all(bench, signal.SIGSTOP)
    waiting = ask(bench, "2.txt")
    entry.fresh_until = 0.0
    before = entry.checked
    assert bench.pathnames.usable(entry, bench.loop.now)
    bench.until(lambda: entry.checked > before)
    assert not waiting
    assert len(bench.spawner.helpers()) == 2
    bench.loop.now += 11
    bench.pool.tick()
    bench.until(lambda: len(bench.spawner.helpers()) == 1)


def test_checks_go_on_while_all_memory_is_pinned(make: MakeBench) -> None:
    bench = make(least=2, most=4, memory=8 * 65536)
    entry = _answer(bench, "1.txt")
    bench.settle()
    while bench.chunks.reserve(65536) is not None:
        pass
    waiting = ask(bench, "2.txt")
    entry.fresh_until = 0.0
    entry.expires = bench.loop.now + 1000
    before = entry.checked
    assert bench.pathnames.usable(entry, bench.loop.now)
    bench.until(lambda: entry.checked > before)
    assert not waiting


def test_no_descriptors_left_is_no_error_of_the_job(make: MakeBench) -> None:
    bench = make(least=1, most=2)
    signal_all(bench, signal.SIGSTOP)
    first = ask(bench, "1.txt")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        second = ask(bench, "2.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ticking(bench, lambda: second)
    assert content(second[0]) == b"2 of first"
    signal_all(bench, signal.SIGCONT)
    bench.until(lambda: first)


@pytest.mark.parametrize("says", [b"nonsense", records.pack_answer(wire.Hello(99, 1)), b""])
def test_a_helper_that_is_none_is_sent_away(make: MakeBench, says: bytes, roots: list[Path]) -> None:
    """The test plays the spawner's part for once."""
    bench = make(least=2)
    kill_all(bench)
    ours, theirs = channel.pair()
    bench._pool_end = theirs
    bench.pool.rebind(theirs)
    ticking(bench, lambda: _plays(ours, says))
    bench.until(lambda: bool(bench.said) == bool(says))
    bench.loop.now += 11
    bench.pool.tick()
    assert not bench.pool._idle
    bench._pool_end = bench.spawner.requests.dup()
    bench.pool.rebind(bench._pool_end)
    ours.close()
    got = ask(bench, "1.txt")
    ticking(bench, lambda: got)
    assert content(got[0]) == b"1 of first"


def _plays(ours: socket.socket, says: bytes) -> bool:
    asked = channel.receive(ours)
    if asked is None:
        return False
    end, memory = asked[1]
    os.close(memory)
    with socket.socket(fileno=end) as sock:
        if says:
            assert channel.send(sock, says)
    return True
