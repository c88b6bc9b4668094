"""The watcher as a process, started as the master starts it, and what it puts into its channel."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import flashpy_helpers
from flashpy.logs import Log
from flashpy.privileges import current
from flashpy.processes import Watch
from flashpy.watching import Watcher as Companion
from flashpy_helpers import channel, news
from flashpy_helpers.news import Change
from flashpy_helpers.watcher import MOST_GATHER, MOST_PENDING, Outbox
from tests.needs import needs, without

FOLDER = str(Path(flashpy_helpers.__file__).parent.parent)
START = "import sys; sys.path.append(sys.argv[1]); from flashpy_helpers.__main__ import main; main()"
PATIENCE = 20.0
ALL = b""


class Watcher:
    """A watcher process and the master's end of its channel."""

    def __init__(self, *before: str) -> None:
        """``before`` is a program that starts it, with its arguments."""
        self.control, control = channel.pair()
        number = control.fileno()
        with control:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-I", "-S", "-c", START, FOLDER, "watch", str(number), "-1", "0", ""],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        self.changes: list[Change] = []
        self.problems: list[str] = []
        self.everything = 0

    def order(self, number: int, path: Path | None) -> None:
        assert channel.send(self.control, news.pack_order(number, None if path is None else os.fsencode(path)))

    def watch(self, number: int, path: Path) -> None:
        """Have it watch a root, and wait until it does: what is ordered next is carried out after that."""
        other = number + 1000
        for order in (number, other):
            self.order(order, path)
        self.hears(number, ALL, deep=True)
        self.hears(other, ALL, deep=True)
        self.order(other, None)
        self.changes.clear()

    def told(self, goal: Callable[[], object]) -> None:
        """Read what it tells until the goal is reached."""
        deadline = time.monotonic() + PATIENCE
        while not goal():
            assert time.monotonic() < deadline, (self.changes, self.problems)
            if select.select([self.control], [], [], 0.1)[0]:
                self._read()

    def _read(self) -> None:
        got = channel.receive(self.control)
        assert got is not None
        record, fds = got
        assert not fds
        if record[:1] == news.PROBLEM:
            self.problems.append(record[1:].decode())
        elif record == news.EVERYTHING:
            self.everything += 1
        else:
            self.changes += news.unpack_changes(record)

    def hears(self, root: int, path: bytes, *, deep: bool = False) -> None:
        """This is told, at once or later."""
        self.told(lambda: Change(root, path, deep) in self.changes)

    def close(self) -> bytes:
        self.control.close()
        with self.process as process:
            assert process.wait(PATIENCE) == 0
            assert process.stderr is not None
            return process.stderr.read()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    yield watcher
    assert watcher.close() == b""
    assert watcher.problems == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    return root


def test_what_is_told_of_each_change(watcher: Watcher, root: Path) -> None:
    watcher.watch(7, root)
    (root / "sub" / "a.txt").write_text("text")
    watcher.hears(7, b"sub/a.txt")
    (root / "sub" / "a.txt").rename(root / "b.txt")
    watcher.hears(7, b"b.txt")
    (root / "new" / "deep").mkdir(parents=True)
    watcher.hears(7, b"new", deep=True)
    (root / "link").symlink_to("sub")
    watcher.hears(7, ALL, deep=True)
    watcher.changes.clear()
    (root / "new").rename(root / "moved")
    watcher.hears(7, b"new", deep=True)
    watcher.hears(7, b"moved", deep=True)
    (root / "moved" / "deep" / "c.txt").touch()
    watcher.hears(7, b"moved/deep/c.txt")
    assert Change(7, b"new/deep/c.txt", False) not in watcher.changes
    (root / "sub").chmod(0o700)
    watcher.hears(7, b"sub", deep=True)


def test_two_folders_that_change_places(watcher: Watcher, root: Path) -> None:
    (root / "other").mkdir()
    watcher.watch(0, root)
    for _ in range(3):
        subprocess.run(["python3", "-c", EXCHANGE, root / "sub", root / "other"], check=True)
        watcher.hears(0, b"sub", deep=True)
        watcher.hears(0, b"other", deep=True)
        for name in ("sub", "other"):
            (root / name / "probe").touch()
            watcher.hears(0, f"{name}/probe".encode())
            (root / name / "probe").unlink()
        settle(watcher, root)


EXCHANGE = (
    "import ctypes, os, sys; a, b = map(os.fsencode, sys.argv[1:]); "
    "sys.exit(ctypes.CDLL(None).renameat2(-100, a, -100, b, 2) != 0)"
)


def settle(watcher: Watcher, root: Path) -> None:
    """Read all that is told of what happened up to now."""
    (root / "mark").touch()
    watcher.hears(0, b"mark")
    (root / "mark").unlink()
    (root / "end").touch()
    watcher.hears(0, b"end")
    (root / "end").unlink()
    watcher.changes.clear()


def test_roots_in_each_other_and_twice(watcher: Watcher, root: Path) -> None:
    watcher.watch(1, root)
    watcher.watch(2, root / "sub")
    watcher.order(3, root)
    watcher.hears(3, ALL, deep=True)
    (root / "sub" / "a.txt").touch()
    for number, path in ((1, b"sub/a.txt"), (2, b"a.txt"), (3, b"sub/a.txt")):
        watcher.hears(number, path)
    watcher.order(1, None)
    watcher.order(2, None)
    watcher.order(4, root / "sub")
    watcher.hears(4, ALL, deep=True)  # by then the orders before are carried out
    settle_number(watcher, root, 3)
    (root / "sub" / "b.txt").touch()
    watcher.hears(3, b"sub/b.txt")
    watcher.hears(4, b"b.txt")
    assert not {change.root for change in watcher.changes} & {1, 2}


def settle_number(watcher: Watcher, root: Path, number: int) -> None:
    (root / f"mark{number}").touch()
    watcher.hears(number, f"mark{number}".encode())
    watcher.changes.clear()


@pytest.mark.parametrize("links", [0, 1, 2])
def test_a_root_that_is_exchanged(watcher: Watcher, tmp_path: Path, links: int) -> None:
    """A folder renamed away and another in its place; or a link, or a link to a link."""
    for number in (1, 2):
        (tmp_path / f"tree{number}" / "sub").mkdir(parents=True)
    root = tmp_path / "tree1"
    for number in range(links):
        link = tmp_path / f"link{number}"
        link.symlink_to(root)
        root = link
    watcher.watch(0, root)
    if links:
        (tmp_path / "draft").symlink_to(tmp_path / "tree2")
        (tmp_path / "draft").rename(tmp_path / "link0")
    else:
        root.rename(tmp_path / "away")
        (tmp_path / "tree2").rename(root)
    watcher.hears(0, ALL, deep=True)
    touch_until_heard(watcher, root / "sub" / "a.txt", b"sub/a.txt")


def touch_until_heard(watcher: Watcher, file: Path, path: bytes) -> None:
    """While a tree is not watched yet, only all of it is told."""
    deadline = time.monotonic() + PATIENCE
    while Change(0, path, False) not in watcher.changes:
        assert time.monotonic() < deadline, watcher.changes
        watcher.changes.clear()
        file.write_text("again")
        watcher.told(lambda: watcher.changes)


def test_a_root_that_is_not_there_yet(watcher: Watcher, tmp_path: Path) -> None:
    root = tmp_path / "later" / "root"
    watcher.watch(0, root)
    (root / "sub").mkdir(parents=True)
    watcher.hears(0, ALL, deep=True)
    touch_until_heard(watcher, root / "sub" / "a.txt", b"sub/a.txt")


@needs("unshare")
def test_a_file_system_that_is_unmounted(tmp_path: Path) -> None:
    """What it was mounted over is there again: another folder of the same name."""
    below = tmp_path / "root" / "mount"
    below.mkdir(parents=True)
    (below / "sub").mkdir()
    os.mkfifo(tmp_path / "order")
    mount = 'mount -t tmpfs none "$0" && mkdir -p "$0/sub/deep"'
    script = f'{mount} && {{ (read -r _ < "$0/../../order"; umount "$0") & }} && exec "$@"'
    watcher = Watcher("unshare", "-U", "-r", "-m", "sh", "-c", script, str(below))
    watcher.watch(0, tmp_path / "root")
    (tmp_path / "order").write_text("now\n")
    watcher.hears(0, b"mount", deep=True)
    touch_until_heard(watcher, below / "sub" / "a.txt", b"mount/sub/a.txt")
    assert watcher.problems == []
    assert watcher.close() == b""


@needs("setpriv")
@pytest.mark.parametrize("outer", ["root", "root/outer"])
def test_a_folder_that_could_only_be_listed(tmp_path: Path, outer: str) -> None:
    """Nothing in it could be opened, and now it can."""
    sub = tmp_path / outer / "sub"
    sub.mkdir(parents=True)
    sub.parent.chmod(0o444)
    watcher = Watcher(*without("dac_override", "dac_read_search"))
    watcher.order(0, tmp_path / "root")
    watcher.told(lambda: watcher.problems)
    sub.parent.chmod(0o755)
    path = os.fsencode((sub / "a.txt").relative_to(tmp_path / "root"))
    touch_until_heard(watcher, sub / "a.txt", path)
    assert watcher.problems == [f"1 folder is not watched under '{tmp_path}/root': permission denied"]
    assert watcher.close() == b""


@needs("unshare")
@pytest.mark.parametrize(
    ("sysctl", "limit", "said"),
    [("max_inotify_watches", 8, "max_user_watches"), ("max_inotify_instances", 0, "max_user_instances")],
)
def test_too_few_watches_for_the_folders(tmp_path: Path, sysctl: str, limit: int, said: str) -> None:
    root = tmp_path / "root"
    for number in range(20):
        (root / str(number)).mkdir(parents=True)
    lower = f'echo {limit} > /proc/sys/user/{sysctl}; exec "$@"'
    watcher = Watcher("unshare", "-U", "-r", "sh", "-c", lower, "sh")
    watcher.order(0, root)
    watcher.order(1, root)
    watcher.told(lambda: watcher.problems)
    (problem,) = watcher.problems
    assert f"fs.inotify.{said}" in problem
    if limit:
        assert str(root) in problem
        watcher.hears(1, ALL, deep=True)
        (root / "a.txt").touch()
        watcher.hears(0, b"a.txt")
        (root / "21").mkdir()
        watcher.hears(0, b"21", deep=True)
        assert watcher.problems == [problem]
    assert watcher.close() == b""


def test_more_than_can_be_told_singly(tmp_path: Path) -> None:
    near, far = channel.pair()
    with near, far:
        outbox = Outbox(near)
        for number in range(MOST_PENDING + 1):
            outbox.add(number % 2, b"%d" % number, False)
        outbox.flush(1.0)
        assert read_all(far) == [Change(0, ALL, True), Change(1, ALL, True)]


def test_a_channel_that_is_full_loses_all_and_says_so() -> None:
    near, far = channel.pair()
    with near, far:
        outbox = Outbox(near)
        while channel.send(near, b"x" * 1000):
            pass
        outbox.add(0, b"a.txt", False)
        outbox.flush(1.0)
        assert outbox.wait(1.0) is not None
        outbox.add(0, b"b.txt", False)
        while (got := channel.receive(far)) is not None:
            assert got[0] == b"x" * 1000
        assert outbox.wait(2.0) == 0.0
        outbox.flush(2.0)
        assert channel.receive(far) == (news.EVERYTHING, [])
        assert outbox.wait(2.0) is None
        outbox.flush(3.0)
        assert channel.receive(far) is None


def test_the_first_is_told_at_once_and_a_burst_in_few_records() -> None:
    near, far = channel.pair()
    with near, far:
        outbox = Outbox(near)
        now, records = 10.0, 0
        for number in range(1000):  # a second of it
            outbox.add(0, b"%d" % number, False)
            outbox.flush(now)
            if number == 0:
                assert read_all(far) == [Change(0, b"0", False)]
            now += 0.001
            while channel.receive(far) is not None:
                records += 1
        assert 1.0 / MOST_GATHER - 5 < records < 70
        wait = outbox.wait(now)
        assert wait is not None
        assert wait <= MOST_GATHER
        outbox.flush(now + MOST_GATHER)
        assert Change(0, b"999", False) in read_all(far)


def read_all(end: socket.socket) -> Sequence[Change]:
    """All that has been sent."""
    changes: list[Change] = []
    while (got := channel.receive(end)) is not None:
        changes += news.unpack_changes(got[0])
    return changes


def test_nonsense_does_not_end_the_master() -> None:
    """A record that is too long, then one that is right."""
    near, far = channel.pair()
    heard: list[bytes] = []
    watch = Watch()
    companion = Companion(current())
    companion.connect(watch, heard.append, lambda: Log(None))
    with near, far:
        companion.attach(near)
        assert far.send(b"x" * (channel.RECORD_BYTES + 1))
        assert channel.send(far, news.EVERYTHING + b"rest")
        watch.turn(PATIENCE)
        companion.close()
    assert heard == [news.EVERYTHING, news.EVERYTHING + b"rest"]


def test_no_worker_waits_for_it() -> None:
    assert not Companion.kind
