"""A real server in a process of its own, and a client that shows raw bytes.

The server is started as users start it, on port 0, with its logs in a folder of the test. When the
test is over it must end with status 0, leave nothing on standard error, no line of level error
that the test did not announce, no process and no file.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS = 30.0
"""How long anything may take on a slow and noisy machine."""

_READY = re.compile(r"^flashpy: listening on (\S+)$", re.MULTILINE)
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\d+\] \[(\w+)\] (.*)$")
_MARK = "FLASHPY_TEST_SERVER"


class Reply(NamedTuple):
    """A reply as it came: field names in lower case, the last of equal ones."""

    status: int
    headers: dict[str, str]
    body: bytes


def wait_until(condition: Callable[[], object], what: str = "", seconds: float = SECONDS) -> Any:
    """Ask again and again until the answer is true, and return it. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)
    return answer


class Client:
    """One connection."""

    def __init__(self, address: tuple[str, int] | str, source: str = "") -> None:
        """``source`` is the address that the connection comes from; "" leaves it to the kernel."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if not isinstance(address, str) and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family)
        self.socket.settimeout(SECONDS)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self.pending = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *unused: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.socket.sendall(data)

    def request(self, path: str = "/", headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """Send a request as a browser would and read its reply."""
        fields = {"Host": "localhost", **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return self.read_reply(head=method == "HEAD")

    def read_reply(self, *, head: bool = False) -> Reply:
        """Read one reply by its Content-Length. Raises EOFError when it is cut short."""
        while b"\r\n\r\n" not in self.pending:
            self._more()
        top, _, self.pending = self.pending.partition(b"\r\n\r\n")
        first, *fields = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        status = int(first.split(" ", 2)[1])
        bare = head or status in (204, 304) or status < 200
        return Reply(status, headers, b"" if bare else self._body(headers))

    def read_to_end(self) -> bytes:
        """Everything until the server closes."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        data, self.pending = self.pending, b""
        return data

    def _body(self, headers: Mapping[str, str]) -> bytes:
        length = int(headers["content-length"])
        while len(self.pending) < length:
            self._more()
        body, self.pending = self.pending[:length], self.pending[length:]
        return body

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"closed by the server after {self.pending[:80]!r}")
        self.pending += data


class Server:
    """A server that runs; ``stop`` it or let the fixture do it."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        root: Path | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        program: Sequence[str] = ("-m", "flashpy", "serve", "-c"),
        wait: bool = True,
    ) -> None:
        """``config`` is TOML; what it leaves out (listen, workers, logs, root) is filled in.

        ``program`` are the interpreter's arguments before the file's name, ``args`` those after.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        self.file = folder / "flashpy.toml"
        self.root = root or folder / "root"
        self.root.mkdir(exist_ok=True)
        self.status: int | None = None
        self.expected_status = 0
        self.addresses: list[tuple[str, int] | str] = []
        self._mark = uuid.uuid4().hex
        self._announced: list[str] = []
        self.settings = self.configure(config)
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "helpers")])
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *program, str(self.file), *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": path, _MARK: self._mark, **(env or {})},
                cwd=folder,
                start_new_session=True,
            )
        self.pid = self.process.pid
        if wait:
            self.wait_ready()

    def configure(self, config: str) -> dict[str, Any]:
        """Write the configuration file, for the start or before a HUP; returns its tables."""
        tables = tomllib.loads(config)
        server = tables.setdefault("server", {})
        server.setdefault("listen", ["127.0.0.1:0"])
        server.setdefault("workers", 1)
        log = tables.setdefault("log", {})
        log.setdefault("access", str(self.folder / "access.log"))
        log.setdefault("error", str(self.folder / "error.log"))
        for site in tables.setdefault("site", [{}]):
            site.setdefault("root", str(self.root))
        draft = self.file.with_suffix(".draft")
        draft.write_text(to_toml(tables), encoding="utf-8")
        draft.rename(self.file)
        return tables

    # While it runs

    def wait_ready(self) -> None:
        """Wait for the line of each listener."""
        count = len(self.settings["server"]["listen"])

        def lines() -> list[str] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self._all_text()}")
            found = _READY.findall(self.stdout)
            return found if len(found) >= count else None

        self.addresses = [_address(url) for url in wait_until(lines, "ready lines")]

    @property
    def address(self) -> tuple[str, int] | str:
        """Where the first listener is: (host, port), or the path of a unix socket."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        assert not isinstance(self.address, str)
        return self.address[1]

    @property
    def log(self) -> Path:
        """The error log."""
        path = self.settings["log"]["error"]
        return self.folder / ("stderr" if path == "-" else path)

    @property
    def access(self) -> Path:
        """The access log."""
        path = self.settings["log"]["access"]
        return self.folder / ("stdout" if path == "-" else path)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return (self.folder / "stderr").read_text()

    def connect(self, listener: int = 0, source: str = "") -> Client:
        """A new connection."""
        return Client(self.addresses[listener], source)

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.request(path, {"Connection": "close", **(headers or {})}, method)

    def signal(self, number: int) -> None:
        """Send the master a signal."""
        self.process.send_signal(number)

    def tree(self) -> dict[int, str]:
        """All processes of this server, with their names, whoever their parent is by now."""
        return {pid: _name(pid) for pid in _marked(self._mark)}

    def children(self) -> list[int]:
        """The children of the master."""
        return [pid for pid in self.tree() if _parent(pid) == self.pid]

    def workers(self) -> list[int]:
        """The worker processes: children of the master that share its session."""
        return [pid for pid in self.children() if _session(pid) == self.pid]

    def named(self, name: str) -> list[int]:
        """Processes by name: flashpy-worker, flashpy-spawner, flashpy-helper, flashpy-log."""
        return [pid for pid, own in self.tree().items() if own == name[:15]]

    def log_lines(self) -> list[str]:
        """The lines of the error log so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_log(self, text: str, count: int = 1) -> str:
        """Wait until ``count`` lines of the error log contain ``text``; returns the last one."""

        def found() -> list[str] | None:
            lines = [line for line in self.log_lines() if text in line]
            return lines if len(lines) >= count else None

        try:
            return str(wait_until(found)[-1])
        except AssertionError:
            raise AssertionError(f"not in the log: {text!r}; {self._all_text()}") from None

    # Its end

    def expect_error(self, text: str) -> None:
        """Announce that lines of level error with this text may be there."""
        self._announced.append(text)

    def stop(self, number: int = SIGTERM, seconds: float = SECONDS) -> int:
        """Send a signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.signal(number)
        if number == SIGKILL:
            self.expected_status = -SIGKILL
        return self.wait(seconds)

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for the end; the exit status."""
        self.status = self.process.wait(seconds)
        return self.status

    def counters(self) -> dict[str, int]:
        """The counters that the last line of the error log holds; after ``stop``."""
        last = self.log_lines()[-1]
        _, message = told(last)
        assert message.startswith("counters "), last
        counters: dict[str, int] = json.loads(message.removeprefix("counters "))
        return counters

    def finish(self) -> None:
        """Stop it if nobody did, and check that it left nothing behind."""
        try:
            self.stop()
            self._wait_for_tree()
            assert self.status == self.expected_status, self._all_text()
            self._check_texts()
            if self.status != -SIGKILL:
                self._check_files()
        finally:
            self._kill_tree()

    def _wait_for_tree(self) -> None:
        wait_until(lambda: not self.tree(), f"processes left: {self.tree()}", 15)

    def _kill_tree(self) -> None:
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
        self.process.wait()

    def _check_texts(self) -> None:
        for line in [*self.stderr.splitlines(), *self.log_lines()]:
            announced = any(text in line for text in self._announced)
            assert announced or told(line)[0] not in ("", "error"), line

    def _check_files(self) -> None:
        server = self.settings["server"]
        pidfile = server.get("pidfile")
        assert not pidfile or not (self.folder / pidfile).exists()
        for address in self.addresses:
            assert isinstance(address, tuple) or not Path(address).exists(), address
        assert not list(self.folder.glob(f"*.{self.pid}"))

    def _all_text(self) -> str:
        return f"stdout {self.stdout!r}, stderr {self.stderr!r}, log {self.log_lines()[-20:]}"


def told(line: str) -> tuple[str, str]:
    """Level and message of a line of the error log, in either form; a line in neither has no level."""
    if line.startswith("{"):
        record = json.loads(line)
        return record["level"], record["message"]
    match = _LOG_LINE.match(line)
    return (match[1], match[2]) if match is not None else ("", line)


def to_toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML, each value on one line."""
    lines = (f"{json.dumps(key)} = {_value(value)}\n" for key, value in tables.items())
    return "".join(lines)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _address(url: str) -> tuple[str, int] | str:
    if url.startswith("unix:"):
        return url.removeprefix("unix:")
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def _marked(mark: str) -> list[int]:
    """Processes, zombies excepted, whose environment has the mark."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found


def _stat(pid: int) -> tuple[str, list[str]]:
    text = Path(f"/proc/{pid}/stat").read_text()
    start, end = text.index("(") + 1, text.rindex(")")
    return text[start:end], text[end + 2 :].split()


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return _stat(pid)[0]
    return ""


def _session(pid: int) -> int | None:
    """The session of a process; None when it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(_stat(pid)[1][1])
    return 0
