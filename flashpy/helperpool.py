"""WORKER: the helpers: hired, given jobs, replaced when they die, written off when they are stuck.

`least` are kept, more are hired while jobs wait, up to `most`, and let go when idle. A helper that dies gives its job
back. One that is stuck at a job for `timeout` is written off: it may be replaced, but the block that it was to fill
stays reserved until it has answered or is gone, because it may still wake and write.

A worker has one pool for the disk and, where there is work for it, one of heavy helpers.

The pool knows jobs and blocks, neither caches nor connections: `settle` turns an answer into what the waiters get in
hand, `reserve` and `abandon` keep the blocks. An implementation that does the job in the loop could stand here (SPED).
"""

import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from flashpy.helper import Helper, SpawnerClient
from flashpy.loop import READ, Loop
from flashpy.tasks import Filling, Lines, Shared, Task, Trouble, Waiter, described, task_of
from flashpy_helpers import channel, records, wire

ATTEMPTS = 3
IDLE_SECONDS = 10.0
HELLO_SECONDS = 10.0
CHECK_PATIENCE = 1.0

_TOO_LATE = Trouble(504, "a helper took too long")


class QueueFull(Exception):
    """No more jobs may wait."""


class Store(Protocol):
    """What the pool needs of whoever owns the memory and the caches."""

    def reserve(self, length: int) -> int | None:
        """A block for a helper to fill, or None when there is none."""

    def abandon(self, block: int) -> None:
        """The block was not filled and nobody can write to it any more."""

    def settle(self, job: wire.Job, answer: wire.Answer, block: int | None, handed: float) -> Any:
        """Store the answer to a job that was handed out at `handed`; what the waiters get in hand."""

    def doubt(self, job: wire.Job) -> None:
        """The answer that was just stored may be older than a change."""


class HelperPool:
    """Between `least` and `most` helpers (and those for checks) on `loop`; times in seconds."""

    def __init__(
        self,
        loop: Loop,
        store: Store,
        spawner: socket.socket,
        memory_fd: int,
        *,
        least: int,
        most: int,
        queue: int,
        timeout: float,
        roots: int,
        report: Callable[[str], None],
        on_greeting: Callable[[], None],
    ) -> None:
        self.jobs = self.joined = self.deaths = self.write_offs = self.refused = 0
        self._loop, self._store = loop, store
        self._spawner = SpawnerClient(spawner, memory_fd)
        self._least, self._most, self._queue, self._timeout = least, most, queue, timeout
        self._report, self._on_greeting = report, on_greeting
        self._helpers: set[Helper] = set()
        self._idle: list[Helper] = []
        self._tasks: dict[Any, Task] = {}
        self._lines = Lines(most if roots < 2 else max(1, most // 2))
        # So that one root that hangs does not have the others turned away.
        self._places_of_a_root = max(1, queue // max(1, roots))
        self._checks: deque[Task] = deque()
        self._ids = count(1)

    @property
    def now(self) -> float:
        """Monotonic seconds of this turn."""
        return self._loop.now

    def start(self) -> None:
        """Hire the least number of helpers."""
        while self._working() < self._least and self._hire(checks=False):
            pass

    def rebind(self, spawner: socket.socket) -> None:
        """The master has started another spawner."""
        self._spawner.rebind(spawner)
        self.start()
        self.dispatch()

    def close(self) -> None:
        """Let all helpers go: they end at EOF."""
        for helper in self._helpers:
            helper.sock.close()
        self._helpers.clear()

    @property
    def busy(self) -> bool:
        """Whether a job would have to wait, for another's end or for a spawner: who can do without need not ask."""
        is_away = not self._working() and self._spawner.is_away(self._loop.now)
        return is_away or len(self._lines) + sum(helper.occupied for helper in self._helpers) >= self._most

    def want(self, job: Shared, resume: Callable[[Any], None], *, must: bool = False) -> Waiter:
        """Have the job done, or join one that is under way; `resume` is called with the answer in hand.

        Raises QueueFull, unless the job `must` be taken because a reply has begun.
        """
        task = task_of(job)
        under_way = self._tasks.get(task.key)
        waiter = Waiter(resume, self._loop.now)
        if under_way is not None:
            self.joined += 1
            under_way.waiters.append(waiter)
            return waiter
        if len(self._lines) >= self._queue and self._lines.waiting(job.root) >= self._places_of_a_root and not must:
            self.refused += 1
            raise QueueFull
        task.waiters.append(waiter)
        self._tasks[task.key] = task
        self._lines.append(task)
        self.dispatch()
        return waiter

    def check(self, job: wire.Check) -> None:
        """Have the paths looked at by a helper that is kept for it; `settle` hears the answer."""
        self._checks.append(Task((), job, 0))
        self.dispatch()

    def doubt(self, touched: Callable[[tuple[int, bytes]], bool]) -> None:
        """What is `touched` has changed: an answer that is on its way serves those who wait and nobody later."""
        for task in filter(None, (helper.task for helper in self._helpers)):
            task.doubt(touched)

    def dispatch(self) -> None:
        """Hand out what can be handed out, and hire when jobs wait."""
        if self._checks:  # first: they need no memory, of which there may be none for the others
            self._dispatch_checks()
        lines = self._lines
        while self._idle and lines:
            task = lines.take()
            if task is None:
                break
            if task.waiters and not task.wanted():
                del self._tasks[task.key]
            elif not self._hand(self._idle[-1], task):
                lines.push_back(task)
                return
        if lines:
            self._hire_for(lines.eligible())

    def _dispatch_checks(self) -> None:
        checkers = [helper for helper in self._helpers if helper.checks]
        for helper in checkers:
            if helper.idle and self._checks:
                self._hand(helper, self._checks.popleft())
        late = self._loop.now - CHECK_PATIENCE
        starting = any(not helper.greeted for helper in checkers)
        busy = all(helper.task is not None and helper.task.handed < late for helper in checkers)
        if self._checks and busy and not starting and len(checkers) < self._most:
            self._hire(checks=True)

    def _hand(self, helper: Helper, task: Task) -> bool:
        """Give the task to the helper; False when there is no block for it."""
        if task.room:
            task.block = self._store.reserve(task.room)
            if task.block is None:
                return False
        task.begin(next(self._ids), self._loop.now)
        helper.task = task
        if not helper.checks:
            self._idle.remove(helper)
            self._lines.hold(task.job.root)
        self.jobs += 1
        if not self._tell(helper, task):
            task.attempts -= 1  # the helper was gone before: that says nothing against the job
            self._lose(helper)
        return True

    def _tell(self, helper: Helper, task: Task) -> bool:
        job = task.job._replace(id=task.id)
        if isinstance(job, Filling):
            job = job._replace(offset=task.block or 0)
        try:
            return channel.send(helper.sock, records.pack_job(job))
        except OSError:
            return False

    def _hear(self, helper: Helper) -> None:
        """The helper's channel is readable: its hello, an answer, or its end."""
        try:
            record = channel.receive(helper.sock)
            if record is None:
                return
            channel.close(record[1])
            answer = records.unpack_answer(record[0])
        except EOFError:
            self._lose(helper)
            return
        except ValueError as problem:
            self._report(f"a helper spoke nonsense: {problem}")
            self._lose(helper)
            return
        if isinstance(answer, wire.Hello):
            self._greet(helper, answer)
        elif helper.task is not None and answer.id == helper.task.id:
            self._finish(helper, helper.task, answer)
        self.dispatch()

    def _greet(self, helper: Helper, hello: wire.Hello) -> None:
        if hello.version != wire.VERSION:
            self._report(f"a helper of version {hello.version} instead of {wire.VERSION}")
            self._lose(helper)
            return
        helper.greeted = True
        self._spawner.succeeded()
        self._rest(helper)
        self._on_greeting()

    def _rest(self, helper: Helper) -> None:
        helper.task = None
        helper.since = self._loop.now
        if helper.checks:
            return
        if self._working() > self._most:
            self._dismiss(helper)
        else:
            self._idle.append(helper)

    def _finish(self, helper: Helper, task: Task, answer: wire.Answer) -> None:
        block, task.block = task.block, None
        if helper.written_off:
            helper.written_off = False
            if block is not None:
                self._store.abandon(block)
            self._rest(helper)
            return
        if not helper.checks:
            self._lines.let_go(task.job.root)
        self._rest(helper)
        self._settle(task, answer, block)

    def _settle(self, task: Task, answer: wire.Answer, block: int | None) -> None:
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]
        task.resume(self._store.settle(task.job, answer, block, task.handed))
        if task.doubted:  # after those who waited have it
            self._store.doubt(task.job)

    def _lose(self, helper: Helper) -> None:
        """The helper is gone, and its memory map with it: its block is free, its job goes to another."""
        self._dismiss(helper)
        if not helper.greeted:
            self._spawner.failed(self._loop.now)
        task = helper.task
        if task is None:
            return
        self.deaths += 1
        if task.block is not None:
            self._store.abandon(task.block)
            task.block = None
        if helper.written_off:
            return
        if not helper.checks:
            self._lines.let_go(task.job.root)
        self._retry(task)

    def _retry(self, task: Task) -> None:
        if task.attempts >= ATTEMPTS:
            self._report(f"gave up a job after {task.attempts} helpers died at it: {described(task.job)}")
            self._settle(task, wire.Failure(task.id, wire.BROKEN, 0), None)
        elif isinstance(task.job, wire.Check):
            self._checks.appendleft(task)
        else:
            self._lines.push_back(task)
        self.dispatch()

    def _dismiss(self, helper: Helper) -> None:
        self._helpers.discard(helper)
        if helper in self._idle:
            self._idle.remove(helper)
        self._loop.discard(helper.sock.fileno(), helper.sock.close)

    def tick(self) -> None:
        """Timeouts, write-offs, helpers that never said hello or have nothing to do. Several times a second."""
        now = self._loop.now
        for helper in list(self._helpers):
            if not helper.greeted and now - helper.since > HELLO_SECONDS:
                self._lose(helper)
            elif helper.task is not None and now - helper.task.handed > self._timeout:
                self._write_off(helper, helper.task)
            elif helper.idle and now - helper.since > IDLE_SECONDS and self._spare(helper):
                self._dismiss(helper)
        for task in list(self._tasks.values()):
            late = task.resume_older(now - self._timeout, _TOO_LATE)
            if late and not task.waiters and task in self._lines:
                self._lines.remove(task)
                del self._tasks[task.key]
        if self._working() < self._least:
            self.start()
        self.dispatch()

    def _spare(self, helper: Helper) -> bool:
        return helper.checks or self._working() > self._least

    def _write_off(self, helper: Helper, task: Task) -> None:
        """Give the helper up; those who came later than its timeout get another try."""
        if helper.written_off or sum(other.written_off for other in self._helpers) >= self._most:
            return
        self.write_offs += 1
        helper.written_off = True
        successor = Task(task.key, task.job, task.room)
        successor.attempts = task.attempts
        successor.waiters, task.waiters = task.waiters, []
        successor.resume_older(self._loop.now - self._timeout, _TOO_LATE)
        if helper.checks:
            self._settle(successor, wire.Failure(task.id, wire.BROKEN, 0), None)
            return
        self._lines.let_go(task.job.root)
        self._tasks.pop(task.key, None)
        if successor.wanted() and successor.attempts < ATTEMPTS:
            self._tasks[task.key] = successor
            self._lines.append(successor)
        else:
            successor.resume(_TOO_LATE)

    def _working(self) -> int:
        return sum(not (helper.written_off or helper.checks) for helper in self._helpers)

    def _hire_for(self, waiting: int) -> None:
        starting = sum(not (helper.greeted or helper.checks) for helper in self._helpers)
        while starting < waiting and self._working() < self._most and self._hire(checks=False):
            starting += 1

    def _hire(self, *, checks: bool) -> bool:
        """Ask the spawner for a helper; False when that is not possible now."""
        end = self._spawner.request(self._loop.now)
        if end is None:
            return False
        helper = Helper(end, self._loop.now, checks)
        self._helpers.add(helper)
        self._loop.add(end.fileno(), READ, lambda _mask: self._hear(helper))
        return True
