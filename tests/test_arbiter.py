"""The master with real processes and signals, and stand-in workers (tests/standin.py)."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashpy.arbiter import BOOT_FAILED
from tests.conftest import StartServer
from tests.server import REPOSITORY, SECONDS, Client, Server, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
STANDIN = (str(REPOSITORY / "tests" / "standin.py"),)

Start = Callable[..., Server]


def config(workers: int = 1, behaviour: str = "", server: str = "", charset: str = "") -> str:
    return f"""
        [server]
        workers = {workers}
        {server}
        [[site]]
        charset = "{charset}"
        headers = {{ X-Behaviour = "{behaviour}" }}
    """


@pytest.fixture
def start(start_server: StartServer) -> Start:
    def start(toml: str = "", **options: Any) -> Server:
        return start_server(toml or config(), **{"program": STANDIN, **options})

    return start


def facts(server: Server, listener: int = 0) -> dict[str, Any]:
    """What the worker that answers says about itself."""
    with server.connect(listener) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        answer: dict[str, Any] = json.loads(client.read_reply().body)
        return answer


def reload(server: Server, toml: str) -> None:
    server.configure(toml)
    server.signal(signal.SIGHUP)


def new_workers(server: Server, old: list[int], count: int) -> list[int]:
    """Wait until exactly ``count`` workers live and none of the old."""

    def fresh() -> list[int] | None:
        now = server.workers()
        return now if len(now) == count and not set(now) & set(old) else None

    workers: list[int] = wait_until(fresh, "new workers")
    return workers


# Start and stop


def test_starts_serves_and_stops(start: Start) -> None:
    server = start(config(workers=2))
    assert facts(server)["pid"] in server.workers()
    assert len(server.workers()) == 2
    assert sorted(server.named("flashpy-worker")) == sorted(server.workers())
    assert len(server.named("flashpy-spawner")) == 1
    assert len(server.named("flashpy-log")) == 1
    assert server.stop() == 0
    assert server.counters()["requests"] == 1


def test_a_line_for_each_listener(start: Start, tmp_path: Path) -> None:
    server = start(config(server=f'listen = ["127.0.0.1:0", "unix:{tmp_path}/s"]'))
    assert server.stdout.splitlines() == [
        f"flashpy: listening on http://127.0.0.1:{server.port}",
        f"flashpy: listening on unix:{tmp_path}/s",
    ]
    assert facts(server, 0)["pid"] == facts(server, 1)["pid"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_now(start: Start, number: int) -> None:
    server = start(config(workers=2, server="graceful_timeout = 60"))
    begin = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - begin < 20


def test_a_worker_that_dies_while_booting_stops_the_master(start: Start) -> None:
    server = start(config(workers=2, behaviour="die"), wait=False)
    server.expect_error("while booting")
    server.expected_status = BOOT_FAILED
    assert server.wait() == BOOT_FAILED
    assert "exit status 7 while booting" in server.stderr
    assert "exit status 7 while booting" in server.log.read_text()
    assert server.stdout == ""


def test_a_worker_that_is_never_ready_stops_the_master(start: Start) -> None:
    server = start(config(behaviour="mute"), wait=False, env={"BOOT_SECONDS": "0.5"})
    for text in ("not ready within", "while booting"):
        server.expect_error(text)
    server.expected_status = BOOT_FAILED
    assert server.wait() == BOOT_FAILED


def test_stopping_while_booting(start: Start) -> None:
    server = start(config(workers=2, behaviour="mute"), wait=False)
    wait_until(lambda: len(server.workers()) == 2)
    assert server.stop() == 0


def test_a_worker_that_does_not_end_is_killed_in_time(start: Start) -> None:
    server = start(config(workers=2, behaviour="deaf", server="graceful_timeout = 1"))
    begin = time.monotonic()
    assert server.stop() == 0
    assert 1 < time.monotonic() - begin < 1 + 3
    assert server.wait_log("did not end in time: killed", 2)


def test_a_second_term_means_now(start: Start) -> None:
    server = start(config(behaviour="deaf", server="graceful_timeout = 60"))
    server.signal(signal.SIGTERM)
    server.wait_log("stopping")
    assert server.stop(signal.SIGTERM) == 0
    server.wait_log("did not end in time: killed")


def test_a_stopped_worker_does_not_hold_up_the_end(start: Start) -> None:
    server = start(config(server="graceful_timeout = 1"))
    os.kill(server.workers()[0], signal.SIGSTOP)
    assert server.stop() == 0


def test_nothing_is_left_when_the_master_is_killed(start: Start) -> None:
    server = start(config(workers=3))
    assert len(server.tree()) == 1 + 3 + 3 + 3
    server.stop(signal.SIGKILL)
    wait_until(lambda: not server.tree(), "orphans")
    assert server.status == -signal.SIGKILL


# What a start refuses


def refused(start: Start, toml: str) -> str:
    server = start(toml, wait=False)
    server.expect_error("flashpy: ")
    server.expected_status = 1
    assert server.wait() == 1
    return server.stderr


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = refused(start, config(server=f'listen = ["{address}"]'))
    assert text == f"flashpy: cannot listen on {address}: the address is in use by another program\n"


def test_more_cache_than_memory_is_told_at_start_and_at_a_reload(start: Start) -> None:
    server = start(config())
    assert not any("[cache]" in line for line in server.log_lines())
    reload(server, config() + '[cache]\nmemory = "1TiB"\n')
    server.wait_log("[warning] [cache] memory, 1TiB for each of 1 worker, is more than the ")
    server.wait_log("reloaded")


def test_a_pidfile_of_a_living_process(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(str(os.getpid()))
    server = start(config(server=f'pidfile = "{path}"'), wait=False)
    server.expect_error("which is running")
    server.expected_status = 1
    assert server.wait() == 1
    assert path.read_text() == str(os.getpid())
    path.unlink()


def test_a_log_that_cannot_be_opened(start: Start, tmp_path: Path) -> None:
    text = refused(start, f'[log]\nerror = "{tmp_path}/none/error.log"')
    assert text == f"flashpy: {tmp_path}/none/error.log: no such file or directory\n"


def test_too_few_descriptors_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(f'[server]\nlisten = ["127.0.0.1:0"]\n[[site]]\nroot = "{tmp_path}"')
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "helpers")])
    result = subprocess.run(
        ["sh", "-c", 'ulimit -n 5000; exec "$@"', "sh", sys.executable, *STANDIN, str(file)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "connections = 10000 needs" in result.stderr
    assert "the hard limit is 5000" in result.stderr


def test_the_soft_limit_is_raised(start: Start) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = start()
    limits = resource.prlimit(server.workers()[0], resource.RLIMIT_NOFILE)
    assert limits == (hard, hard)


# Deaths


def test_a_killed_worker_is_replaced_and_nothing_counted_is_lost(start: Start) -> None:
    server = start()
    server.expect_error("killed by SIGKILL")
    for _ in range(5):
        pid = facts(server)["pid"]
    os.kill(pid, signal.SIGKILL)
    new_workers(server, [pid], 1)
    assert facts(server)["pid"] != pid
    server.stop()
    counters = server.counters()
    # What a worker counted since its last word to the scoreboard goes with it.
    assert counters["requests"] >= 5
    assert counters["connections_open"] == 0
    assert counters["restarts"] == 1


def test_the_others_serve_while_one_is_replaced(start: Start) -> None:
    server = start(config(workers=2))
    server.expect_error("killed by SIGKILL")
    first, second = server.workers()
    os.kill(first, signal.SIGKILL)
    assert facts(server)["pid"] != first
    assert second in new_workers(server, [first], 2)


def test_a_crash_is_logged_without_its_source(start: Start) -> None:
    server = start(config(behaviour="crash"))
    server.expect_error("RuntimeError: as it was told")
    server.expect_error("exit status 70")
    old = server.workers()
    with server.connect() as client:
        client.send(b"x")
        assert client.read_to_end() == b""
    line = server.wait_log("RuntimeError: as it was told")
    assert "raise" not in line
    new_workers(server, old, 1)


def test_a_stuck_worker_is_replaced(start: Start) -> None:
    server = start(config(behaviour="stuck", server="worker_timeout = 1"))
    server.expect_error("made no turn for")
    server.expect_error("killed by SIGABRT")
    old = server.workers()
    with server.connect() as client:
        client.send(b"x")
        new_workers(server, old, 1)


@pytest.mark.slow
def test_a_late_master_forgives_once(start: Start) -> None:
    server = start(config(server="worker_timeout = 1"))
    old = server.workers()
    # Wait for the end of the ticks of 0.1 s, then let both sleep as a suspended machine does.
    server.wait_log("started")
    for pid in (server.pid, *old):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(7)
    os.kill(server.pid, signal.SIGCONT)
    time.sleep(0.5)
    os.kill(old[0], signal.SIGCONT)
    assert facts(server)["pid"] == old[0]
    server.signal(signal.SIGTTIN)
    server.wait_log("2 workers wanted")
    assert old[0] in server.workers()


def test_a_killed_log_helper_is_replaced(start: Start) -> None:
    server = start(config(workers=2))
    server.expect_error("the log helper")
    (old,) = wait_until(lambda: server.named("flashpy-log"))
    os.kill(old, signal.SIGKILL)
    server.wait_log("the log helper")
    (new,) = server.named("flashpy-log")
    assert new != old
    for _ in range(4):
        facts(server)
    wait_until(lambda: server.access.read_text().count("GET /") == 4)
    server.stop()
    assert server.counters()["log_helper_restarts"] == 1


def test_a_killed_spawner_is_replaced_and_knows_the_roots(start: Start) -> None:
    server = start(config(workers=2))
    server.expect_error("the spawner")
    (old,) = server.named("flashpy-spawner")
    os.kill(old, signal.SIGKILL)
    server.wait_log("the spawner")
    (new,) = wait_until(lambda: server.named("flashpy-spawner"))
    assert new != old
    for _ in range(4):
        assert facts(server)["helper"] > 0


def test_services_that_die_again_and_again_are_replaced_later(start: Start) -> None:
    server = start()
    server.expect_error("the spawner")
    for when in ("at once", "in 1 s"):
        (pid,) = wait_until(lambda: server.named("flashpy-spawner"))
        os.kill(pid, signal.SIGKILL)
        server.wait_log(f"replaced {when}")
    assert facts(server)["helper"] > 0


# Signals


def test_ttin_and_ttou(start: Start) -> None:
    server = start(config(workers=1))
    first = server.workers()
    for wanted in (2, 3):
        server.signal(signal.SIGTTIN)
        server.wait_log(f"{wanted} workers wanted")
    assert set(first) <= set(wait_until(lambda: len(server.workers()) == 3 and server.workers()))
    for words, count in (("2 workers", 2), ("1 worker", 1), ("1 worker", 2)):
        server.signal(signal.SIGTTOU)
        server.wait_log(f"{words} wanted", count)
    wait_until(lambda: len(server.workers()) == 1)
    assert server.workers() == first


def test_usr1_opens_the_logs_again(start: Start) -> None:
    server = start(config(workers=2))
    facts(server)
    wait_until(lambda: server.access.read_text().count("\n") == 1)
    moved = server.folder / "access.1"
    server.access.rename(moved)
    server.log.rename(server.folder / "error.1")
    server.signal(signal.SIGUSR1)
    server.wait_log("logs reopened")
    wait_until(lambda: len(server.named("flashpy-log")) == 1, "the old log helper")
    for _ in range(4):
        facts(server)
    wait_until(lambda: server.access.read_text().count("\n") == 4)
    assert moved.read_text().count("\n") == 1


def test_usr1_that_cannot_open_keeps_the_old(start: Start) -> None:
    server = start()
    server.expect_error("logs not reopened")
    moved = server.folder / "access.1"
    server.access.rename(moved)
    server.access.mkdir()
    server.signal(signal.SIGUSR1)
    server.wait_log("logs not reopened")
    facts(server)
    wait_until(lambda: moved.read_text().count("\n") == 1)


def test_stray_signals_do_nothing(start: Start) -> None:
    server = start()
    old = server.workers()
    for number in (signal.SIGUSR2, signal.SIGWINCH, signal.SIGPIPE, signal.SIGCHLD):
        server.signal(number)
    assert facts(server)["pid"] in old


# Reload


def test_reload_brings_new_workers_on_the_same_socket(start: Start) -> None:
    server = start(config(workers=2))
    old = server.workers()
    reload(server, config(workers=3, charset="latin-1"))
    new_workers(server, old, 3)
    assert facts(server)["charset"] == "latin-1"
    server.stop()
    assert server.counters()["reloads"] == 1
    assert server.stdout.count("\n") == 1


def test_no_connection_is_lost_by_a_reload(start: Start) -> None:
    server = start(config(workers=2))
    answers = []
    for number in range(4):
        reload(server, config(workers=2, charset=f"c{number}"))
        wait_until(lambda: answers.append(facts(server)) or answers[-1]["charset"] == f"c{number}")  # type: ignore[func-returns-value]  # noqa: B023
    server.wait_log("reloaded", 4)
    server.stop()
    assert server.counters()["requests"] == len(answers)


@pytest.mark.parametrize(
    "text",
    ["[server", "[server]\nworkers = 0", "[server]\nwrokers = 1"],
    ids=["toml", "range", "key"],
)
def test_a_bad_configuration_keeps_the_old(start: Start, text: str) -> None:
    server = start()
    server.expect_error("not reloaded")
    old = server.workers()
    server.file.write_text(text)
    server.signal(signal.SIGHUP)
    assert str(server.file) in server.wait_log("not reloaded")
    assert facts(server)["pid"] in old
    assert server.workers() == old


@pytest.mark.parametrize("behaviour", ["die", "mute"])
def test_new_workers_that_do_not_boot_keep_the_old(start: Start, behaviour: str) -> None:
    server = start(config(workers=2), env={"BOOT_SECONDS": "3"})
    for text in ("not reloaded", "not ready within"):
        server.expect_error(text)
    old = server.workers()
    reload(server, config(workers=2, behaviour=behaviour, charset="new"))
    server.wait_log("not reloaded")
    wait_until(lambda: sorted(server.workers()) == sorted(old), "only the old workers")
    assert facts(server)["charset"] == ""
    server.stop()
    assert server.counters()["reloads_failed"] == 1
    assert server.counters()["restarts"] == 0


def test_an_address_that_cannot_be_bound_keeps_the_old(start: Start, tmp_path: Path) -> None:
    server = start()
    server.expect_error("not reloaded")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        reload(server, config(server=f'listen = ["unix:{tmp_path}/s", "{address}"]'))
        assert address in server.wait_log("not reloaded")
    assert not (tmp_path / "s").exists()
    assert facts(server)["pid"] in server.workers()


def test_listeners_come_and_go(start: Start, tmp_path: Path) -> None:
    first, second = f"{tmp_path}/1", f"{tmp_path}/2"
    server = start(config(server=f'listen = ["127.0.0.1:0", "unix:{first}"]'))
    old = server.workers()
    reload(server, config(server=f'listen = ["unix:{second}", "127.0.0.1:0"]'))
    server.wait_log("reloaded")
    new_workers(server, old, 1)
    assert not Path(first).exists()
    assert facts(server)["pid"] in server.workers()
    with Client(second) as client:
        client.send(b"x")
        assert client.read_reply().status == 200
    server.stop()
    assert not Path(second).exists()


def test_a_second_hup_is_remembered_once(start: Start) -> None:
    server = start(env={"BOOT_SECONDS": "2"})
    server.expect_error("not reloaded")
    reload(server, config(behaviour="mute"))
    server.wait_log("reloading")
    for _ in range(3):
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGTTIN)
        server.wait_log("workers wanted")
    server.wait_log("not reloaded", 2)
    server.signal(signal.SIGUSR1)
    server.wait_log("logs reopened")
    assert sum("reloading" in line for line in server.log_lines()) == 2


def test_a_new_log_path_is_used_by_all(start: Start) -> None:
    server = start()
    before = server.folder / "access.log"
    after = server.folder / "after.log"
    reload(server, config() + f'\n[log]\naccess = "{after}"')
    server.wait_log("reloaded")
    wait_until(lambda: len(server.workers()) == 1)
    facts(server)
    wait_until(lambda: after.exists() and after.read_text().count("\n") == 1)
    assert before.read_text() == ""


def test_a_new_pidfile_replaces_the_old(start: Start) -> None:
    server = start(config(server='pidfile = "first.pid"'))
    first, second = server.folder / "first.pid", server.folder / "second.pid"
    assert first.read_text() == f"{server.pid}\n"
    reload(server, config(server='pidfile = "second.pid"'))
    server.wait_log("reloaded")
    assert second.read_text() == f"{server.pid}\n"
    assert not first.exists()
    server.stop()
    assert not second.exists()


def test_reload_does_not_wait_for_a_worker_that_drains(start: Start) -> None:
    server = start(config(behaviour="deaf", server="graceful_timeout = 60"))
    old = server.workers()
    for number in (1, 2):
        reload(server, config(charset=f"c{number}"))
        server.wait_log("reloaded", number)
    assert set(old) < set(server.workers())
    os.kill(old[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 1)


def test_roots_keep_their_numbers_over_a_reload(start: Start, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    mounts = 'mount = [{{ at = "/m/", root = "{0}/{1}" }}, {{ at = "/n/", root = "{0}/{2}" }}]'
    server = start(config() + mounts.format(tmp_path, "a", "b"))
    assert facts(server)["roots"] == [0, 1, 2]
    reload(server, config(charset="x") + mounts.format(tmp_path, "b", "c"))
    wait_until(lambda: facts(server)["charset"] == "x")
    assert facts(server)["roots"] == [0, 2, 3]


# Rights and descriptors


@needs_root
def test_everything_but_the_master_drops_its_rights(start: Start) -> None:
    server = start(config(workers=2, server='user = "nobody"'))
    tree = server.tree()
    (uid, *others), (gid, *_), groups = facts(server)["rights"]
    assert others == [uid, uid]
    assert uid != 0
    for pid in tree:
        status = Path(f"/proc/{pid}/status").read_text()
        if pid != server.pid:
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
            assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in status
            assert "NoNewPrivs:\t1\n" in status
    assert 0 not in groups
    server.stop()
    assert "root without" not in server.log.read_text()


@needs_root
def test_root_without_user_is_warned_once(start: Start) -> None:
    server = start(config(workers=2))
    assert "root" in server.wait_log("[warning]")
    server.stop()
    assert len([line for line in server.log_lines() if "[warning]" in line]) == 1


@needs_root
def test_another_user_needs_a_restart(start: Start) -> None:
    server = start(config(server='user = "nobody"'))
    server.expect_error("not reloaded")
    old = server.workers()
    reload(server, config(server='user = "daemon"'))
    assert "needs a restart" in server.wait_log("not reloaded")
    assert server.workers() == old


def test_a_worker_holds_its_heritage_and_nothing_else(start: Start, tmp_path: Path) -> None:
    server = start(config(workers=3, server=f'listen = ["127.0.0.1:0", "unix:{tmp_path}/s"]'))
    for pid in server.workers():
        held = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        standard = [name for name in held if not name.startswith("socket:")]
        # 2 listeners, 4 channels, 2 of the wakeup, 1 to its helper; 0 and 1, and 2 for tracebacks.
        assert len(held) - len(standard) == 2 + 4 + 2 + 1
        assert sorted(standard) == ["/dev/null", "/dev/null", str(server.folder / "stderr")]


def test_standard_output_may_be_closed(start: Start) -> None:
    shut = "import os, sys, runpy; os.close(0); sys.argv = sys.argv[1:]; "
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    server = start(program=("-c", shut + run, *STANDIN))
    assert facts(server)["pid"] in server.workers()


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    """Also for a worker, and for what is told before there is a log helper."""
    (tmp_path / "www").mkdir()
    command = [sys.executable, "-m", "flashpy", "serve", "www", "--listen", "127.0.0.1:0", "--workers", "1"]
    closed = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0<&- 2>&-', "sh", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'helpers'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert closed.stdout is not None
    with closed, closed.stdout:
        assert closed.stdout.readline().startswith("flashpy: listening on http://127.0.0.1:")
        closed.terminate()
        assert closed.wait(SECONDS) == 0


def test_ctrl_c_in_the_terminal_loses_no_line(start: Start) -> None:
    server = start(config(workers=2))
    facts(server)
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    assert server.counters()["requests"] == 1
    assert server.access.read_text().count("\n") == 1


def test_reloads_and_deaths_leave_the_master_as_it_was(start: Start) -> None:
    server = start(config(workers=2))
    server.expect_error("ended: killed by SIGKILL")

    def held() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    before = held()
    for number in range(3):
        old = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded", number + 1)
        server.signal(signal.SIGUSR1)
        server.wait_log("logs reopened", number + 1)
        new_workers(server, old, 2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_log("killed by SIGKILL")
    wait_until(lambda: len(server.workers()) == 2 and held() == before, "descriptors")
    assert held() == before
