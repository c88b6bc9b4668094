"""The command as a user runs it: a process, its exit status, its two outputs."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import flashpy
from flashpy import cli
from flashpy.config import ConfigError, load

REPOSITORY = Path(__file__).parent.parent
# As from a bare checkout, where nothing is installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'helpers'}"}
SECONDS = 60


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "flashpy", *map(str, arguments)]


def run(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=ENVIRONMENT,
        cwd=cwd,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration with a root, on a port that the kernel chooses."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_text("hello\n")
    file = tmp_path / "site.toml"
    file.write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\nworkers = 1\n'
        '[log]\naccess = "off"\nerror = "error.log"\n[[site]]\nroot = "www"\n'
    )
    return file


def test_version() -> None:
    assert run("--version") == (0, f"flashpy {flashpy.__version__}\n", "")


def test_version_loads_nothing_of_the_server() -> None:
    code = (
        "import sys; from flashpy.cli import main; main(['--version'], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith(('flashpy.', 'msgspec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "['flashpy.cli']"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve"], "give either a folder or a configuration"),
        (["serve", ".", "-c", "x.toml"], "give either a folder or a configuration"),
        (["serve", ".", "--workers", "two"], "'two' is not a valid integer"),
        (["serve", ".", "--port", "80"], "No such option"),
        (["check"], "Missing option '-c'"),
        (["config"], "Missing option '-c'"),
        (["sreve"], "No such command 'sreve'"),
    ],
)
def test_bad_usage_is_status_2(arguments: Sequence[str], words: str) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert words in errors
    assert "Traceback" not in errors


def test_check_says_ok_and_what_it_is(site: Path) -> None:
    status, output, errors = run("check", "-c", site)
    assert (status, errors) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(site))}: ok\n"
        r"1 site on 127\.0\.0\.1:0; 1 worker with [0-9]+[KMGT]iB of cache each\n",
        output,
    )


def test_more_cache_than_memory_is_a_warning(site: Path) -> None:
    """No mistake: the file may be for a larger machine."""
    site.write_text(site.read_text() + '[cache]\nmemory = "1TiB"\n')
    status, output, errors = run("check", "-c", site)
    assert (status, output.count("\n")) == (0, 2)
    assert errors.startswith("flashpy: warning: [cache] memory, 1TiB for each of 1 worker, is more than the ")


def test_a_mistake_is_one_line_with_file_line_and_key(site: Path) -> None:
    site.write_text(site.read_text() + "simlinks = 'deny'\n")
    for command_name in ("check", "config", "serve"):
        assert run(command_name, "-c", site) == (
            2,
            "",
            f"flashpy: {site}:9: site[0].simlinks: unknown key; did you mean 'symlinks'?\n",
        )


def test_a_missing_configuration_is_status_2(tmp_path: Path) -> None:
    file = tmp_path / "absent.toml"
    words = f"flashpy: {file}: cannot be read: no such file or directory\n"
    assert run("check", "-c", file) == (2, "", words)


def test_a_missing_root_is_status_2(site: Path, tmp_path: Path) -> None:
    (tmp_path / "www").rename(tmp_path / "web")
    words = f"flashpy: {site}:8: site[0].root: {tmp_path}/www does not exist\n"
    assert run("check", "-c", site) == (2, "", words)
    assert run("serve", "-c", site) == (2, "", words)
    words = f"flashpy: {tmp_path}/www does not exist\n"
    assert run("serve", "www", cwd=tmp_path) == (2, "", words)


def test_a_bad_option_is_status_2(site: Path) -> None:
    status, output, errors = run("serve", "-c", site, "--listen", "localhost")
    assert (status, output) == (2, "")
    assert errors.startswith('flashpy: --listen: expected "host:port", "[v6]:port" or "unix:PATH"')
    assert run("serve", "-c", site, "--workers", "0")[0] == 2


def test_config_prints_what_loads_as_the_same(site: Path, tmp_path: Path) -> None:
    status, output, errors = run("config", "-c", site)
    assert (status, errors) == (0, "")
    again = tmp_path / "again.toml"
    again.write_text(output)
    assert load(again) == load(site)


def test_a_port_in_use_is_status_1(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, output, errors = run("serve", "-c", site, "--listen", address)
    assert (status, output) == (1, "")
    assert re.fullmatch(rf"flashpy: .*{re.escape(address)}.*in use.*\n", errors)


@pytest.mark.parametrize("by_folder", [True, False])
def test_serve_says_where_it_listens_and_serves(site: Path, by_folder: bool) -> None:
    what = [site.parent / "www"] if by_folder else ["-c", site]
    arguments = command("serve", *what, "--listen", "127.0.0.1:0", "--workers", "1")
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            match = re.fullmatch(r"flashpy: listening on http://127\.0\.0\.1:([0-9]+)\n", line)
            assert match is not None, line
            assert b"hello\n" in fetch(int(match[1]), "/a.txt")
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0


def fetch(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_options_hold_when_the_configuration_is_read_again(site: Path) -> None:
    read = cli._reader_of_file(site, ("[::1]:0",), 3)
    first = read()
    site.write_text(site.read_text().replace("workers = 1", "workers = 2\nbacklog = 7"))
    second = read()
    for settings in (first, second):
        assert [listen.address for listen in settings.server.listen] == ["[::1]:0"]
        assert settings.server.workers == 3
    assert (first.server.backlog, second.server.backlog) == (2048, 7)
    (site.parent / "www/a.txt").unlink()
    (site.parent / "www").rmdir()
    with pytest.raises(ConfigError, match="does not exist"):
        read()


@pytest.mark.parametrize(
    ("module", "more", "key", "library"),
    [
        ("brotli", 'compress = ["gzip", "br"]', "compress[1]", "brotli"),
        ("backports", 'compress = ["zstd"]', "compress[0]", "backports.zstd"),
        ("bcrypt", "rule = [{ match = '/a', auth = { htpasswd = 'users' } }]", "rule[0].auth", "bcrypt"),
    ],
)
def test_a_library_that_is_missing_is_named(site: Path, module: str, more: str, key: str, library: str) -> None:
    """Not by every request that comes for it. Python takes a module that is None for one that is not there."""
    with site.open("a") as file:
        file.write(f"{more}\n")
    status, output, errors = run_without(module, "check", "-c", site)
    assert (status, output) == (2, "")
    assert errors == f"flashpy: {site}:9: site[0].{key}: needs the library {library}, which is not installed\n"


def test_precompress_without_a_library(site: Path) -> None:
    status, _, errors = run_without("brotli", "precompress", site.parent / "www")
    assert status == 1
    assert errors.startswith("flashpy: ")
    assert errors.endswith(": install it, or leave out what needs it (--codings)\n")
    assert "brotli" in errors
    assert run_without("brotli", "precompress", "--codings", "gzip", site.parent / "www")[0] == 0


def run_without(module: str, *arguments: str | Path) -> tuple[int, str, str]:
    """As `run`, where these modules cannot be imported."""
    names = [module, "compression"] if module == "backports" else [module]
    code = f"import sys; sys.modules.update(dict.fromkeys({names})); from flashpy.cli import main; main()"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT, check=False)
    return done.returncode, done.stdout, done.stderr
