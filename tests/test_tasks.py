"""Tasks and their lines: fair between roots, first come first served within one. Values only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.tasks import Lines, Task, Waiter, task_of
from flashpy_helpers.wire import Identity, Load, Lookup

VERSION = Identity(1, 2, 3, 4, 5)


def task(root: int, name: int = 0) -> Task:
    return task_of(Lookup(0, root, b"%d" % name, 0, 4096, None))


def test_what_makes_jobs_identical() -> None:
    lookup = Lookup(0, 1, b"a", 0, 4096, None)
    assert task_of(lookup).key == task_of(lookup._replace(known=VERSION, id=7)).key
    assert task_of(lookup).key != task_of(lookup._replace(root=2)).key
    assert task_of(lookup).key != task_of(lookup._replace(path=b"b")).key
    load = Load(0, 1, b"a", VERSION, 0, 100, 0)
    assert task_of(load).key == task_of(load._replace(id=7)).key
    others = [load._replace(start=100), load._replace(identity=VERSION._replace(size=9)), load._replace(path=b"b")]
    assert len({task_of(job).key for job in [load, *others]} | {task_of(lookup).key}) == 5
    assert (task_of(lookup).room, task_of(load).room) == (4096, 100)


def test_waiters_are_called_once_and_not_when_cancelled() -> None:
    told: list[Any] = []
    one = task(0)
    one.waiters = [Waiter(told.append, 1.0), Waiter(told.append, 2.0)]
    one.waiters[1].cancel()
    assert one.wanted()
    one.resume("answer")
    assert told == ["answer"]
    one.resume("again")
    assert told == ["answer"]
    assert not one.wanted()


def test_only_those_who_waited_too_long_are_called() -> None:
    told: list[str] = []
    one = task(0)
    waiters = [Waiter(told.append, since) for since in (1.0, 5.0, 2.0)]
    one.waiters = list(waiters)
    assert one.resume_older(3.0, "late") == 2
    assert told == ["late", "late"]
    assert one.waiters == [waiters[1]]
    assert waiters[0].resume is None
    assert one.resume_older(3.0, "late") == 0


def test_a_waiter_may_wait_again_while_it_is_called() -> None:
    one = task(0)
    fresh = Waiter(lambda _: None, 9.0)
    one.waiters = [Waiter(lambda _: one.waiters.append(fresh), 1.0)]
    one.resume("answer")
    assert one.waiters == [fresh]


def test_a_root_takes_no_more_than_its_share() -> None:
    lines = Lines(2)
    tasks = [task(0, n) for n in range(4)]
    for one in tasks:
        lines.append(one)
    for expected in tasks[:2]:
        assert lines.take() is expected
        lines.hold(0)
    assert lines.take() is None
    assert (lines.eligible(), len(lines)) == (0, 2)
    other = task(1)
    lines.append(other)
    assert lines.eligible() == 1
    assert lines.take() is other
    lines.let_go(0)
    assert lines.take() is tasks[2]


def test_roots_take_turns() -> None:
    lines = Lines(10)
    for root, count in ((0, 5), (1, 2), (2, 1)):
        for n in range(count):
            lines.append(task(root, n))
    order = []
    while (one := lines.take()) is not None:
        order.append(one.job.root)
    assert order == [0, 1, 2, 0, 1, 0, 0, 0]


def test_push_back_and_remove() -> None:
    lines = Lines(10)
    first, second, third = (task(0, n) for n in range(3))
    lines.append(second)
    lines.append(third)
    lines.push_back(first)
    lines.remove(second)
    with pytest.raises(ValueError, match="deque"):
        lines.remove(second)
    assert list(lines) == [first, third]
    assert len(lines) == 2
    assert [lines.take(), lines.take(), lines.take()] == [first, third, None]
    assert len(lines) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 3)),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 3))
def test_lines_lose_nothing_and_keep_the_order_of_each_root(steps: list[tuple[str, int]], share: int) -> None:
    lines = Lines(share)
    waiting: dict[int, list[Task]] = {root: [] for root in range(4)}
    held = dict.fromkeys(range(4), 0)
    for number, (step, root) in enumerate(steps):
        if step == "add":
            waiting[root].append(task(root, number))
            lines.append(waiting[root][-1])
        elif step == "done" and held[root]:
            held[root] -= 1
            lines.let_go(root)
        elif step == "take":
            free = [root for root in waiting if waiting[root] and held[root] < share]
            taken = lines.take()
            if taken is None:
                assert not free
            else:
                assert taken.job.root in free
                assert waiting[taken.job.root].pop(0) is taken
                held[taken.job.root] += 1
                lines.hold(taken.job.root)
        assert len(lines) == sum(map(len, waiting.values())) == len(list(lines))
        assert lines.eligible() == sum(min(len(waiting[root]), share - held[root]) for root in waiting)
