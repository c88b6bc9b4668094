"""The command `precompress` as a user runs it: what it writes, what it leaves alone, and how it ends."""

import contextlib
import gzip
import json
import os
import pty
import random
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import brotli
import pytest

from flashpy.precompress import siblings
from flashpy.precompress.plan import Act, File, Mode, Plan
from flashpy.precompress.summary import shown
from flashpy_helpers.codings import Coding, compress, decoded, matches
from tests.conftest import StartServer
from tests.needs import needs, needs_root, without
from tests.server import wait_until
from tests.test_cli import ENVIRONMENT, command, run

TEXT = b"".join(b"line %d of a text that shrinks\n" % number for number in range(500))
SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
OLD = 1_600_000_000_123_456_789
SECONDS = 100


class Done(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str


def precompress(*arguments: str | Path) -> Done:
    """Run it to its end; it must not fail by an exception."""
    done = Done(*run("precompress", *arguments))
    assert "Traceback" not in done.errors
    return done


def summary(*arguments: str | Path) -> dict[str, Any]:
    """What it says for programs."""
    found: dict[str, Any] = json.loads(precompress("--json", *arguments).output)
    return found


def write(path: Path, content: bytes = TEXT, mtime_ns: int = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def files(root: Path) -> dict[str, bytes]:
    """All regular files under a folder, by their relative names."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def noise(size: int) -> bytes:
    """What does not shrink, the same each time."""
    return random.Random(size).randbytes(size)


def slow_text() -> bytes:
    """What takes brotli's best some seconds."""
    words = [bytes(random.Random(seed).choices(b"abcdefghijklmnop", k=6)) for seed in range(3000)]
    return b" ".join(random.Random(1).choices(words, k=500_000))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    write(root / "index.html")
    write(root / "docs/deep/a.css", TEXT * 3)
    return root


def test_siblings_decode_and_have_their_originals_time_and_mode(site: Path) -> None:
    (site / "index.html").chmod(0o640)
    done = precompress(site)
    assert (done.status, done.errors) == (0, "")
    assert re.match(r"2 files in [0-9.]+ s; siblings: 6 written, 0 up to date, 0 not worth it\n", done.output)
    assert len(files(site)) == 8
    for original in (site / "index.html", site / "docs/deep/a.css"):
        facts = original.stat()
        for coding, suffix in SUFFIXES.items():
            sibling = original.with_name(original.name + suffix)
            assert b"".join(decoded(coding, sibling.read_bytes())) == original.read_bytes()  # type: ignore[arg-type]
            assert sibling.stat().st_mtime_ns == facts.st_mtime_ns == OLD
            assert stat.S_IMODE(sibling.stat().st_mode) == stat.S_IMODE(facts.st_mode)
            assert sibling.stat().st_size < facts.st_size / 2
    assert gzip.decompress((site / "index.html.gz").read_bytes()) == TEXT
    assert brotli.decompress((site / "index.html.br").read_bytes()) == TEXT


def test_a_second_run_writes_nothing(site: Path) -> None:
    precompress(site)
    before = {path: path.stat().st_ino for path in site.rglob("*")}
    found = summary(site)
    assert (found["files"], found["written"], found["current"]) == (2, 0, 6)
    assert {path: path.stat().st_ino for path in site.rglob("*")} == before


def test_force_makes_the_same_bytes_anew(site: Path) -> None:
    precompress(site)
    before, inode = files(site), (site / "index.html.br").stat().st_ino
    kept = (site / "index.html.br").open()  # so that its number is not given again
    with kept:
        assert summary("--force", site)["written"] == 6
        assert (site / "index.html.br").stat().st_ino != inode
    assert files(site) == before


def test_the_same_bytes_whatever_the_processes_names_and_times(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for number, path in enumerate((site / "index.html", site / "docs/deep/a.css")):
        write(other / path.relative_to(site), path.read_bytes(), OLD + 10**10 * (number + 1))
    precompress("--jobs", "1", site)
    precompress("--jobs", "4", other)
    assert files(site) == files(other)


def test_what_gets_none(tmp_path: Path) -> None:
    root, outside = tmp_path / "site", write(tmp_path / "outside/o.txt")
    for name in ("a.png", "a.zip", "a.txt.gz", "a.js.br", "a.svgz", ".hidden.txt", ".git/a.txt", "noextension"):
        write(root / name)
    write(root / "small.txt", TEXT[:1023])
    write(root / "empty.txt", b"")
    write(root / "sub/.well-known/a.txt")
    (root / "link.txt").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.txt")
    (root / "folder.txt").mkdir()
    before = set(files(tmp_path))
    found = summary(root)
    assert (found["files"], found["problems"]) == (0, [])
    assert set(files(tmp_path)) == before


def test_what_is_served_gets_some(tmp_path: Path) -> None:
    for name in ("UPPER.HTML", "a b.svg", ".well-known/security.txt", "just.txt", "x.wasm", "gr\u00fc\u00dfe.json"):
        write(tmp_path / "site" / name, TEXT[:1024])
    strange = os.fsencode(tmp_path / "site") + b"/bad\xff\nname.txt"
    Path(os.fsdecode(strange)).write_bytes(TEXT)
    assert summary("--codings", "gzip", tmp_path / "site")["written"] == 7
    with gzip.open(os.fsdecode(strange + b".gz")) as file:
        assert file.read() == TEXT


def test_options_choose(site: Path) -> None:
    write(site / "tiny.txt", b"aaaa" * 10)
    found = summary("--codings", "zstd, br", "--min-size", "40", site)
    assert (found["files"], found["written"], sorted(found["codings"])) == (3, 6, ["br", "zstd"])
    assert not list(site.rglob("*.gz"))
    assert summary("--codings", "gzip", "--min-size", "2MiB", site)["files"] == 0


def test_a_folder_by_a_link_and_twice_is_one(site: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(site)
    found = summary(tmp_path / "current", site, site / "docs")
    assert (found["files"], found["written"]) == (2, 6)


def test_what_does_not_shrink_by_a_twentieth_gets_none(tmp_path: Path) -> None:
    write(tmp_path / "site/noise.txt", noise(5000))
    write(tmp_path / "site/nearly.txt", noise(5000) + bytes(200))
    write(tmp_path / "site/enough.txt", noise(5000) + bytes(500))
    found = summary(tmp_path / "site")
    assert (found["written"], found["useless"], found["problems"]) == (3, 6, [])
    assert {name for name in files(tmp_path / "site") if not name.endswith(".txt")} == {
        f"enough.txt{suffix}" for suffix in SUFFIXES.values()
    }


def test_ours_that_is_not_worth_it_any_more_goes_and_no_other(tmp_path: Path) -> None:
    root, data = tmp_path / "site", noise(5000)
    for name in ("ours.txt", "theirs.txt", "older.txt"):
        write(root / name, data)
    write(root / "ours.txt.gz", gzip.compress(data))
    write(root / "theirs.txt.gz", b"something else")
    write(root / "older.txt.gz", gzip.compress(data), OLD - 1)
    found = summary("--force", root)
    assert (found["removed"], found["left"], found["written"]) == (1, 2, 0)
    assert set(files(root)) == {"ours.txt", "theirs.txt", "theirs.txt.gz", "older.txt", "older.txt.gz"}


def test_what_is_older_is_made_anew(site: Path) -> None:
    precompress(site)
    write(site / "index.html", TEXT[::-1], OLD + 1)
    found = summary(site)
    assert (found["written"], found["current"]) == (3, 3)
    assert gzip.decompress((site / "index.html.gz").read_bytes()) == TEXT[::-1]


def test_one_that_is_empty_is_made_anew(site: Path) -> None:
    """As a power cut may leave it."""
    precompress(site)
    sibling = write(site / "index.html.br", b"")
    assert summary(site)["written"] == 1
    assert brotli.decompress(sibling.read_bytes()) == TEXT


def test_what_is_newer_stays_if_it_decodes_to_its_original(site: Path) -> None:
    theirs = write(site / "index.html.gz", gzip.compress(TEXT, 1), OLD + 10**9)
    write(site / "docs/deep/a.css.gz", gzip.compress(TEXT), OLD + 10**9)  # the original went back a version
    before = theirs.read_bytes()
    found = summary("--codings", "gzip", site)
    assert (found["written"], found["current"]) == (1, 1)
    assert theirs.read_bytes() == before
    assert gzip.decompress((site / "docs/deep/a.css.gz").read_bytes()) == TEXT * 3


def test_what_is_no_regular_file_stays(site: Path) -> None:
    (site / "index.html.br").mkdir()
    (site / "index.html.gz").symlink_to("nowhere")
    done = precompress(site)
    assert done.status == 1
    assert done.errors.splitlines() == [
        f"flashpy: {site}/index.html.{suffix}: is no regular file" for suffix in ("br", "gz")
    ]
    assert (site / "index.html.gz").is_symlink()
    assert (site / "index.html.zst").is_file()


def test_check_names_what_is_wrong_and_touches_nothing(site: Path) -> None:
    precompress(site)
    done = precompress("--check", site)
    assert (done.status, done.errors) == (0, "")
    assert "siblings: 6 right, 0 wrong\n" in done.output
    write(site / "index.html.br", (site / "index.html.br").read_bytes()[:-1])
    write(site / "index.html.gz", gzip.compress(TEXT[1:]))
    write(site / "docs/deep/a.css.zst", (site / "docs/deep/a.css.zst").read_bytes(), OLD - 1)
    before = files(site)
    done = precompress("--check", site)
    assert done.status == 1
    assert done.errors.splitlines() == [
        f"flashpy: {site}/docs/deep/a.css.zst: is older than its original",
        f"flashpy: {site}/index.html.br: does not decode to its original",
        f"flashpy: {site}/index.html.gz: does not decode to its original",
    ]
    assert "siblings: 3 right, 3 wrong\n" in done.output
    assert files(site) == before


def test_check_looks_at_what_is_there(site: Path) -> None:
    """None missing is a fault, small files count, and what has no original or is no text is not looked at."""
    write(site / "small.txt", b"x")
    write(site / "small.txt.gz", b"broken")
    write(site / "archive.tar", TEXT)
    write(site / "archive.tar.gz", b"another thing")
    write(site / "alone.txt.gz", b"a file of its own")
    found = summary("--check", site)
    assert (found["files"], found["right"], found["wrong"]) == (1, 0, 1)


def test_clean_removes_ours_only(site: Path) -> None:
    precompress(site)
    write(site / "index.html.br", b"not ours")
    write(site / "index.html.gz", gzip.compress(TEXT), OLD + 1)
    write(site / "archive.tar", TEXT)
    write(site / "archive.tar.gz", gzip.compress(TEXT))
    done = precompress("--clean", site)
    assert (done.status, done.errors) == (0, "")
    assert "siblings: 4 removed, 2 not ours\n" in done.output
    left = {"index.html", "index.html.br", "index.html.gz", "archive.tar", "archive.tar.gz", "docs/deep/a.css"}
    assert set(files(site)) == left


def test_a_dry_run_says_and_does_not(site: Path) -> None:
    before = files(site)
    done = precompress("--dry-run", "--codings", "br", site)
    assert done.status == 0
    first, second, total, *_ = done.output.splitlines()
    assert re.fullmatch(rf"would write {site}/docs/deep/a\.css\.br \([0-9,]+ of [0-9,]+ bytes\)", first)
    assert second.startswith(f"would write {site}/index.html.br (")
    assert "siblings, had this been no dry run: 2 written" in total
    assert files(site) == before
    precompress("--codings", "br", site)
    before = files(site)
    assert precompress("--clean", "--dry-run", site).output.startswith(f"would remove {site}/docs/deep/a.css.br\n")
    assert files(site) == before


def test_json_has_the_figures(site: Path) -> None:
    found = summary("--codings", "gzip,br", site)
    assert found.pop("seconds") > 0
    sizes = {coding: [path.stat().st_size for path in site.rglob(f"*{SUFFIXES[coding]}")] for coding in ("br", "gzip")}
    assert found.pop("codings") == {
        coding: {"siblings": 2, "before": 4 * len(TEXT), "after": sum(size)} for coding, size in sizes.items()
    }
    counts = {"written": 4, "current": 0, "useless": 0, "left": 0, "removed": 0, "changed": 0, "failed": 0}
    assert found == {"mode": "make", "dry_run": False, "interrupted": False, "files": 2, **counts, "problems": []}


def test_quiet_says_only_what_went_wrong(site: Path) -> None:
    (site / "index.html.br").mkdir()
    assert precompress("--quiet", site) == (1, "", f"flashpy: {site}/index.html.br: is no regular file\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either folders or a configuration"),
        ([".", "-c", "x.toml"], "give either folders or a configuration"),
        (["nowhere"], "does not exist"),
        ([".", "--codings", "br,lzma"], "'lzma' is none of br, zstd, gzip"),
        ([".", "--min-size", "1k"], "'1k' is no size"),
        ([".", "--jobs", "0"], "not in the range"),
        ([".", "--check", "--clean"], "exclude each other"),
        ([".", "--check", "--force"], "exclude each other"),
        (["-c", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_usage_is_status_2(arguments: Sequence[str], words: str) -> None:
    status, output, errors = precompress(*arguments)
    assert (status, output) == (2, "")
    assert words in errors


def test_the_roots_of_a_configuration(tmp_path: Path) -> None:
    for name in ("one/a.txt", "one/.dot/a.txt", "mounted/a.special", "two/a.txt"):
        write(tmp_path / name)
    file = tmp_path / "site.toml"
    file.write_text(
        '[[site]]\nroot = "one"\ntypes = { special = "text/plain", txt = "application/octet-stream" }\n'
        '[[site.mount]]\nat = "/m/"\nroot = "mounted"\n'
        '[[site]]\nhosts = ["two.example"]\nroot = "two"\nprecompressed = false\n'
        '[[site]]\nhosts = ["three.example"]\nroot = "one/.dot"\n'
    )
    assert summary("-c", file, "--codings", "gzip")["written"] == 2
    assert {name for name in files(tmp_path) if name.endswith(".gz")} == {"mounted/a.special.gz", "one/.dot/a.txt.gz"}
    file.write_text('[[site]]\nroot = "two"\nprecompressed = false\n')
    assert precompress("-c", file) == (2, "", f"flashpy: {file}: no site has precompressed = true\n")
    file.write_text('[[site]]\nroot = "gone"\n')
    assert precompress("-c", file)[0::2] == (1, f"flashpy: {tmp_path}/gone: No such file or directory\n")


@needs_root()
def test_the_owner_is_the_originals(site: Path) -> None:
    os.chown(site / "index.html", 1234, 4321)
    precompress(site)
    facts = (site / "index.html.br").stat()
    assert (facts.st_uid, facts.st_gid) == (1234, 4321)


def run_as(words: Sequence[str]) -> Done:
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@needs("setpriv")
def test_what_cannot_be_read_is_told_and_the_rest_done(site: Path) -> None:
    write(site / "secret.txt").chmod(0)
    write(site / "closed/a.txt").parent.chmod(0)
    done = run_as([*without("dac_override", "dac_read_search"), *command("precompress", site)])
    (site / "closed").chmod(0o755)
    assert done.status == 1
    assert done.errors.splitlines() == [
        f"flashpy: {site}/closed: Permission denied",
        f"flashpy: {site}/secret.txt: Permission denied",
    ]
    assert "3 files in" in done.output
    assert "6 written, 0 up to date, 0 not worth it, 1 failed" in done.output


@needs("setpriv")
@needs_root()
def test_where_the_group_may_not_be_given_ours_may_do_what_all_may(site: Path) -> None:
    os.chown(site / "index.html", 0, 4321)
    (site / "index.html").chmod(0o664)
    assert run_as([*without("chown"), *command("precompress", site)]).status == 0
    facts = (site / "index.html.br").stat()
    assert (facts.st_gid == 4321, stat.S_IMODE(facts.st_mode)) == (False, 0o644)


@needs("prlimit")
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write(root / "a.txt", noise(5000) + bytes(5000))
    older = write(root / "a.txt.gz", b"the older one", OLD - 1)
    write(root / "b.txt")
    done = run_as(["prlimit", "--fsize=4000", *command("precompress", root, "--codings", "gzip")])
    assert (done.status, done.errors) == (1, f"flashpy: {older}: File too large\n")
    assert older.read_bytes() == b"the older one"
    assert set(files(root)) == {"a.txt", "a.txt.gz", "b.txt", "b.txt.gz"}


class Running:
    """A command under way, in a process group of its own."""

    def __init__(self, *arguments: str | Path, signals: str = "--default-signal") -> None:
        """`signals` is env's option: what a shell or nohup had ignored would stay so."""
        self.process = subprocess.Popen(
            ["env", signals, *command("precompress", *arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def children(self) -> list[int]:
        """In the order of their start."""
        pid = self.process.pid
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def holder(self, file: Path) -> int:
        """The child that has the file open; 0 if none has."""
        for child in self.children():
            with contextlib.suppress(OSError):
                if any(os.readlink(link) == str(file) for link in Path(f"/proc/{child}/fd").iterdir()):
                    return child
        return 0

    def wait_holder(self, file: Path) -> int:
        return int(wait_until(lambda: self.holder(file), f"a process that has {file}"))

    def end(self) -> Done:
        output, errors = self.process.communicate(timeout=SECONDS)
        return Done(self.process.returncode, output, errors)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(*arguments: str | Path, **options: str) -> Running:
        started.append(Running(*arguments, **options))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.fixture
def slow(site: Path) -> Path:
    return write(site / "slow.txt", slow_text())


def test_a_process_that_dies_is_named_and_the_rest_done(site: Path, slow: Path, start: Callable[..., Running]) -> None:
    running = start("--jobs", "1", site)
    child = running.wait_holder(slow)
    os.kill(child, signal.SIGKILL)
    done = running.end()
    assert done.status == 1
    assert done.errors == f"flashpy: {slow}: process {child} died of it: killed by SIGKILL\n"
    assert "6 written, 0 up to date, 0 not worth it, 1 failed" in done.output
    assert len(files(site)) == 9


@needs("strace")
def test_what_a_process_that_dies_was_writing_goes(site: Path) -> None:
    """Each dies when it is about to give its first file its name."""
    kill = "inject=renameat,renameat2,rename:signal=KILL:error=EIO:when=1"
    tracing = ["strace", "-f", "-q", "-o", os.devnull, "-e", "trace=renameat,renameat2,rename", "-e", kill]
    done = run_as([*tracing, *command("precompress", site)])
    assert (done.status, len(re.findall("killed by SIGKILL", done.errors))) == (1, 2)
    assert set(files(site)) == {"index.html", "docs/deep/a.css"}


STOPPED = """if True:
    import os, select, signal
    from flashpy.precompress import forks

    forks_of = forks.Forks(2, 2, lambda job, child: b"%d" % os.getpid())
    results = forks_of.results()
    children = {int(next(results).answer)}
    own = os.getpid()
    with open(f"/proc/{own}/task/{own}/children") as file:
        (other,) = map(int, file.read().split())
    (end,) = forks_of._busy
    select.select([end], [], [])
    late = []
    signal.signal(signal.SIGALRM, lambda *_: (late.append(other), os.kill(other, signal.SIGCONT)))
    os.kill(other, signal.SIGSTOP)
    signal.alarm(30)
    children |= {int(done.answer) for done in results}
    print(len(children), late)
"""


def test_a_process_that_is_stopped_with_nothing_left_to_do_is_not_waited_for() -> None:
    """It has given its last answer, which nobody has read yet."""
    done = run_as([sys.executable, "-c", STOPPED])
    assert done == (0, "2 []\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_and_leaves_nothing_half_done(
    site: Path, slow: Path, start: Callable[..., Running], number: int, status: int
) -> None:
    running = start("--jobs", "2", site)
    child = running.wait_holder(slow)
    wait_until(lambda: all((site / f"index.html{suffix}").exists() for suffix in SUFFIXES.values()))
    os.killpg(running.process.pid, number)  # as a terminal does it
    done = running.end()
    assert (done.status, done.errors) == (status, "")
    assert re.match(r"interrupted after (1 file|2 files) in [0-9.]+ s; siblings: [36] written", done.output)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert {Path(name).suffix for name in files(site)} == {".html", ".css", ".txt", ".br", ".zst", ".gz"}
    assert not list(site.rglob(".*"))


def test_what_its_starter_had_ignored_stays_so(site: Path, slow: Path, start: Callable[..., Running]) -> None:
    """nohup is to help."""
    running = start("--jobs", "1", "--codings", "br", site, signals="--ignore-signal=HUP")
    running.wait_holder(slow)
    os.killpg(running.process.pid, signal.SIGHUP)
    done = running.end()
    assert (done.status, done.errors) == (0, "")
    assert "siblings: 3 written" in done.output


def test_its_processes_end_when_it_is_killed(site: Path, slow: Path, start: Callable[..., Running]) -> None:
    running = start("--jobs", "1", "--codings", "br", site)
    running.wait_holder(slow)
    running.process.kill()
    running.end()  # the end of its output is the end of the last process that has it
    assert not list(site.rglob(".*"))
    assert set(files(site)) >= {"slow.txt", "slow.txt.br"}


def test_what_changes_meanwhile_gets_none(site: Path, slow: Path, start: Callable[..., Running]) -> None:
    running = start("--jobs", "1", site)
    running.wait_holder(slow)
    write(slow, TEXT, OLD + 1)
    done = running.end()
    assert (done.status, done.errors) == (0, "")
    assert "6 written, 0 up to date, 0 not worth it, 1 file changed meanwhile" in done.output
    assert not list(site.glob("slow.txt.*"))


@pytest.mark.parametrize("mode", ["make", "check", "clean"])
def test_a_sibling_that_is_exchanged_while_it_is_judged_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """Decoding a long one takes seconds. The other siblings of the file are judged all the same."""
    content = noise(3000)  # not worth it, so `make` removes them
    original = write(tmp_path / "a.txt", content)
    exchanged, other = (
        write(tmp_path / f"a.txt{SUFFIXES[coding]}", compress(coding, content, "best")) for coding in ("br", "gzip")
    )

    def decode(coding: Coding, data: bytes, wanted: bytes) -> bool:
        if coding == "br":
            write(tmp_path / "theirs", b"somebody else's").rename(exchanged)
        return matches(coding, data, wanted)

    monkeypatch.setattr(siblings, "matches", decode)
    plan = Plan(mode, ("br", "gzip"), force=True)
    first, second = siblings.work(plan, File(str(tmp_path), "", original.name, len(content)), "draft")
    assert first == Act("br", "changed")
    assert (second.coding, second.outcome) == ("gzip", "right" if mode == "check" else "removed")
    assert exchanged.read_bytes() == b"somebody else's"
    assert other.exists() == (mode == "check")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_does_its_work_without_standard_descriptors(site: Path, closed: str) -> None:
    done = run_as(["sh", "-c", f'exec "$@" {closed}', "sh", *command("precompress", site)])
    assert (done.status, done.errors) == (0, "")
    assert len(files(site)) == 8


def test_standard_output_that_cannot_be_written(site: Path) -> None:
    done = run_as(["sh", "-c", 'exec "$@" >/dev/full', "sh", *command("precompress", site)])
    assert done == (1, "", "flashpy: standard output: No space left on device\n")


def test_a_bar_on_a_terminal_only(site: Path) -> None:
    near, far = pty.openpty()
    try:
        done = subprocess.run(
            command("precompress", "--json", site),
            stdout=subprocess.PIPE,
            stderr=far,
            env={**ENVIRONMENT, "TERM": "xterm"},
            timeout=SECONDS,
            check=True,
        )
        shown_there = os.read(near, 65536).decode()
    finally:
        os.close(near)
        os.close(far)
    assert json.loads(done.stdout)["written"] == 6
    assert "precompressing" in shown_there
    assert "100%" in shown_there


def test_a_server_sends_what_was_written(start_server: StartServer, site: Path) -> None:
    server = start_server(root=site)
    assert precompress("-c", server.file).status == 0
    for path, content in (("/", TEXT), ("/docs/deep/a.css", TEXT * 3)):
        for coding, suffix in SUFFIXES.items():
            reply = server.get(path, {"Accept-Encoding": coding})
            assert (reply.status, reply.headers["content-encoding"]) == (200, coding)
            assert reply.headers["vary"] == "Accept-Encoding"
            name = path.lstrip("/") or "index.html"
            assert reply.body == (site / f"{name}{suffix}").read_bytes()
            assert b"".join(decoded(coding, reply.body)) == content  # type: ignore[arg-type]


def test_a_name_cannot_forge_a_line() -> None:
    assert shown("/a\n\x1b[2J\udcff\u00fc") == "/a\\n\\x1b[2J\\xff\u00fc"


def test_a_path_of_the_topmost_root() -> None:
    assert File("/", "", "a.txt", 1).path == "/a.txt"
    assert File("/", "b/c", "a.txt", 1).path == "/b/c/a.txt"
    assert File("/srv", "", "a.txt", 1).path == "/srv/a.txt"


def test_the_compressors_are_not_loaded_to_serve() -> None:
    code = "import sys, flashpy.arbiter; print([name for name in sys.modules if 'brotli' in name or 'zstd' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "[]\n"
    assert compress("gzip", TEXT, "fast")  # and are, on demand
