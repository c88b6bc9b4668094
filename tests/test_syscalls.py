"""A worker waits for nothing: after boot it makes only the system calls of one short list.

strace looks at the workers alone while everything happens that a client or an operator can do.
The files belong to root and the workers run as nobody: what a worker may not do it also does not
try.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import only
from tests.needs import needs, needs_root
from tests.server import REPOSITORY, Server, wait_until
from tests.web import exchange, head, plant, reset

pytestmark = [needs("strace"), needs_root()]

ALTERED = (str(REPOSITORY / "tests" / "altered.py"),)

SOCKETS = {"accept4", "recvfrom", "recvmsg", "sendmsg", "sendto", "shutdown", "setsockopt", "socketpair", "fcntl"}
NAMES = {"getsockname"}
"""The interpreter asks a descriptor's own address, to see that it is a socket, when it makes an object of it."""
EVENTS = {"epoll_wait", "epoll_pwait", "epoll_ctl"}
CLOCK = {"clock_gettime", "gettimeofday", "getrusage"}  # seen where the vDSO has none
MEMORY = {"mmap", "munmap", "mremap", "madvise", "brk", "mprotect"}
SIGNALS = {"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "restart_syscall"}
ALLOWED = SOCKETS | NAMES | EVENTS | CLOCK | MEMORY | SIGNALS
END = {"exit_group"}

# With -yy a descriptor is followed by what it is: 7<TCP:[127.0.0.1:80->127.0.0.1:4711]>.
_SOCKET = re.compile(r"^\d+<(TCP|TCPv6|UNIX|UNIX-STREAM|UNIX-SEQPACKET|socket):\[")
# The interpreter writes the number of a signal, one byte, to the worker's own wakeup socket.
_WAKEUP = re.compile(r'^\d+<UNIX-STREAM:[^,]*>, "(\\\d{1,3}|\\[a-z]|.)", 1(\)| <unfinished)')
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


def strangers(trace: str) -> list[str]:
    """The lines of a trace that are not allowed."""
    return [line for line in trace.splitlines() if not _is_allowed(line)]


def _is_allowed(line: str) -> bool:
    if re.match(r"^\d+ +(---|\+\+\+) ", line):
        return True  # a signal came, or the process has ended
    match = _CALL.match(line)
    if match is None:
        return False
    name, rest = match[2], match[3]
    if " resumed>" in line:
        return True  # its first half was looked at
    if name == "close":
        return bool(_SOCKET.match(rest))
    if name == "write":
        return bool(_WAKEUP.match(rest))
    if name == "mmap":
        return "MAP_ANONYMOUS" in rest
    return name in ALLOWED | END


@contextmanager
def traced(pids: list[int], file: Path) -> Iterator[None]:
    """Trace these processes into a file, to their end or that of the block."""
    options = ["-f", "-q", "-yy", "-e", "signal=all", "-o", str(file)]
    targets = [word for pid in pids for word in ("-p", str(pid))]
    with (file.with_suffix(".problems")).open("wb") as problems:
        tracer = subprocess.Popen(["strace", *options, *targets], stderr=problems)
    try:
        wait_until(lambda: all(_is_traced(pid) for pid in pids), f"strace at {pids}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def public() -> Iterator[Path]:
    """A root that everybody may read and only root may change."""
    folder = Path(tempfile.mkdtemp(prefix="flashpy-"))
    folder.chmod(0o755)
    plant(folder, {"small.bin": 1000, "two.bin": 5000, "large.bin": 3_000_000, "folder/index.html": 300})
    plant(folder, {f"many/{number}.bin": 60_000 for number in range(40)})
    (folder / "secret.bin").write_bytes(b"secret")
    (folder / "secret.bin").chmod(0o600)
    yield folder
    shutil.rmtree(folder)


CONFIG = """
[server]
workers = 2
user = "nobody"
graceful_timeout = "5s"
[cache]
chunk = "64KiB"
memory = "2MiB"
revalidate = "100ms"
[heavy]
min = 1
[limits]
header_timeout = "1s"
[log]
level = "debug"
[[site]]
watch = true
headers = { X-Extra = "yes" }
compress = ["gzip"]
"""


def on_both(server: Server, visit: Callable[[], object]) -> None:
    """Once with each worker."""
    for pid in server.workers():
        with only(server, pid):
            visit()


def visit_files(server: Server) -> None:
    """Hits, misses, ranges, conditions, large files, a client that goes away in the middle."""
    with server.connect() as client:
        for _ in range(4):
            reply = client.request("/small.bin")
            assert (reply.status, len(reply.body)) == (200, 1000)
        etag = reply.headers["etag"]
        assert client.request("/small.bin", {"If-None-Match": etag}).status == 304
        assert client.request("/small.bin", method="HEAD").status == 200
        assert len(client.request("/large.bin").body) == 3_000_000
        assert client.request("/large.bin", {"Range": "bytes=100000-700000"}).status == 206
        assert client.request("/large.bin", {"Range": "bytes=0-9,100000-100009"}).status == 206
        assert client.request("/large.bin", {"Range": "bytes=9999999-"}).status == 416
        for number in range(40):
            assert client.request(f"/many/{number}.bin?{number}").status == 200
    gone = server.connect()
    gone.send(head("/large.bin"))
    gone.socket.recv(1000)
    reset(gone)


def visit_others(server: Server) -> None:
    """What is not there, not allowed, not valid, and an error of the server's own."""
    for path, status in (
        ("/missing", 404), ("/folder", 301), ("/folder/", 200), ("/many/", 403), ("/secret.bin", 403),
        ("/%00", 400), ("/../etc/passwd", 400), ("/bug", 500), ("/" + "a" * 9000, 414),
    ):  # fmt: skip
        reply = server.get(path)
        assert reply.status == status, (path, reply)
    assert server.get("/small.bin", method="DELETE").status == 405
    assert server.get("/small.bin", method="BREW").status == 501
    assert server.get("/", method="OPTIONS").status in (200, 204)
    for data in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", head("/") * 3, b""):
        exchange(server, data)
    body = head("/small.bin", "Content-Length: 5", "Expect: 100-continue", method="POST") + b"12345"
    assert b"HTTP/1.1 405" in exchange(server, body)


def replace(server: Server, root: Path, number: int) -> None:
    """A new version of a file that is in the caches, seen by both workers."""
    (root / "draft").write_bytes(b"%d" % number * 100)
    (root / "draft").rename(root / "two.bin")
    wait_until(lambda: all(server.get("/two.bin").body == b"%d" % number * 100 for _ in range(6)))


@pytest.mark.slow
@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_only_the_calls_of_the_list(start_server: StartServer, public: Path, tmp_path: Path, language: str) -> None:
    env = {"BUG": "/bug", "LC_ALL": language}
    server = start_server(CONFIG, root=public, program=ALTERED, env=env)
    server.expect_error("an error on purpose")
    old = server.workers()
    assert len(old) == 2
    assert all(os.stat(f"/proc/{pid}").st_uid != 0 for pid in old)
    first, second = tmp_path / "first.trace", tmp_path / "second.trace"
    with traced(old, first):
        slow = server.connect()
        slow.send(b"GET /sma")  # will be answered 408
        on_both(server, lambda: visit_files(server))
        on_both(server, lambda: visit_others(server))
        replace(server, public, 1)
        server.signal(signal.SIGUSR1)
        server.wait_log("logs reopened")
        replace(server, public, 2)
        for pid in old:  # what a worker ignores, and a signal that it must not mind
            os.kill(pid, signal.SIGUSR1)
        kill_helpers_of(server)
        on_both(server, lambda: visit_files(server))
        assert slow.read_reply().status == 408
        slow.socket.close()
        idle = server.connect()
        assert idle.request("/small.bin").status == 200
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded")
        assert idle.socket.recv(1) == b""
        idle.socket.close()
        wait_until(lambda: not set(old) & set(server.workers()), "the old workers' end")
    with traced(server.workers(), second):
        on_both(server, lambda: visit_files(server))
        on_both(server, lambda: visit_others(server))
        assert server.stop() == 0
    for trace, pids in ((first, old), (second, [])):
        text = trace.read_text()
        assert strangers(text) == []
        for pid in pids:
            assert re.search(rf"^{pid} .*exit_group\(0\)", text, re.MULTILINE)
            assert re.search(rf"^{pid} +sendmsg\(.*HTTP/1.1 (200|206|404)", text, re.MULTILINE)


def kill_helpers_of(server: Server) -> None:
    """All of them, and the spawners: the workers hear of new ones and get helpers again."""
    server.expect_error("the spawner")
    server.expect_error("the heavy spawner")
    for pid in [
        pid
        for name in ("flashpy-spawner", "flashpy-helper", "flashpy-heavy", "flashpy-press")
        for pid in server.named(name)
    ]:
        with suppress(ProcessLookupError):  # a helper goes by itself when there is nothing to do
            os.kill(pid, signal.SIGKILL)
    server.wait_log("the spawner")
    server.wait_log("the heavy spawner")
    wait_until(lambda: len(server.named("flashpy-press")) == len(server.workers()), "heavy helpers again")


def test_the_list_finds_what_is_not_on_it(tmp_path: Path) -> None:
    """The test's own test: a process that does what a worker must not do."""
    program = (
        "import os, socket, sys, time\n"
        "a, b = socket.socketpair(); fd = os.memfd_create('x'); sys.stdin.readline()\n"
        "a.send(b'x'); b.recv(9); a.close(); os.close(fd); os.stat('/'); os.open('/dev/null', 0); time.sleep(0)"
    )
    with subprocess.Popen(["python3", "-S", "-c", program], stdin=subprocess.PIPE, text=True) as process:
        wait_until(lambda: has_memory(process.pid), "its start")
        with traced([process.pid], tmp_path / "trace"):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            process.wait(20)
    text = (tmp_path / "trace").read_text()
    found = strangers(text)
    for call in ("close(", "stat", "open"):
        assert any(call in line for line in found), text
    assert not any("sendto(" in line or "recvfrom(" in line for line in found)


def has_memory(pid: int) -> bool:
    """Whether the process has come so far that it has its memory file."""
    with suppress(FileNotFoundError):  # one was closed meanwhile
        return any("memfd" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False
