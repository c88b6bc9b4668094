"""Start and stop the servers that the load tests compare: flashpy and nginx in several settings.

Runs in the load tests and benchmarks. Each server gets a folder of its own for its configuration
and logs, one worker unless its setting says otherwise, an access log in the combined format, and
loopback only. `running` is the only way in: whatever happens inside, the server is gone after it.
"""

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from loadtests.workloads import RULES

HERE = Path(__file__).resolve().parent
READY = "flashpy: listening on http://"
START_SECONDS = 20
STOP_SECONDS = 45
MIME_TYPES = "types { text/html html; text/plain txt; text/css css; image/gif gif; image/jpeg jpg jpeg; }\n"
NOBODY = "nobody"
BROTLI = Path("/usr/lib/nginx/modules/ngx_http_brotli_static_module.so")
"""nginx's way to send brotli siblings: on Debian libnginx-mod-http-brotli-static."""

FLASHPY_CONFIG = Template("""\
[server]
listen = ["127.0.0.1:0"]
workers = 1
$user

[cache]
memory = "$memory"

[limits]
idle_timeout = "600s"

[log]
access = "$folder/access.log"
error = "$folder/error.log"

[[site]]
root = "$root"
dotfiles = true
""")


class ServerError(Exception):
    """A server did not start, or did not stop as it should."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A server and its setting. For nginx, sendfile to workers fill in nginx.conf."""

    name: str
    program: str
    """The Python that runs flashpy, or the path of an nginx."""
    sendfile: bool = True
    nopush: bool = True
    threads: bool = False
    workers: int = 1
    memory: str = "512MiB"
    """Of flashpy's content cache."""

    @property
    def is_flashpy(self) -> bool:
        """Whether the project's own server is meant, not nginx."""
        return self.name.startswith("flashpy")


@dataclass(slots=True)
class Server:
    """A server that is running."""

    rival: Rival
    process: "subprocess.Popen[str]"
    port: int
    folder: Path

    @property
    def pid(self) -> int:
        """The first process; all others descend from it."""
        return self.process.pid

    def stop(self) -> int:
        """End it by TERM (a second time by KILL) and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ServerError(f"{self.rival.name} did not stop in {STOP_SECONDS} s") from None
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def errors(self) -> str:
        """What it has written to its error log and to standard error."""
        files = (self.folder / "stderr", self.folder / "error.log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def counters(self) -> dict[str, int]:
        """The counters that flashpy leaves in its last line; empty for another server."""
        return parse_counters(self.errors())


def parse_counters(log: str) -> dict[str, int]:
    """Read the JSON of the last counters line of an error log."""
    for line in reversed(log.splitlines()):
        _, mark, text = line.partition("[info] counters ")
        if mark:
            counters: dict[str, int] = json.loads(text)
            return counters
    return {}


def nginx_config(rival: Rival, folder: Path, root: Path, port: int) -> str:
    """Fill in nginx.conf."""
    values = {
        "USER": NOBODY + " " + _group(),
        "WORKERS": str(rival.workers),
        "FOLDER": str(folder),
        "MIME": str(folder / "mime.types"),
        "SENDFILE": "on" if rival.sendfile else "off",
        "NOPUSH": "on" if rival.nopush else "off",
        "MODULES": f"load_module {BROTLI};" if BROTLI.exists() else "",
        "CODINGS": "gzip_static on;" + (" brotli_static on;" if BROTLI.exists() else ""),
        "RULES": "\n            ".join(
            f"location ~ ^/ruled/{number}/[^/]*[.]html$ "
            f"{{ add_header X-Rule {number}; add_header Cache-Control max-age=60; }}"
            for number in range(RULES)
        ),
        "AIO": "aio threads;" if rival.threads else "",
        "LISTEN": f"127.0.0.1:{port}",
        "ROOT": str(root),
    }
    text = (HERE / "nginx.conf").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def flashpy_config(rival: Rival, folder: Path, root: Path) -> str:
    """The configuration that flashpy is measured with: its defaults, and room for the files."""
    user = f'user = "{NOBODY}"\ngroup = "{_group()}"' if os.geteuid() == 0 else ""
    rules = "".join(
        f'[[site.rule]]\nmatch = "/ruled/{number}/*.html"\ncache = "60s"\nheaders = {{ X-Rule = "{number}" }}\n'
        for number in range(RULES)
    )
    return FLASHPY_CONFIG.substitute(user=user, memory=rival.memory, folder=folder, root=root) + rules


@contextmanager
def running(rival: Rival, root: Path, folder: Path, *, wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server inside the with block; raises ServerError when it does not come up.

    The wrapper is put before the command (`taskset -c 0` and the like) and must exec it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, NOBODY)
    start = _start_flashpy if rival.is_flashpy else _start_nginx
    server = start(rival, root, folder, wrapper)
    try:
        yield server
    finally:
        server.stop()


def _start_flashpy(rival: Rival, root: Path, folder: Path, wrapper: Sequence[str]) -> Server:
    config = folder / "flashpy.toml"
    config.write_text(flashpy_config(rival, folder, root))
    paths = [str(HERE.parent), str(HERE.parent / "helpers"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [*wrapper, rival.program, "-m", "flashpy", "serve", "-c", str(config)]
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()  # Ends with the process, so it cannot hang on a dead server.
    server = Server(rival, process, 0, folder)
    if not line.startswith(READY):
        server.stop()
        raise ServerError(f"flashpy did not start: {line}{server.errors()}")
    server.port = int(line.rsplit(":", 1)[1])
    return server


def _start_nginx(rival: Rival, root: Path, folder: Path, wrapper: Sequence[str]) -> Server:
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(nginx_config(rival, folder, root, port))
    (folder / "mime.types").write_text(MIME_TYPES)
    command = [*wrapper, rival.program, "-p", str(folder), "-c", str(config)]
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, text=True)
    server = Server(rival, process, port, folder)
    try:
        _await_port(server)
    except ServerError:
        server.stop()
        raise
    return server


def _await_port(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        time.sleep(0.02)
    raise ServerError(f"{server.rival.name} did not start: {server.errors()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _group() -> str:
    return grp.getgrgid(pwd.getpwnam(NOBODY).pw_gid).gr_name


def nginx_path() -> str | None:
    """Where nginx is installed; it is often not in the PATH of a user."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def clean_up_on_term() -> None:
    """Let SIGTERM end this process as an exception, so that servers and files are removed."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
