"""WORKER: jobs on their way to the helpers: joined, and lined up by root.

A task is one job and all who wait for it: identical jobs are joined (Flash section 5.1: a helper answers once). Each
root has a line of its own, served in turn, and a share of the helpers, so that a root which hangs cannot hold up
the others.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flashpy.http.status import Refusal
from flashpy_helpers import wire

Filling = wire.Lookup | wire.Load | wire.List | wire.Compress
"""Jobs whose answer comes with bytes in the block that they were given."""
Shared = Filling | wire.Verify | wire.Digest | wire.Password
"""Jobs for which somebody waits; equal ones are done once."""
TaskKey = tuple[Any, ...]


class Trouble(NamedTuple):
    """In hand when the job came to nothing: the status to answer with, and why."""

    status: int
    reason: str

    def refusal(self) -> Refusal:
        """The answer to whoever cannot do without."""
        headers = ((b"Retry-After", b"1"),) if self.status == 503 else ()
        return Refusal(self.status, close=False, headers=headers, reason=self.reason)


class Waiter:
    """A token for one who waits since `since` (monotonic seconds). Cancelling it never cancels the job."""

    __slots__ = ("resume", "since")

    def __init__(self, resume: Callable[[Any], None], since: float) -> None:
        self.resume: Callable[[Any], None] | None = resume
        self.since = since

    def cancel(self) -> None:
        """Nobody is to be called any more."""
        self.resume = None


class Task:
    """A job, who waits for it, and the block of `room` bytes that it may fill while a helper has it.

    `handed` is when (monotonic seconds) the last of its `attempts` began; `doubted`: the helper may have looked before
    something changed.
    """

    __slots__ = ("attempts", "block", "doubted", "handed", "id", "job", "key", "room", "waiters")

    def __init__(self, key: TaskKey, job: wire.Job, room: int) -> None:
        self.key = key
        self.job = job
        self.room = room
        self.waiters: list[Waiter] = []
        self.id = 0
        self.attempts = 0
        self.handed = 0.0
        self.doubted = False
        self.block: int | None = None

    def begin(self, id: int, now: float) -> None:
        """A helper gets it, under a number of its own."""
        self.id = id
        self.handed = now
        self.doubted = False
        self.attempts += 1

    def doubt(self, touched: Callable[[tuple[int, bytes]], bool]) -> None:
        """Something has changed: whether the helper, which has it, was to look at what is `touched`.

        A check needs no doubt, since its entries know the time of the change, nor a load, which is of one version.
        """
        if isinstance(self.job, wire.Lookup | wire.List):
            self.doubted |= touched((self.job.root, self.job.path))

    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return any(waiter.resume is not None for waiter in self.waiters)

    def resume(self, in_hand: Any) -> None:
        """Call all who wait, each once."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            action = waiter.resume
            if action is not None:
                waiter.cancel()
                action(in_hand)

    def resume_older(self, than: float, in_hand: Any) -> int:
        """Call those who wait since before `than`; how many there were."""
        late = [waiter for waiter in self.waiters if waiter.resume is not None and waiter.since < than]
        for waiter in late:
            action = waiter.resume
            if action is not None:
                waiter.cancel()
                action(in_hand)
        if late:
            self.waiters = [waiter for waiter in self.waiters if waiter.resume is not None]
        return len(late)


def task_of(job: Shared) -> Task:
    """A new task; its key is what makes two jobs identical."""
    if isinstance(job, wire.HeavyJob):
        return _heavy_task(job)
    if isinstance(job, wire.List):
        return Task((job.root, job.path, job.at, job.query, job.as_json), job, job.room)
    if isinstance(job, wire.Lookup):
        return Task((job.root, job.path), job, job.room)
    return Task((job.root, job.path, job.identity, job.start), job, job.length)


def _heavy_task(job: wire.HeavyJob) -> Task:
    """All that it says counts, but for the place of its result."""
    if isinstance(job, wire.Compress):
        return Task((wire.Compress, job.root, job.path, job.identity, job.coding), job, job.room)
    return Task((type(job), *job[1:]), job, 0)


_VERBS: dict[type[wire.Job], str] = {wire.Compress: "compress", wire.Verify: "decode", wire.Digest: "digest"}


def described(job: wire.Job) -> str:
    """What a job does, for a line of the log: never more of a password than that."""
    match job:
        case wire.Password():
            return "check a password"
        case wire.Check():
            return f"check files of root {job.root}"
    name = job.path.decode("utf-8", "replace")
    return f"{_VERBS.get(type(job), 'read')} {name!r}"


class Lines:
    """Tasks that no helper has yet, a line for each root, and how many helpers each root holds."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._lines: dict[int, deque[Task]] = {}
        self._held: dict[int, int] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        for line in self._lines.values():
            yield from line

    def waiting(self, root: int) -> int:
        """How many tasks of this root no helper has."""
        return len(self._lines.get(root, ()))

    def append(self, task: Task) -> None:
        """To the end of its root's line."""
        self._lines.setdefault(task.job.root, deque()).append(task)
        self._length += 1

    def push_back(self, task: Task) -> None:
        """To the front: it was there before."""
        self._lines.setdefault(task.job.root, deque()).appendleft(task)
        self._length += 1

    def remove(self, task: Task) -> None:
        """Out of its line; ValueError when it is not there."""
        self._lines[task.job.root].remove(task)
        self._length -= 1

    def eligible(self) -> int:
        """How many tasks could be handed out now if there were helpers enough."""
        return sum(min(len(line), self._share - self._held.get(root, 0)) for root, line in self._lines.items() if line)

    def take(self) -> Task | None:
        """The next task whose root is within its share; roots take turns."""
        for root, line in self._lines.items():
            if line and self._held.get(root, 0) < self._share:
                task = line.popleft()
                self._length -= 1
                self._lines[root] = self._lines.pop(root)  # to the end of the order
                return task
        return None

    def hold(self, root: int) -> None:
        """A helper of the root's share is busy."""
        self._held[root] = self._held.get(root, 0) + 1

    def let_go(self, root: int) -> None:
        """A helper of the root's share is free, gone or written off."""
        self._held[root] -= 1
