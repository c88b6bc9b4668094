"""The unit for systemd and the Dockerfile in conf/examples, and docs/deploy.md, as far as they can be tried without
systemd as the first process and without a Docker daemon."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flashpy.config import load
from tests.conftest import StartServer
from tests.needs import find, needs
from tests.server import REPOSITORY, Client, wait_until
from tests.web import CONFIG, head, plant, stream

EXAMPLES = REPOSITORY / "conf" / "examples"
UNIT = EXAMPLES / "flashpy.service"
DOCUMENT = REPOSITORY / "docs" / "deploy.md"
LARGE = 20_000_000
DOCKERFILE = EXAMPLES / "Dockerfile"
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


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A flashpy command line that serves, and its port."""
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=ENVIRONMENT, start_new_session=True)
    try:
        ready = re.compile(r"^flashpy: listening on http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
        match = wait_until(lambda: ready.search(said.read_text()), "the ready line")
        yield process, int(match[1])
    finally:
        process.terminate()
        process.wait(30)


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


def test_a_release_is_switched_and_no_request_fails(start_server: StartServer, tmp_path: Path) -> None:
    """As the document says: large downloads under way are cut short, but for those of a mount outside."""
    site = tmp_path / "site"
    for release in ("1", "2"):
        plant(site / "releases" / release, {"large.bin": LARGE})
        (site / "releases" / release / "index.html").write_text(release)
    plant(site / "downloads", {"large.bin": LARGE})
    (site / "current").symlink_to("releases/1")
    server = start_server(
        f'{CONFIG}[[site]]\n[[site.mount]]\nat = "/downloads/"\nroot = "{site}/downloads"\n', root=site / "current"
    )
    with server.connect() as inside, server.connect() as outside, server.connect() as client:
        inside.send(head("/large.bin"))
        outside.send(head("/downloads/large.bin"))
        for slow in (inside, outside):
            slow.pending = slow.socket.recv(1000)
        assert client.request("/").body == b"1"
        (site / "current.new").symlink_to("releases/2")
        subprocess.run(["mv", "-T", site / "current.new", site / "current"], check=True)

        def switched() -> bool:
            reply = client.request("/")
            assert (reply.status, reply.body) in ((200, b"1"), (200, b"2"))
            return reply.body == b"2"

        wait_until(switched, "the new release")
        assert outside.read_reply().body == stream("large.bin", LARGE)
        with pytest.raises(EOFError):
            inside.read_reply()
        assert client.request("/large.bin").body == stream("large.bin", LARGE)


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


@needs("systemd-analyze", "strace")
def test_the_units_filter_lets_every_system_call_through(tmp_path: Path) -> None:
    """Of a start, misses, hits, a listing, a link, a reload and the end, by every process of it."""
    root = tmp_path / "root"
    root.mkdir()
    plant(root, {"a.txt": 1000, "docs/b.bin": 3_000_000})
    (root / "link").symlink_to("a.txt")
    file = tmp_path / "flashpy.toml"
    file.write_text(
        f'[server]\nlisten = ["127.0.0.1:0", "unix:{tmp_path}/socket"]\nworkers = 2\n'
        f'[log]\naccess = "{tmp_path}/access.log"\nerror = "{tmp_path}/error.log"\n'
        f'[[site]]\nroot = "{root}"\nlisting = "html"\n'
    )
    trace = tmp_path / "trace"
    command = [str(find("strace")), "-f", "-qq", "-o", str(trace), "-I", "2"]
    with started([*command, *FLASHPY, "serve", "-c", str(file)], tmp_path) as (process, port):
        (master,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        for turn in range(2):
            for target in ("/a.txt", "/a.txt", "/docs/", "/docs/b.bin", "/link", "/nothing"):
                for address in (("127.0.0.1", port), str(tmp_path / "socket")):
                    with Client(address) as client:
                        assert client.request(target).status == (404 if target == "/nothing" else 200)
            if turn == 0:
                subprocess.run(["/bin/kill", "-HUP", str(master)], check=True)
                wait_until(lambda: "[info] reloaded:" in (tmp_path / "error.log").read_text(), "the reload")
        subprocess.run(["/bin/kill", "-TERM", str(master)], check=True)
        assert process.wait(60) == 0
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
