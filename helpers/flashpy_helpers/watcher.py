"""The watcher: hears of changed files from the kernel and tells the master, which tells the workers.

It may wait for a disk, so that nobody else has to; a root that hangs holds up the news of the others
too. All it does is to make news come sooner: what it misses the workers find when they look again. What
it could have missed it knows (a queue that was full, a channel that was full, its own start), and then it
tells that everything may be different.

The first change is told at once, those that follow are gathered, for 2 ms and then for longer, up to 20:
a file that is written and renamed is told quickly, and a deployment that takes a second in some fifty
records.
"""

import errno
import os
import select
import socket
import time

from flashpy_helpers import channel, news
from flashpy_helpers.inotify import OVERFLOW, Inotify
from flashpy_helpers.watchtree import Tree

LEAST_GATHER, MOST_GATHER = 0.002, 0.02
QUIET_SECONDS = 0.01
LOOK_SECONDS = 1.0
RETRY_SECONDS = 60.0
MOST_PENDING = 4096
"""Paths that are told one by one; of more than these it is told that all of their root may be different."""

_SYSCTL = {
    errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
    errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances",
}


class Outbox:
    """What is to be told, and when; never waits for who reads it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending: dict[tuple[int, bytes], bool] = {}
        self._lost = False
        self._not_before = 0.0
        self._gather = LEAST_GATHER

    def add(self, root: int, path: bytes, deep: bool) -> None:
        """Something has changed, as in `news.Change`."""
        pending = self._pending
        if pending.get((root, b"")):
            return  # all of the root is told already
        pending[root, path] = deep or pending.get((root, path), False)
        if len(pending) > MOST_PENDING:
            self._pending = {(root, b""): True for root, _ in pending}

    def wait(self, now: float) -> float | None:
        """Seconds until ``flush`` has something to do; None when it has nothing."""
        return max(0.0, self._not_before - now) if self._pending or self._lost else None

    def flush(self, now: float) -> None:
        """Send what there is, unless it was done just now. Raises OSError when the master is gone."""
        if now < self._not_before or not (self._pending or self._lost):
            return
        quiet = now > self._not_before + QUIET_SECONDS
        self._gather = LEAST_GATHER if quiet else min(MOST_GATHER, 2 * self._gather)
        self._not_before = now + self._gather
        if self._lost:
            self._lost = not channel.send(self._control, news.EVERYTHING)
        else:
            changes = (news.Change(*key, deep) for key, deep in self._pending.items())
            self._lost = not all(channel.send(self._control, record) for record in news.pack_changes(changes))
        self._pending.clear()

    def complain(self, text: str) -> None:
        """A line for the error log; dropped when the channel is full."""
        channel.send(self._control, news.PROBLEM + text.encode("utf-8", "replace"))


class Watcher:
    """All roots that are watched; a tree for each path, which several numbers may have."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._outbox = Outbox(control)
        self._inotify: Inotify | None = None
        self._trees: dict[bytes, Tree] = {}
        self._numbers: dict[bytes, set[int]] = {}
        self._complained: dict[bytes, dict[int, int]] = {}
        self._no_instance = False
        self._next_look = 0.0
        self._next_try = 0.0

    def run(self) -> None:
        """Watch and tell until the master has gone."""
        try:
            while self._take_orders():
                self._settle(time.monotonic())
                self._wait()
                self._read_events()
                self._outbox.flush(time.monotonic())
        except (BrokenPipeError, ConnectionResetError):
            return

    def _wait(self) -> None:
        now = time.monotonic()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.fileno(), select.POLLIN)
        seconds = max(0.0, self._next_look - now)
        told = self._outbox.wait(now)
        poll.poll(1000 * (seconds if told is None else min(seconds, told)))

    # Orders of the master

    def _take_orders(self) -> bool:
        """Do what the master has ordered; whether it is still there."""
        while True:
            try:
                got = channel.receive(self._control)
            except EOFError:
                return False
            if got is None:
                return True
            record, fds = got
            channel.close(fds)
            self._obey(*news.unpack_order(record))

    def _obey(self, number: int, path: bytes | None) -> None:
        if path is None:
            self._leave(number)
        elif path in self._trees:
            self._numbers[path].add(number)
            self._outbox.add(number, b"", True)
        else:
            self._numbers[path] = {number}
            self._trees[path] = tree = Tree(path, lambda name, deep: self._tell(path, name, deep), self._rest)
            if self._open():
                self._watch(tree)

    def _leave(self, number: int) -> None:
        for path, numbers in list(self._numbers.items()):
            numbers.discard(number)
            if not numbers:
                del self._numbers[path]
                self._trees.pop(path).leave()
                self._complained.pop(path, None)

    def _tell(self, root: bytes, path: bytes, deep: bool) -> None:
        for number in self._numbers[root]:
            self._outbox.add(number, path, deep)

    def _rest(self) -> None:
        self._outbox.flush(time.monotonic())

    # What is watched

    def _open(self) -> bool:
        """Whether there is an instance; another try to get one is made now and then."""
        if self._inotify is None:
            try:
                self._inotify = Inotify()
            except OSError as error:
                if not self._no_instance:
                    self._outbox.complain(f"nothing is watched: {_words(error.errno or 0)}")
                self._no_instance = True
        return self._inotify is not None

    def _watch(self, tree: Tree) -> None:
        assert self._inotify is not None
        tree.watch(self._inotify)
        self._report(tree)

    def _report(self, tree: Tree) -> None:
        """Say once what cannot be watched: that costs nothing but time until a change shows."""
        fresh = tree.unwatched.keys() - self._complained.get(tree.root, {}).keys()
        for number in sorted(fresh):
            count = tree.unwatched[number]
            what = "1 folder is" if count == 1 else f"{count} folders are"
            where = tree.root.decode("utf-8", "replace")
            self._outbox.complain(f"{what} not watched under {where!r}: {_words(number)}")
        self._complained[tree.root] = dict(tree.unwatched)

    def _settle(self, now: float) -> None:
        """Watch anew what is no longer what is watched, and once a second look whether there is such."""
        look = now >= self._next_look
        if look:
            self._next_look = now + LOOK_SECONDS
        again = now >= self._next_try
        if again:
            self._next_try = now + RETRY_SECONDS
            if self._inotify is None and self._trees:
                self._renew()
        for tree in list(self._trees.values()) if self._inotify is not None else ():
            if tree.moved or (look and tree.has_moved()) or (again and tree.is_incomplete()):
                self._watch(tree)

    def _renew(self) -> None:
        """Begin from nothing: events were lost, and with them folders that came or went."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        for tree in self._trees.values():
            tree.abandon()
            self._tell(tree.root, b"", True)
        self._rest()
        if self._open():
            self._no_instance = False
            for tree in self._trees.values():
                self._watch(tree)

    def _read_events(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read():
            if event.mask & OVERFLOW:
                self._renew()
                return
            self._inotify.dispatch(event)
        for tree in self._trees.values():
            if tree.unwatched:
                self._report(tree)


def _words(number: int) -> str:
    """An error in words, with what to do about it."""
    text = os.strerror(number).lower()
    return f"{text}; {_SYSCTL[number]}" if number in _SYSCTL else text


def run(control: socket.socket) -> None:
    """Be the watcher until the end of ``control``."""
    Watcher(control).run()
