"""The unit for systemd and the Dockerfile in conf/examples, and docs/deploy.md, as far as they can be tried without
systemd as the first process and without a Docker daemon."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flashpy.config import load
from tests.conftest import StartServer
from tests.fronts import EXAMPLES, end
from tests.needs import find, needs
from tests.server import REPOSITORY, Client, Server, wait_until
from tests.web import CONFIG, head, plant, stream

UNIT = EXAMPLES / "flashpy.service"
DOCKERFILE = EXAMPLES / "Dockerfile"
DOCUMENT = REPOSITORY / "docs" / "deploy.md"
LARGE = 20_000_000
# The words of a command as a program: the command is not always where the interpreter is.
FLASHPY = [sys.executable, "-m", "flashpy"]
ENVIRONMENT = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'helpers'}", "PATH": "/usr/bin:/bin"}
# What the unit's comments claim of flashpy's own times: graceful_timeout, then 1 s, 1 s and 2 s.
AFTER_GRACE = 4


def settings() -> dict[str, list[str]]:
    """The unit's keys; a key may be there more than once."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def instruction(name: str) -> str:
    """The argument of the last one of this name, which is what counts."""
    return [rest for word, rest in instructions() if word == name][-1]


def run_as_told(word: str, old: str, new: str, folder: Path) -> None:
    """Run the document's commands that have `word`, at another place than theirs, as a shell does."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("    ") and word in line]
    assert lines
    assert all(old in line for line in lines)
    script = "\n".join(lines).replace(old, new)
    subprocess.run(["/bin/sh", "-e", "-c", script], cwd=folder, check=True)


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A flashpy command line that serves, and its port."""
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=ENVIRONMENT)
    try:
        ready = re.compile(r"^flashpy: listening on http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
        match = wait_until(lambda: ready.search(said.read_text()), "the ready line")
        yield process, int(match[1])
    finally:
        end(process)


# The document


def test_every_configuration_of_the_document_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block if "[[site]]" in block else f'{block}\n[[site]]\nroot = "/srv"\n')
        assert load(file).site


def test_every_link_of_the_document_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text())
    assert len(links) >= 7
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []


def test_every_example_is_run_and_told() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("*.py"))
    names = {file.name for file in EXAMPLES.iterdir()} - {"Dockerfile.dockerignore"}  # which goes with its Dockerfile
    assert len(names) >= 6
    assert [name for name in names if f'"{name}"' not in tests] == []
    assert [name for name in names if name not in DOCUMENT.read_text()] == []


class Releases:
    """The folders of the document: releases, one of them current, and downloads that are outside of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = folder / "current"
        first = folder / "releases" / "1"
        plant(first, {"large.bin": LARGE})
        plant(folder / "downloads", {"large.bin": LARGE})
        (first / "index.html").write_text("1")
        self.current.symlink_to("releases/1")
        shutil.copytree(first, folder / "build")
        (folder / "build" / "index.html").write_text("2")

    def switch(self) -> None:
        """To the second one, which has the same large file with the same time."""
        run_as_told("/srv/example/", "/srv/example", str(self.folder), self.folder)

    def config(self, more: str = "") -> str:
        """As the document has it, and more of what begins in the table `cache`."""
        return f'{CONFIG}{more}[[site]]\n[[site.mount]]\nat = "/downloads/"\nroot = "{self.folder}/downloads"\n'


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "example")


def begin(server: Server, target: str) -> Client:
    """A client that has begun to read."""
    client = server.connect()
    client.send(head(target))
    client.pending = client.socket.recv(1000)
    return client


def has_switched(client: Client) -> bool:
    """Whether the new release is there; either is a whole reply."""
    reply = client.request("/")
    assert (reply.status, reply.body) in ((200, b"1"), (200, b"2"))
    return reply.body == b"2"


def test_a_release_is_switched_and_no_request_fails(start_server: StartServer, releases: Releases) -> None:
    """Large downloads under way are cut short, but for those of a mount outside, and can be gone on with."""
    whole = stream("large.bin", LARGE)
    server = start_server(releases.config(), root=releases.current)
    tag = server.get("/large.bin", method="HEAD").headers["etag"]
    with begin(server, "/large.bin") as inside, begin(server, "/downloads/large.bin") as outside:
        with server.connect() as client:
            assert not has_switched(client)
            releases.switch()
            wait_until(lambda: has_switched(client), "the new release")
        assert outside.read_reply().body == whole
        with pytest.raises(EOFError):
            inside.read_reply()
    rest = server.get("/large.bin", {"Range": f"bytes={LARGE - 1000}-", "If-Range": tag})
    assert (rest.status, rest.body) == (206, whole[-1000:])


def test_after_a_reload_nothing_of_an_old_release_is_sent(start_server: StartServer, releases: Releases) -> None:
    """However long what is in memory may be used."""
    more = 'revalidate = "1h"\nmax_stale = "1h"\n[server]\npidfile = "pid"\n'
    server = start_server(releases.config(more), root=releases.current)
    old = set(server.workers())
    assert server.get("/").body == b"1"
    releases.switch()
    assert server.get("/").body == b"1"
    run_as_told("kill -HUP", "/run/flashpy/flashpy.pid", str(server.folder / "pid"), server.folder)
    server.wait_log("[info] reloaded:")
    wait_until(lambda: not old & server.tree().keys(), "the end of the old worker")
    assert server.get("/").body == b"2"


def test_logs_are_rotated(start_server: StartServer, docroot: Path) -> None:
    """And nothing is done when no server runs."""
    server = start_server('[server]\npidfile = "pid"\n', root=docroot)
    pidfile = server.folder / "pid"
    assert server.get("/a.txt").status == 200
    wait_until(lambda: server.access.exists() and "/a.txt" in server.access.read_text(), "the line")
    server.access.rename(server.folder / "access.log.1")
    run_as_told("kill -USR1", "/run/flashpy/flashpy.pid", str(pidfile), server.folder)
    wait_until(server.access.exists, "the new log")
    # Lines under way may still go into the old one.
    wait_until(lambda: server.get("/docs/").status == 200 and "/docs/" in server.access.read_text(), "its first line")
    assert server.stop() == 0
    assert not pidfile.exists()
    run_as_told("kill -USR1", "/run/flashpy/flashpy.pid", str(pidfile), server.folder)


def test_connections_are_limited_where_each_client_is_introduced(start_server: StartServer, docroot: Path) -> None:
    """And are the proxy's own elsewhere."""
    listen = f'listen = [{{ address = "unix:{docroot.parent}/s", proxy_protocol = true }}, "127.0.0.1:0"]\n'
    trusted = 'trusted_proxies = ["unix:", "127.0.0.1"]\n[limits]\nclient_connections = 2\n'
    server = start_server(f"[server]\n{listen}{trusted}", root=docroot)
    request = head("/a.txt", "X-Forwarded-For: 203.0.113.7")
    for listener, greeting, expected in ((0, b"PROXY TCP4 203.0.113.7 192.0.2.1 5 6\r\n", 429), (1, b"", 200)):
        with ExitStack() as stack:
            clients = [stack.enter_context(server.connect(listener)) for _ in range(3)]
            for client, status in zip(clients, (200, 200, expected), strict=True):
                client.send(greeting + request)
                assert client.read_reply().status == status


# The unit


def test_the_unit_starts_reloads_and_stops_it_as_it_wants_to_be() -> None:
    unit = settings()
    assert unit["Type"] == ["exec"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert unit["KillMode"] == ["mixed"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert "KillSignal" not in unit  # TERM
    (command,) = unit["ExecStart"]
    program, *words = shlex.split(command)
    assert program.endswith("/bin/flashpy")
    assert words == ["serve", "-c", "/etc/flashpy.toml"]
    grace = load(REPOSITORY / "conf" / "site.toml").server.graceful_timeout
    assert int(unit["TimeoutStopSec"][0]) > grace + AFTER_GRACE


def test_the_unit_leaves_what_the_server_needs() -> None:
    unit = settings()
    limits = load(REPOSITORY / "conf" / "site.toml").limits
    assert int(unit["LimitNOFILE"][0]) > limits.connections
    assert "ProcSubset" not in unit  # /proc/meminfo
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= set(unit["RestrictAddressFamilies"][0].split())
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert unit["RuntimeDirectory"] == unit["LogsDirectory"] == ["flashpy"]
    assert "UMask" in unit


@needs("systemd-analyze")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "flashpy.service"
    unit.write_text(UNIT.read_text().replace("/opt/flashpy/bin/flashpy", sys.executable))
    analyze = str(find("systemd-analyze"))
    verified = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    # 2.0 of 10, which it calls OK.
    rated = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    security = subprocess.run(rated, capture_output=True, text=True, check=False)
    assert security.returncode == 0, security.stdout


def calls_of(group: str) -> set[str]:
    """The system calls of one of systemd's groups, and of the groups in it."""
    command = [str(find("systemd-analyze")), "--no-pager", "syscall-filter", group]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [line.strip() for line in lines if line.startswith("    ") and not line.strip().startswith("#")]
    inner = {word for word in words if word.startswith("@")}
    return (set(words) - inner).union(*map(calls_of, inner))


def do_all(server: Server) -> None:
    """Misses, hits, a listing, a link and what is not there, on each listener."""
    for target in ("/a.txt", "/a.txt", "/docs/", "/docs/b.bin", "/link", "/nothing"):
        for listener in range(2):
            with server.connect(listener) as client:
                assert client.request(target).status == (404 if target == "/nothing" else 200)


@needs("systemd-analyze", "strace")
def test_the_units_filter_lets_every_system_call_through(start_server: StartServer, tmp_path: Path) -> None:
    """Of a start, requests, a reload and the end, by every process of it."""
    root, trace = tmp_path / "root", tmp_path / "trace"
    plant(root, {"a.txt": 1000, "docs/b.bin": 3_000_000})
    (root / "link").symlink_to("a.txt")
    config = f'[server]\nlisten = ["127.0.0.1:0", "unix:{tmp_path}/s"]\nworkers = 2\n[[site]]\nlisting = "html"\n'
    # The server is the process that is started; strace runs beside it and ends with it.
    traced = ["-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", str(find("strace"))]
    traced += ["-D", "-f", "-qq", "-o", str(trace), *FLASHPY, "serve", "-c"]
    server = start_server(config, root=root, program=traced)
    do_all(server)
    server.signal(signal.SIGHUP)
    server.wait_log("[info] reloaded:")
    do_all(server)
    assert server.stop() == 0
    wait_until(lambda: not server.tree(), "the end of strace")
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"openat2", "memfd_create", "pidfd_open", "accept4"} <= made
    assert settings()["SystemCallFilter"] == ["@system-service"]
    assert made - calls_of("@system-service") == set()


# The container


def test_the_build_finds_what_it_copies_and_sees_it() -> None:
    ignore = Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines()
    seen = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    copied = set()
    for word, rest in instructions():
        *sources, _ = rest.split() if word == "COPY" else [""]
        if word == "COPY" and not rest.startswith("--from="):
            copied.update(sources)
    assert copied == seen
    assert copied >= {"pyproject.toml", "README.md", "LICENSE", "flashpy", "helpers"}
    assert all((REPOSITORY / name).exists() for name in copied)


def test_the_container_is_nobodys_and_stops_as_asked() -> None:
    assert [rest for word, rest in instructions() if word == "FROM"] == [
        "python:3.13-slim AS build",
        "python:3.13-slim",
    ]
    assert all(int(number) > 0 for number in instruction("USER").split(":"))
    assert instruction("STOPSIGNAL") == "SIGTERM"
    assert signal.Signals[instruction("STOPSIGNAL")] == signal.SIGTERM
    assert instruction("CMD").startswith("[")  # no shell, so that the signal reaches the master
    assert json.loads(instruction("CMD"))[-1] == f"0.0.0.0:{instruction('EXPOSE')}"


def test_the_containers_command_serves_and_its_health_is_told(tmp_path: Path) -> None:
    plant(tmp_path / "www", {"a.txt": 1000})
    name, *words = json.loads(instruction("CMD"))
    assert name == "flashpy"
    places = {"/srv/www": str(tmp_path / "www"), "0.0.0.0:8080": "127.0.0.1:0"}
    assert set(places) <= set(words)
    python, *check = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert python == "python"
    with started([*FLASHPY, *(places.get(word, word) for word in words)], tmp_path) as (process, port):
        probe = [sys.executable, *(word.replace("8080", str(port)) for word in check)]
        with Client(("127.0.0.1", port)) as client:
            assert client.request("/a.txt").body == stream("a.txt", 1000)
        assert subprocess.run(probe, check=False).returncode == 0  # 403: there is no index file
        process.send_signal(signal.Signals[instruction("STOPSIGNAL")])
        assert process.wait(30) == 0
        assert subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode != 0
