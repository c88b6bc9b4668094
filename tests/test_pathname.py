"""Jobs done in this process on real files: what each path ends in."""

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpy_helpers import pathname, wire
from flashpy_helpers.disk import identity
from flashpy_helpers.wire import Answer, Check, Failure, Found, Identity, Load, Lookup, Root, Siblings

INDEX = (b"index.html", b"index.htm")


class Site:
    """A root, memory for content, and jobs on them."""

    def __init__(self, path: Path, symlinks: int = wire.INSIDE) -> None:
        self.path = path
        self.memory = bytearray(1 << 16)
        self.roots = {7: Root(os.fsencode(path), INDEX, symlinks)}

    def lookup(
        self,
        path: str,
        room: int = 4096,
        known: Identity | None = None,
        order: bytes | None = None,
        siblings: Siblings = (),
    ) -> Answer:
        job = Lookup(1, 7, os.fsencode(path), 100, room, known, order, siblings)
        return pathname.do(job, self.roots, memoryview(self.memory))

    def load(self, path: str, version: Identity, start: int, length: int) -> Answer:
        job = Load(2, 7, os.fsencode(path), version, start, length, 100)
        return pathname.do(job, self.roots, memoryview(self.memory))

    def check(self, *expected: tuple[str, Identity | int]) -> tuple[int, ...]:
        return self.check_all(*((path, outcome, None) for path, outcome in expected))

    def check_all(self, *expected: tuple[str, Identity | int, Siblings | None]) -> tuple[int, ...]:
        job = Check(3, 7, tuple((os.fsencode(path), *rest) for path, *rest in expected))  # type: ignore[misc]
        answer = pathname.do(job, self.roots, memoryview(self.memory))
        assert isinstance(answer, wire.Changed)
        assert answer.id == 3
        return answer.positions

    def verdict(self, path: str) -> int:
        answer = self.lookup(path)
        assert isinstance(answer, Failure)
        return answer.verdict

    def identity(self, path: str) -> Identity:
        return identity((self.path / path).stat())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "bare").mkdir()
    (root / "a.html").write_bytes(b"0123456789" * 1000)
    (root / "empty").touch()
    (root / "docs/index.htm").write_bytes(b"index")
    before = len(os.listdir("/proc/self/fd"))
    yield Site(root)
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_is_found_with_its_first_bytes(site: Site) -> None:
    answer = site.lookup("a.html")
    assert answer == Found(1, site.identity("a.html"), b"a.html", 4096)
    content = (site.path / "a.html").read_bytes()
    assert bytes(site.memory) == bytes(100) + content[:4096] + bytes(len(site.memory) - 4196)


def test_small_and_empty_files_fill_what_they_have(site: Site) -> None:
    assert site.lookup("a.html", 20_000) == Found(1, site.identity("a.html"), b"a.html", 10_000)
    assert site.lookup("empty") == Found(1, site.identity("empty"), b"empty", 0)


def test_facts_alone_can_be_asked_for(site: Site) -> None:
    assert site.lookup("a.html", 0) == Found(1, site.identity("a.html"), b"a.html", 0)
    assert not any(site.memory)


def test_known_version_is_not_read_again(site: Site) -> None:
    version = site.identity("a.html")
    assert site.lookup("a.html", known=version) == wire.Unchanged(1)
    assert not any(site.memory)
    os.utime(site.path / "a.html", ns=(0, 1))
    answer = site.lookup("a.html", known=version)
    assert answer == Found(1, site.identity("a.html"), b"a.html", 4096)
    assert site.identity("a.html") != version


def test_folder_is_answered_by_its_index_file(site: Site) -> None:
    found = Found(1, site.identity("docs/index.htm"), b"docs/index.htm", 5)
    assert site.lookup("docs/") == found
    assert site.verdict("docs") == wire.FOLDER
    assert site.verdict("bare/") == site.verdict("") == wire.NO_INDEX
    (site.path / "docs/index.html").mkdir()  # not a file: the next one counts
    assert site.lookup("docs/") == found
    (site.path / "index.html").write_bytes(b"root")
    assert site.lookup("") == Found(1, site.identity("index.html"), b"index.html", 4)


def test_missing_paths(site: Site) -> None:
    os.symlink("loop", site.path / "loop")
    for path in ("none", "docs/none", "a.html/", "a.html/x", "loop", "n" * 256, "d/" * 5000):
        assert site.verdict(path) == wire.MISSING
    for path in ("..", "../site/a.html", "/etc/passwd", "a.html\0"):
        assert site.verdict(path) == wire.MISSING
    assert site.lookup("none") == Failure(1, wire.MISSING, errno.ENOENT)


def test_links_out_are_refused(site: Site) -> None:
    os.symlink("/etc/passwd", site.path / "out")
    os.symlink(site.path / "a.html", site.path / "in")
    os.symlink("../out", site.path / "docs/index.html")
    assert site.verdict("out") == site.verdict("docs/") == wire.REFUSED
    assert isinstance(site.lookup("in"), Found)
    deny = Site(site.path, wire.DENY)
    assert deny.verdict("in") == wire.REFUSED
    assert isinstance(deny.lookup("a.html"), Found)
    assert isinstance(Site(site.path, wire.FOLLOW).lookup("out"), Found)


def test_special_files_are_missing_and_nothing_waits_for_them(site: Site) -> None:
    os.mkfifo(site.path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(site.path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        assert site.verdict("fifo") == site.verdict("socket") == wire.MISSING
    devices = Site(Path("/dev"))
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
    assert devices.verdict("zero") == devices.verdict("tty") == wire.MISSING


def test_unreadable_file_is_refused(site: Site) -> None:
    (site.path / "a.html").chmod(0)
    (site.path / "bare").chmod(0)
    version = site.identity("a.html")
    pid = os.fork()
    if not pid:
        try:
            # By its descriptor, for only the owner may enter the folders above.
            here = Site(Path(f"/proc/self/fd/{os.open(site.path, os.O_RDONLY)}"))
            if not os.geteuid():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            assert isinstance(here.lookup("docs/"), Found)
            for path in ("a.html", "bare/x", "bare/"):
                assert here.verdict(path) == wire.REFUSED
            assert here.check(("a.html", wire.REFUSED), ("a.html", version)) == ()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    (site.path / "bare").chmod(0o755)


def test_unknown_root_and_foreign_memory_are_bugs_of_the_caller(site: Site) -> None:
    with pytest.raises(KeyError):
        pathname.do(Lookup(1, 8, b"", 0, 0, None), site.roots, memoryview(b""))
    with pytest.raises(ValueError, match="outside"):
        site.lookup("a.html", len(site.memory) - 99)


def test_root_that_is_gone_is_a_verdict(site: Site) -> None:
    site.path.rename(site.path.parent / "away")
    assert site.lookup("a.html") == Failure(1, wire.NO_ROOT, errno.ENOENT)
    assert site.check(("a.html", wire.MISSING), ("b", wire.NO_INDEX)) == (1,)
    site.path.write_bytes(b"no folder")
    assert site.lookup("a.html") == Failure(1, wire.NO_ROOT, errno.ENOTDIR)


def test_load_reads_ranges_of_exactly_this_version(site: Site) -> None:
    version = site.identity("a.html")
    content = (site.path / "a.html").read_bytes()
    assert site.load("a.html", version, 3000, 500) == wire.Loaded(2, 500)
    assert bytes(site.memory[100:600]) == content[3000:3500]
    assert site.load("a.html", version, 9999, 500) == wire.Loaded(2, 1)
    assert site.load("a.html", version, 10_000, 500) == wire.Loaded(2, 0)
    (site.path / "new").write_bytes(content)
    (site.path / "new").rename(site.path / "a.html")
    assert site.load("a.html", version, 0, 500) == Failure(2, wire.MOVING, 0)
    (site.path / "a.html").unlink()
    assert site.load("a.html", version, 0, 500) == Failure(2, wire.MISSING, errno.ENOENT)


def test_check_names_what_differs(site: Site) -> None:
    a, index = site.identity("a.html"), site.identity("docs/index.htm")
    expected = (
        ("a.html", a),
        ("docs/", index),
        ("docs/index.htm", index),
        ("docs", wire.FOLDER),
        ("bare/", wire.NO_INDEX),
        ("none", wire.MISSING),
    )
    assert site.check(*expected) == ()
    (site.path / "none").write_bytes(b"now")
    (site.path / "docs/index.html").write_bytes(b"first")
    (site.path / "a.html").chmod(0o600)
    (site.path / "bare").rmdir()
    assert site.check(*expected) == (0, 1, 4, 5)
    assert site.check() == ()


BR, ZSTD, GZIP, BARE = wire.BR, wire.ZSTD, wire.GZIP, wire.IDENTITY


def sibling(site: Site, suffix: str, content: bytes, *, older: int = 0) -> Identity:
    """A sibling of a.html, as old as it or older by so many nanoseconds."""
    path = site.path / f"a.html{suffix}"
    path.write_bytes(content)
    mtime = site.identity("a.html").mtime_ns - older
    os.utime(path, ns=(mtime, mtime))
    return identity(path.stat())


def test_siblings_come_with_the_file_and_the_best_is_read(site: Site) -> None:
    version = site.identity("a.html")
    br, gz = sibling(site, ".br", b"brotli"), sibling(site, ".gz", b"zipped")
    both = ((BR, br), (GZIP, gz))
    assert site.lookup("a.html", order=bytes((ZSTD, GZIP, BR, BARE))) == Found(
        1, version, b"a.html", 6, GZIP, both, b""
    )
    assert bytes(site.memory[100:106]) == b"zipped"
    assert site.lookup("a.html", order=bytes((BR,))) == Found(1, version, b"a.html", 6, BR, both, b"")
    assert bytes(site.memory[100:106]) == b"brotli"
    assert site.lookup("a.html", order=bytes((BARE, BR))) == Found(1, version, b"a.html", 4096, BARE, both, b"")
    assert site.lookup("a.html", order=bytes((ZSTD,))) == Found(1, version, b"a.html", 4096, BARE, both, b"")
    assert site.lookup("a.html") == Found(1, version, b"a.html", 4096, BARE, (), b"")
    assert site.lookup("a.html", known=version, order=b"", siblings=both) == wire.Unchanged(1)
    assert isinstance(site.lookup("a.html", known=version, order=b"", siblings=both[:1]), Found)


def test_siblings_of_an_index_file(site: Site) -> None:
    (site.path / "docs/index.htm.zst").write_bytes(b"small")
    answer = site.lookup("docs/", order=bytes((ZSTD, BARE)))
    assert isinstance(answer, Found)
    assert (answer.path, answer.coding, answer.filled) == (b"docs/index.htm", ZSTD, 5)


def test_a_sibling_that_is_older_is_told_and_not_used(site: Site) -> None:
    br, _ = sibling(site, ".br", b"brotli"), sibling(site, ".gz", b"zipped", older=1)
    answer = site.lookup("a.html", order=bytes((GZIP, BARE)))
    assert answer == Found(1, site.identity("a.html"), b"a.html", 4096, BARE, ((BR, br),), bytes((GZIP,)))


def test_what_is_no_sibling(site: Site, tmp_path: Path) -> None:
    """A folder, a FIFO, a link out of the root: the file itself is served."""
    (tmp_path / "outside").write_bytes(b"secret")
    (site.path / "a.html.br").mkdir()
    os.mkfifo(site.path / "a.html.zst")
    (site.path / "a.html.gz").symlink_to("../outside")
    answer = site.lookup("a.html", order=bytes((BR, ZSTD, GZIP)))
    assert answer == Found(1, site.identity("a.html"), b"a.html", 4096, BARE, (), b"")


def test_check_looks_at_siblings_only_when_they_matter(site: Site) -> None:
    version = site.identity("a.html")
    assert site.check_all(("a.html", version, None), ("a.html", version, ())) == ()
    br = sibling(site, ".br", b"brotli")
    assert site.check_all(("a.html", version, None), ("a.html", version, ())) == (1,)
    assert site.check_all(("a.html", version, ((BR, br),))) == ()
    sibling(site, ".br", b"another")
    assert site.check_all(("a.html", version, ((BR, br),))) == (0,)
    sibling(site, ".br", b"brotli", older=1)
    assert site.check_all(("a.html", version, ())) == ()


def test_clean_paths(site: Site) -> None:
    site.roots = {7: site.roots[7]._replace(clean=True)}
    (site.path / "docs.html").write_bytes(b"page")
    (site.path / "bare.html").mkdir()
    (site.path / "both").write_bytes(b"file")
    (site.path / "both.html").write_bytes(b"page")
    assert [
        answer.path for path in ("a", "docs", "docs/", "both") if isinstance(answer := site.lookup(path), Found)
    ] == [
        b"a.html",
        b"docs.html",
        b"docs/index.htm",
        b"both",
    ]
    assert site.verdict("bare") == wire.FOLDER
    assert site.verdict("a/") == wire.MISSING
    assert site.verdict("none") == wire.MISSING


def test_errors_become_verdicts() -> None:
    for number, outcome in {
        errno.EMFILE: wire.BUSY,
        errno.ENOMEM: wire.BUSY,
        errno.EIO: wire.BROKEN,
        errno.EACCES: wire.REFUSED,
        errno.ESTALE: wire.MOVING,
    }.items():
        assert pathname.verdict(OSError(number, "")) == outcome


def test_no_descriptors_left_is_busy(site: Site) -> None:
    pid = os.fork()
    if not pid:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                os.dup(0)
        except OSError:
            code = site.verdict("a.html")
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == wire.BUSY
