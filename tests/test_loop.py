"""The event loop, over real descriptors."""

import os
import socket
import time
from collections.abc import Iterator

import pytest

from flashpy.loop import HANGUP, READ, WRITE, Loop


class Turner:
    """A loop that is turned one turn at a time, and what went wrong in it."""

    def __init__(self) -> None:
        self.errors: list[tuple[int, Exception]] = []
        self.loop = Loop(lambda fd, problem: self.errors.append((fd, problem)))
        self.loop.every_turn(self.loop.stop)

    def turn(self, seconds: float = 0.0) -> None:
        self.loop.stopped = False
        self.loop.later(seconds, lambda: None)
        self.loop.run()


@pytest.fixture
def turner() -> Turner:
    return Turner()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_handler_is_told_what_happened(turner: Turner, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    masks: list[int] = []
    turner.loop.add(ours.fileno(), READ, masks.append)
    turner.turn()
    assert masks == []
    theirs.send(b"x")
    turner.turn()
    assert masks == [READ]
    turner.loop.modify(ours.fileno(), WRITE, masks.append)
    turner.turn()
    assert masks == [READ, WRITE]
    turner.loop.modify(ours.fileno(), 0, masks.append)
    turner.turn()
    assert len(masks) == 2
    theirs.close()
    turner.turn()
    assert masks[2] & HANGUP


def test_modify_tells_another_handler(turner: Turner, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[str] = []
    turner.loop.add(pair[0].fileno(), READ, lambda _: told.append("first"))
    turner.loop.modify(pair[0].fileno(), READ, lambda _: told.append("second"))
    pair[1].send(b"x")
    turner.turn()
    assert told == ["second"]


def test_a_removed_descriptor_stays_open_and_silent(turner: Turner, pair: tuple[socket.socket, socket.socket]) -> None:
    masks: list[int] = []
    turner.loop.add(pair[0].fileno(), READ, masks.append)
    pair[1].send(b"x")
    turner.loop.remove(pair[0].fileno())
    turner.loop.remove(pair[0].fileno())
    turner.turn()
    assert masks == []
    assert pair[0].recv(1) == b"x"
    turner.loop.add(pair[0].fileno(), WRITE, masks.append)
    turner.turn()
    assert masks == [WRITE]


def test_no_event_of_this_turn_reaches_what_was_given_up_in_it(turner: Turner) -> None:
    """Two descriptors are ready; whoever is first gives up the other. Its number stays taken to the end of the turn."""
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[int] = []
    fresh: list[int] = []

    def handler(this: int) -> None:
        other = pairs[1 - this][0]
        told.append(this)
        turner.loop.discard(other.fileno(), other.close)
        number = os.dup(0)
        fresh.append(number)
        assert number != other.fileno()
        assert other.fileno() >= 0

    for this, (ours, theirs) in enumerate(pairs):
        turner.loop.add(ours.fileno(), READ, lambda _, this=this: handler(this))  # type: ignore[misc]
        theirs.send(b"x")
    turner.turn()
    assert len(told) == 1
    assert pairs[1 - told[0]][0].fileno() == -1
    assert turner.errors == []
    turner.turn()
    assert told == [told[0]] * 2
    for number in fresh:
        os.close(number)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_a_raising_handler_costs_nobody_else_anything(
    turner: Turner, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[str] = []

    def bad(_mask: int) -> None:
        raise ValueError("bug")

    def bad_timer() -> None:
        raise KeyError("bug")

    ours, theirs = pair
    turner.loop.add(ours.fileno(), READ, bad)
    turner.loop.add(theirs.fileno(), WRITE, lambda _: told.append("handler"))
    turner.loop.later(0.0, bad_timer)
    turner.loop.later(0.0, lambda: told.append("timer"))
    turner.loop.every_turn(lambda: 1 // 0)  # type: ignore[arg-type]
    turner.loop.every_turn(lambda: told.append("hook"))
    theirs.send(b"x")
    turner.turn()
    assert told == ["handler", "timer", "hook"]
    assert [(fd, type(problem)) for fd, problem in turner.errors] == [
        (ours.fileno(), ValueError),
        (-1, KeyError),
        (-1, ZeroDivisionError),
    ]


def test_timers_run_once_in_the_order_of_their_times(turner: Turner) -> None:
    told: list[str] = []
    for seconds, name in ((0.03, "c"), (0.0, "a"), (0.01, "b"), (0.01, "b2")):
        turner.loop.later(seconds, lambda name=name: told.append(name))  # type: ignore[misc]
    start = time.monotonic()
    while time.monotonic() - start < 0.05:
        turner.turn(0.01)
    assert told == ["a", "b", "b2", "c"]


def test_a_timer_may_start_another(turner: Turner) -> None:
    told: list[float] = []

    def again() -> None:
        told.append(turner.loop.now)
        if len(told) < 3:
            turner.loop.later(0.001, again)

    turner.loop.later(0.0, again)
    end = time.monotonic() + 10
    while len(told) < 3 and time.monotonic() < end:
        turner.turn(0.001)
    assert len(set(told)) == 3


def test_the_clock_is_read_once_a_turn(turner: Turner) -> None:
    seen: list[float] = []
    for _ in range(3):
        turner.loop.later(0.0, lambda: seen.append(turner.loop.now))
    turner.turn()
    assert len(seen) == 3
    assert len(set(seen)) == 1
    before = turner.loop.now
    turner.turn(0.002)
    assert turner.loop.now > before


def test_an_interrupted_sleeper_with_nothing_to_do_wakes_within_a_second(turner: Turner) -> None:
    start = time.monotonic()
    turner.loop.stopped = False
    turner.loop.run()
    assert 0.5 < time.monotonic() - start < 5
