"""The scoreboard, written by a real child process."""

import os

import pytest

from flashpy.scoreboard import COUNTERS, GAUGES, Scoreboard

# The threads are the test runner's (pytest-xdist); the children here never use them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def values(**given: int) -> list[int]:
    return [given.get(name, 0) for name in COUNTERS]


def test_a_child_writes_what_the_parent_reads() -> None:
    board = Scoreboard(4)
    index = board.claim()
    assert index is not None
    pid = os.fork()
    if pid == 0:
        board.slot(index).store(values(requests=7, bytes_sent=1 << 60))
        board.slot(index).beat(123456789)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.totals()["requests"] == 7
    assert board.totals()["bytes_sent"] == 1 << 60
    assert board.slot(index).heard_ns() == 123456789


def test_retired_counters_stay_and_gauges_go() -> None:
    board = Scoreboard(4)
    index = board.claim()
    assert index is not None
    board.slot(index).store(values(requests=3, connections_open=2, arena_used=9))
    board.retire(index)
    totals = board.totals()
    assert totals["requests"] == 3
    assert [totals[name] for name in GAUGES] == [0] * len(GAUGES)


def test_a_slot_is_clean_when_it_is_claimed_again() -> None:
    board = Scoreboard(1)
    for _ in range(3):
        index = board.claim()
        assert index == 1
        assert board.slot(index).load() == values()
        assert board.slot(index).heard_ns() == 0
        board.slot(index).store(values(hits=5))
        board.slot(index).beat(1)
        board.retire(index)
    assert board.totals()["hits"] == 15


def test_no_slot_when_all_are_taken() -> None:
    board = Scoreboard(2)
    claimed = [board.claim(), board.claim()]
    assert sorted(filter(None, claimed)) == [1, 2]
    assert board.claim() is None
    assert board.free() == 0


def test_slots_do_not_touch_each_other() -> None:
    board = Scoreboard(3)
    for index in (1, 2, 3):
        board.slot(index).beat(index)
        board.slot(index).store([index] * len(COUNTERS))
    assert [board.slot(index).heard_ns() for index in (1, 2, 3)] == [1, 2, 3]
    assert [set(board.slot(index).load()) for index in (0, 1, 2, 3)] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("count", [0, len(COUNTERS) - 1, len(COUNTERS) + 1])
def test_another_number_of_counters_is_refused(count: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the interpreter's words)
        Scoreboard(1).slot(1).store([0] * count)


def test_only_a_claimed_slot_is_retired() -> None:
    board = Scoreboard(2)
    with pytest.raises(ValueError, match="no process"):
        board.retire(0)
    with pytest.raises(ValueError, match="no process"):
        board.retire(1)
    with pytest.raises(IndexError):
        board.slot(3)
