"""A helper that stops in the middle of a read and wakes up after its job was written off.

It still holds the address of a block and writes to it. Whether a signal, a debugger or a file
system stopped it, nobody else may have been given that block meanwhile. strace stops it between
the question for the data and the read: so it has its job, and has not yet written.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import StartServer
from tests.crowd import Crowd, is_stopped
from tests.needs import needs, needs_root
from tests.server import REPOSITORY, Reply, Server, wait_until
from tests.versions import content, version_of
from tests.web import head

pytestmark = [needs("strace"), needs_root()]

ALTERED = (str(REPOSITORY / "tests" / "altered.py"),)
SIZE = 60_000
CONFIG = """
[helpers]
min = 2
max = 4
timeout = "500ms"
[cache]
chunk = "64KiB"
memory = "512KiB"
revalidate = "1h"
max_stale = "1h"
[limits]
send_timeout = "5s"
"""


@contextmanager
def stopping(pids: list[int]) -> Iterator[None]:
    """The first of these processes that is about to read a file is stopped there."""
    inject = ["-e", "trace=lseek", "-e", "inject=lseek:signal=SIGSTOP:when=1"]
    targets = [word for pid in pids for word in ("-p", str(pid))]
    tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", *inject, *targets])
    try:
        wait_until(lambda: all(tracer_of(pid) for pid in pids), f"strace at {pids}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


def tracer_of(pid: int) -> int:
    """Who traces the process; 0 = nobody."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])


def gauge(folder: Path, server: Server, name: str) -> int:
    """What the one worker said last of a counter."""
    (worker,) = server.workers()
    file = folder / str(worker)
    return int(json.loads(file.read_text())[name]) if file.exists() else 0


def check(path: str, reply: Reply) -> None:
    """Every byte is the file's own."""
    assert reply.status == 200, (path, reply)
    assert len(reply.body) == SIZE
    assert version_of(path[1:], reply.body) == 1


def test_its_block_is_given_to_nobody(start_server: StartServer, tmp_path: Path) -> None:
    root, gauges = tmp_path / "files", tmp_path / "gauges"
    root.mkdir()
    gauges.mkdir()
    server = start_server(CONFIG, root=root, program=ALTERED, env={"GAUGES": str(gauges)})
    helpers = wait_until(lambda: len(found := server.named("flashpy-helper")) >= 2 and found, "helpers")
    names = [f"/{number}.bin" for number in range(40)]
    for name in (*names, "/victim.bin"):
        (root / name[1:]).write_bytes(content(name[1:], 1, SIZE))  # just now: so a helper asks where data lies
    with server.connect() as early, server.connect() as late:
        with stopping(helpers):
            early.send(head("/victim.bin"))
            (stopped,) = wait_until(lambda: [pid for pid in helpers if is_stopped_by_signal(pid)], "a stopped helper")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 0.25)
        late.send(head("/victim.bin"))
        assert early.read_reply().status == 504
        assert early.request(names[0]).status == 200
        # Who came later gets it from another helper, in time.
        check("/victim.bin", late.read_reply())
    assert is_stopped(stopped)
    wait_until(lambda: gauge(gauges, server, "helpers_written_off") == 1, "the write-off")
    serve_under_pressure(server, names)
    assert is_stopped(stopped)
    wait_until(lambda: gauge(gauges, server, "evictions") > 50, "evictions")
    wait_until(lambda: gauge(gauges, server, "arena_pinned") == 65536, "one pinned block: it may still write to it")
    with server.connect() as client:
        for name in names:
            check(name, client.request(name))
        before = read_by(stopped)
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: read_by(stopped) > before or not alive(stopped), "the late read")
        for name in reversed(names):  # those in the cache first
            check(name, client.request(name))
    serve_under_pressure(server, names)
    wait_until(lambda: gauge(gauges, server, "arena_pinned") == 0, "all blocks given back")
    assert server.stop() == 0
    assert server.counters()["status_5xx"] == 1
    assert server.counters()["timeouts"] == 1


def serve_under_pressure(server: Server, names: list[str]) -> None:
    """Many files through a cache that holds eight: every block is used again and again."""
    choice = random.Random(11)
    crowd = Crowd(check)
    for _ in range(4):
        crowd.add(server.address, lambda: choice.choice(names))
    crowd.run(20, lambda: crowd.replies > 400)
    crowd.finish()
    assert crowd.replies > 400


def is_stopped_by_signal(pid: int) -> bool:
    """Not just held by strace for a moment."""
    if not is_stopped(pid):
        return False
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return status == "T" or in_group_stop(pid)


def in_group_stop(pid: int) -> bool:
    """A traced process that a signal has stopped does not run on by itself."""
    first = Path(f"/proc/{pid}/syscall").read_text()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        if not is_stopped(pid) or Path(f"/proc/{pid}/syscall").read_text() != first:
            return False
    return True


def read_by(pid: int) -> int:
    """How many bytes the process has read with system calls."""
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    except FileNotFoundError:
        return 0


def alive(pid: int) -> bool:
    """Whether it is still there."""
    return Path(f"/proc/{pid}").exists()
