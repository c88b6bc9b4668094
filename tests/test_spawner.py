"""The spawner and its helpers as processes, started as the master starts them."""

import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flashpy_helpers
from flashpy_helpers import channel, records, wire
from flashpy_helpers.disk import identity
from flashpy_helpers.wire import Answer, Check, Found, Hello, Job, Load, Lookup, Root

FOLDER = str(Path(flashpy_helpers.__file__).parent.parent)
START = "import sys; sys.path.append(sys.argv[1]); from flashpy_helpers.__main__ import main; main()"
CACHE = 32 << 20
PATIENCE = 20.0


class Helper:
    """The worker's view of one helper: channel and shared memory."""

    def __init__(self, end: socket.socket, memory: mmap.mmap) -> None:
        self.end = end
        self.memory = memory
        hello = self.answer()
        assert isinstance(hello, Hello)
        assert hello.version == wire.VERSION
        self.pid = hello.pid

    def answer(self) -> Answer:
        _wait(self.end)
        got = channel.receive(self.end)
        assert got is not None
        return records.unpack_answer(got[0])

    def do(self, job: Job) -> Answer:
        assert channel.send(self.end, records.pack_job(job))
        return self.answer()


class Spawner:
    """A spawner process and the ends of its channels that master and workers hold."""

    def __init__(self, uid: int = -1, gid: int = -1, groups: str = "") -> None:
        self.control, control = channel.pair()
        self.requests, requests = channel.pair()
        numbers = [control.fileno(), requests.fileno()]
        arguments = [FOLDER, "spawner", *map(str, [*numbers, uid, gid]), groups]
        with control, requests:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", START, *arguments],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        self.memory_fd = os.memfd_create("content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory_fd, CACHE)
        fcntl.fcntl(self.memory_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.memory = mmap.mmap(self.memory_fd, CACHE)
        self.ends: list[socket.socket] = []

    def add(self, root: Root) -> None:
        assert channel.send(self.control, records.pack_root(root))

    def ask(self) -> socket.socket:
        near, far = channel.pair()
        self.ends.append(near)
        with far:
            assert channel.send(self.requests, b"helper", [far.fileno(), self.memory_fd])
        return near

    def helper(self) -> Helper:
        return Helper(self.ask(), self.memory)

    def close(self) -> bytes:
        """End the spawner by the end of its channels; return what it said."""
        for sock in (self.control, self.requests, *self.ends):
            sock.close()
        if self.memory_fd >= 0:
            os.close(self.memory_fd)
            self.memory_fd = -1
        try:
            return self.process.communicate(timeout=PATIENCE)[1]
        finally:
            self.process.kill()
            self.process.wait()


def _wait(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "nothing came"


def _ended(pid: int) -> bool:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    ended = bool(poll.poll(PATIENCE * 1000))
    os.close(handle)
    return ended


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.html").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "docs/index.html").write_bytes(b"index")
    return tmp_path


@pytest.fixture
def spawner(root: Path) -> Iterator[Spawner]:
    spawner = Spawner()
    spawner.add(Root(b"/nonexistent", (), wire.INSIDE))
    spawner.add(Root(bytes(root), (b"index.html",), wire.INSIDE))
    yield spawner
    assert spawner.close() == b""
    assert spawner.process.returncode == 0


def test_lookup_load_and_check(spawner: Spawner, root: Path) -> None:
    helper = spawner.helper()
    version = identity((root / "a.html").stat())
    content = (root / "a.html").read_bytes()
    found = helper.do(Lookup(1, 1, b"a.html", 4096, 8192, None))
    assert found == Found(1, version, b"a.html", 8192)
    assert spawner.memory[4096:12288] == content[:8192]
    assert helper.do(Load(2, 1, b"a.html", version, 8192, 100, 0)) == wire.Loaded(2, 100)
    assert spawner.memory[:100] == content[8192:8292]
    expected = ((b"a.html", version, None), (b"docs", wire.FOLDER, None), (b"docs/", wire.MISSING, None))
    assert helper.do(Check(3, 1, expected)) == wire.Changed(3, (2,))
    assert helper.do(Lookup(4, 0, b"a.html", 0, 10, None)) == wire.Failure(4, wire.NO_ROOT, 2)


def test_root_sent_before_a_request_is_known_to_its_helper(spawner: Spawner, root: Path) -> None:
    for number in range(2, 30):
        spawner.add(Root(bytes(root), (b"index.html",), wire.DENY))
        answer = spawner.helper().do(Lookup(1, number, b"docs/", 0, 10, None))
        assert isinstance(answer, Found)


def test_helper_holds_its_channel_and_memory_and_nothing_else(spawner: Spawner) -> None:
    first = spawner.helper()
    second = spawner.helper()
    assert isinstance(second.do(Lookup(1, 1, b"a.html", 0, 100, None)), Found)
    assert isinstance(second.do(Lookup(2, 1, b"none", 0, 100, None)), wire.Failure)
    for helper in (first, second):
        links = [os.readlink(path) for path in Path(f"/proc/{helper.pid}/fd").iterdir()]
        others = sorted(link for link in links if link not in _standard(spawner))
        assert len(others) == 2
        assert others[0].startswith("/memfd:content")
        assert others[1].startswith("socket:")


def _standard(spawner: Spawner) -> set[str]:
    return {os.readlink(f"/proc/{spawner.process.pid}/fd/{fd}") for fd in range(3)}


def test_helpers_work_side_by_side(spawner: Spawner) -> None:
    helpers = [spawner.helper() for _ in range(8)]
    assert len({helper.pid for helper in helpers}) == 8
    for n, helper in enumerate(helpers):
        assert channel.send(helper.end, records.pack_job(Lookup(n, 1, b"a.html", n * 100, 100, None)))
    for n, helper in enumerate(helpers):
        answer = helper.answer()
        assert isinstance(answer, Found)
        assert answer.id == n
        assert spawner.memory[n * 100 : n * 100 + 100] == bytes(range(100))


def test_helper_ends_with_its_channel(spawner: Spawner) -> None:
    helper = spawner.helper()
    helper.end.close()
    assert _ended(helper.pid)


def test_worker_that_vanishes_in_the_middle_of_a_job_is_no_error(spawner: Spawner) -> None:
    helper = spawner.helper()
    assert channel.send(helper.end, records.pack_job(Lookup(1, 1, b"a.html", 0, 100, None)))
    helper.end.close()
    assert _ended(helper.pid)


def test_killed_helper_is_an_end_of_file_after_its_answers(spawner: Spawner) -> None:
    helper = spawner.helper()
    job = records.pack_job(Lookup(1, 1, b"a.html", 0, 100, None))
    assert channel.send(helper.end, job)
    _wait(helper.end)
    os.kill(helper.pid, signal.SIGSTOP)
    assert channel.send(helper.end, job)
    os.kill(helper.pid, signal.SIGKILL)
    assert _ended(helper.pid)
    assert isinstance(helper.answer(), Found)
    with pytest.raises(EOFError):
        channel.receive(helper.end)
    assert isinstance(spawner.helper().do(Lookup(2, 1, b"a.html", 0, 100, None)), Found)


def test_killed_helpers_leave_no_zombies(spawner: Spawner) -> None:
    pids = []
    for _ in range(5):
        helper = spawner.helper()
        os.kill(helper.pid, signal.SIGKILL)
        pids.append(helper.pid)
    assert all(_ended(pid) for pid in pids)
    spawner.helper()
    children = Path(f"/proc/{spawner.process.pid}/task/{spawner.process.pid}/children")
    assert len(children.read_text().split()) == 1


def test_requests_that_make_no_sense_harm_nobody(spawner: Spawner) -> None:
    memory = spawner.memory_fd
    near, far = channel.pair()
    with near, far:
        assert channel.send(spawner.requests, b"none")
        assert channel.send(spawner.requests, b"one", [memory])
        assert channel.send(spawner.requests, b"three", [far.fileno(), memory, memory])
        assert channel.send(spawner.requests, b"too many", [memory] * 9)
        assert channel.send(spawner.requests, b"x" * 100_000)
        assert channel.send(spawner.requests, b"no socket", [memory, memory])
        far.close()
        _wait(near)
        with pytest.raises(EOFError):
            channel.receive(near)
    assert isinstance(spawner.helper().do(Lookup(2, 1, b"a.html", 0, 100, None)), Found)
    assert len(os.listdir(f"/proc/{spawner.process.pid}/fd")) == 5


def test_job_that_makes_no_sense_is_broken_and_told(root: Path) -> None:
    spawner = Spawner()
    spawner.add(Root(bytes(root), (), wire.INSIDE))
    helper = spawner.helper()
    beyond = Lookup(5, 0, b"a.html", CACHE - 10, 11, None)
    assert helper.do(beyond) == wire.Failure(5, wire.BROKEN, 0)
    assert helper.do(Lookup(6, 1, b"a.html", 0, 1, None)) == wire.Failure(6, wire.BROKEN, 0)
    assert channel.send(helper.end, b"\xff" + (7).to_bytes(8, "little"))
    assert helper.answer() == wire.Failure(7, wire.BROKEN, 0)
    assert isinstance(helper.do(Lookup(8, 0, b"a.html", 0, 1, None)), Found)
    said = spawner.close().decode().splitlines()
    assert len(said) == 3
    assert all(f"[{helper.pid}] [error] helper: " in line for line in said)


def test_signals_end_nothing_and_the_end_of_file_ends_all(spawner: Spawner) -> None:
    helper = spawner.helper()
    for pid in (spawner.process.pid, helper.pid):
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            os.kill(pid, number)
    assert isinstance(helper.do(Lookup(1, 1, b"a.html", 0, 100, None)), Found)
    assert os.getsid(helper.pid) == os.getsid(spawner.process.pid) == spawner.process.pid
    # The master goes: the workers still get helpers.
    spawner.control.close()
    last = spawner.helper()
    assert isinstance(last.do(Lookup(1, 1, b"a.html", 0, 100, None)), Found)
    # The workers go: the spawner ends, and each helper with its own channel.
    spawner.requests.close()
    assert spawner.process.wait(PATIENCE) == 0
    assert isinstance(last.do(Lookup(2, 1, b"a.html", 0, 100, None)), Found)
    last.end.close()
    helper.end.close()
    assert _ended(last.pid)
    assert _ended(helper.pid)


def test_failing_fork_is_told_and_drops_the_request(root: Path) -> None:
    # The limit does not hold for root: then by a user that owns nothing else.
    user = 61234 if not os.geteuid() else -1
    spawner = Spawner(user, user)
    spawner.helper().end.close()
    _limit_processes(spawner.process.pid, user, 0)
    near = spawner.ask()
    _wait(near)
    with pytest.raises(EOFError):
        channel.receive(near)
    _limit_processes(spawner.process.pid, user, 4000)
    assert spawner.helper().pid
    assert b"no helper: Resource temporarily unavailable" in spawner.close()


def _limit_processes(pid: int, user: int, limit: int) -> None:
    child = os.fork()
    if not child:
        try:
            if user >= 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            _, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
            resource.prlimit(pid, resource.RLIMIT_NPROC, (min(limit, hard), hard))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_rights_are_dropped_for_good(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("dropping rights needs root")
    spawner = Spawner(uid=65534, gid=65533, groups="4,24")
    spawner.add(Root(b"/etc", (), wire.INSIDE))
    helper = spawner.helper()
    for pid in (spawner.process.pid, helper.pid):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        assert status["Uid"] == ["65534"] * 4
        assert status["Gid"] == ["65533"] * 4
        assert status["Groups"] == ["4", "24"]
        assert status["NoNewPrivs"] == ["1"]
        assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
    assert isinstance(helper.do(Lookup(1, 0, b"passwd", 0, 100, None)), Found)
    assert helper.do(Lookup(2, 0, b"shadow", 0, 100, None)) == wire.Failure(2, wire.REFUSED, 13)
    assert spawner.close() == b""


def test_file_rewritten_in_place_is_never_answered_mixed(spawner: Spawner, root: Path) -> None:
    """Two contents of one size, written in place again and again by another process.

    What tells them apart is the file's times: fine-grained in kernels from 6.13 on, else in ticks,
    which is one reason why the helper lets a file rest that was just changed.
    """
    size = CACHE // 2  # large, so that reads and writes meet
    contents = [bytes([letter]) * size for letter in b"ab"]
    (root / "moving").write_bytes(contents[0])
    pid = os.fork()
    if not pid:
        fd = os.open(root / "moving", os.O_WRONLY)
        for n in range(2000):
            os.pwrite(fd, contents[n % 2], 0)
            time.sleep(0.03 + n % 7 * 0.005)
        os._exit(0)
    try:
        helper = spawner.helper()
        verdicts = set()
        end = time.monotonic() + 1.5
        while time.monotonic() < end or Found not in verdicts:
            answer = helper.do(Lookup(1, 1, b"moving", 0, size, None))
            verdicts.add(type(answer))
            if isinstance(answer, Found):
                mixed = spawner.memory[:size] not in contents
                assert not mixed  # the contents are too long to be shown
                loaded = helper.do(Load(2, 1, b"moving", answer.identity, 0, size, size))
                if isinstance(loaded, wire.Loaded):
                    other = spawner.memory[:size] != spawner.memory[size : 2 * size]
                    assert not other
            else:
                assert answer == wire.Failure(1, wire.MOVING, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
