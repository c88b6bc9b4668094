"""Opening under a root: both by openat2 and by the component walk, with hostile trees."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy_helpers import beneath
from flashpy_helpers.wire import DENY, FOLLOW, INSIDE

Open = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "docs/deep").mkdir(parents=True)
    (root / "a.html").write_text("a")
    (root / "docs/b.html").write_text("b")
    (root / "docs/deep/c.html").write_text("c")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("key")
    return root


@pytest.fixture(params=["openat2", "walk"])
def read(request: pytest.FixtureRequest, site: Path) -> Iterator[Open]:
    """Read a file of the site, or give the name of the error."""

    def read(path: str | bytes, symlinks: int = INSIDE, root: Path = site) -> str:
        fds = [beneath.open_root(os.fsencode(root))]
        walk = request.param == "walk"
        try:
            fds.append(beneath.open_path(fds[0], os.fsencode(path), symlinks, walk=walk))
            if os.path.isdir(f"/proc/self/fd/{fds[-1]}"):
                return "folder"
            fds.append(beneath.open_file(fds[0], os.fsencode(path), symlinks, fds[-1], walk=walk))
            return os.read(fds[-1], 100).decode()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        finally:
            for fd in fds:
                os.close(fd)

    before = os.listdir("/proc/self/fd")
    yield read
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_files_and_folders_are_found(read: Open) -> None:
    assert read("a.html") == "a"
    assert read("docs/deep/c.html") == "c"
    assert read("docs//deep/./c.html") == "c"
    assert read("") == read("docs") == read("docs/") == read("docs/deep/.") == "folder"


def test_what_is_not_there_is_told_apart(read: Open) -> None:
    assert read("none") == read("docs/none") == read("none/none") == "ENOENT"
    assert read("a.html/") == read("a.html/x") == read("a.html/.") == "ENOTDIR"
    assert read("n" * 255) == "ENOENT"
    assert read("n" * 256) == "ENAMETOOLONG"
    assert read("d/" * 2048 + "x") == "ENAMETOOLONG"


def test_path_itself_never_leaves(read: Open, site: Path) -> None:
    for policy in (INSIDE, DENY, FOLLOW):
        for path in ("..", "../secret/key", "docs/../../secret/key", "docs/..", "/etc/passwd"):
            assert read(path, policy) == "ENOENT"
        assert read(b"a.html\0.jpg", policy) == "ENOENT"
        assert read(bytes(site / "a.html"), policy) == "ENOENT"
    assert read("..a.html") == "ENOENT"
    (site / "..a.html").write_text("dots")
    assert read("..a.html") == "dots"


@pytest.mark.parametrize(
    ("target", "inside"),
    [
        ("../a.html", "a"),
        ("deep/../b.html", "b"),
        ("deep/../../docs/./deep/c.html", "c"),
        ("deep", "folder"),
        ("..", "folder"),
        ("{root}/a.html", "a"),
        ("{root}/docs/deep/../b.html", "b"),
        ("{root}", "folder"),
        ("{root}/", "folder"),
        ("{alias}/a.html", "a"),
        ("../../site/a.html", "a"),
        ("{root}/../site/docs/b.html", "b"),
        ("../../secret/key", "EXDEV"),
        ("{root}/../secret/key", "EXDEV"),
        ("{root}-other/key", "EXDEV"),
        ("../..", "EXDEV"),
        ("/etc/passwd", "EXDEV"),
        ("/", "EXDEV"),
        ("/proc/self/root/etc/passwd", "EXDEV"),
        ("none", "ENOENT"),
        ("{root}/none", "ENOENT"),
        ("../a.html/", "ENOTDIR"),
        ("link", "ELOOP"),
    ],
)
def test_link_is_followed_only_inside(read: Open, site: Path, target: str, inside: str) -> None:
    (site.parent / "site-other").mkdir()
    (site.parent / "site-other/key").write_text("key")
    (site.parent / "alias").symlink_to(site)
    target = target.format(root=site, alias=site.parent / "alias")
    os.symlink(target, site / "docs/link")
    assert read("docs/link") == inside
    assert read("docs/link", DENY) == "EXDEV"
    if inside == "EXDEV":
        assert read("docs/link", FOLLOW) in ("key", "folder") or "etc/passwd" in target
    else:
        assert read("docs/link", FOLLOW) == inside


def test_linked_folder_is_followed_only_inside(read: Open, site: Path) -> None:
    os.symlink("docs", site / "relative")
    os.symlink(site / "docs", site / "absolute")
    os.symlink("../secret", site / "out")
    assert read("relative/deep/c.html") == read("absolute/deep/c.html") == "c"
    assert read("absolute") == read("relative/") == "folder"
    assert read("out/key") == "EXDEV"
    assert read("out/key", FOLLOW) == "key"
    for path in ("relative/b.html", "absolute/b.html", "out/key"):
        assert read(path, DENY) == "EXDEV"


def test_loops_and_long_chains_end(read: Open, site: Path) -> None:
    os.symlink("two", site / "one")
    os.symlink(site / "one", site / "two")
    assert read("one") == "ELOOP"
    os.symlink("../a.html", site / "docs/0")
    for n in range(1, 42):
        os.symlink(str(n - 1), site / f"docs/{n}")
    assert read("docs/39") == "a"
    assert read("docs/41") == "ELOOP"


def test_link_that_climbs_for_ever_ends(read: Open, site: Path) -> None:
    folder = site
    for n in range(20):
        folder = folder / str(n)
        folder.mkdir()
    (folder / "up").symlink_to("../19/" * 600 + "../../../../../../../up")
    assert read("/".join(str(n) for n in range(20)) + "/up") in ("ENOENT", "ELOOP")


def test_magic_links_are_not_followed_out(read: Open, site: Path) -> None:
    os.symlink("/proc/self/cwd", site / "cwd")
    os.symlink("/proc/self/fd/0", site / "stdin")
    assert read("cwd") in ("EXDEV", "ELOOP")
    assert read("stdin") in ("EXDEV", "ELOOP", "ENOENT")
    assert read("stdin", DENY) == "EXDEV"
    assert read("self/root/etc/passwd", INSIDE, Path("/proc")) in ("EXDEV", "ELOOP")


def test_root_that_is_a_link_is_followed_afresh(read: Open, site: Path) -> None:
    current = site.parent / "current"
    current.symlink_to(site)
    os.symlink(current / "a.html", site / "by_current")
    assert read("a.html", DENY, current) == "a"
    assert read("by_current", INSIDE, current) == "a"
    (site.parent / "new").symlink_to(site.parent / "secret")
    os.replace(site.parent / "new", current)
    assert read("key", DENY, current) == "key"
    assert read("a.html", DENY, current) == "ENOENT"


def test_root_of_all_can_be_the_root(read: Open, site: Path) -> None:
    os.symlink(site / "a.html", site / "absolute")
    inside = str(site / "absolute").removeprefix("/")
    assert read(inside, INSIDE, Path("/")) == "a"


def test_very_deep_tree_is_found(read: Open, site: Path) -> None:
    names = "/".join(["d" * 20] * 150)
    (site / names).mkdir(parents=True)
    (site / names / "f").write_text("deep")
    os.symlink("../" * 10 + "f", site / names / "up")
    assert read(names + "/f") == "deep"
    assert read(names + "/up") == "ENOENT"


def test_special_files_are_only_looked_at(read: Open, site: Path) -> None:
    os.mkfifo(site / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(site, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        root = beneath.open_root(os.fsencode(site))
        for name in (b"fifo", b"socket"):
            # An O_PATH descriptor: opening a FIFO for reading would wait for a writer.
            fd = beneath.open_path(root, name, INSIDE)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.read(fd, 1)
            os.close(fd)
        os.close(root)


def test_without_proc_the_file_is_opened_by_its_path_again(site: Path) -> None:
    os.symlink(site / "a.html", site / "link")
    root = beneath.open_root(os.fsencode(site))
    found = beneath.open_path(root, b"link", INSIDE)
    none = str(site / "none")
    for walk in (False, True):
        fd = beneath.open_file(root, b"link", INSIDE, found, walk=walk, proc=none)
        assert os.read(fd, 9) == b"a"
        os.close(fd)
        with pytest.raises(OSError, match="another file"):
            beneath.open_file(root, b"docs/b.html", INSIDE, found, walk=walk, proc=none)
    for fd in (found, root):
        os.close(fd)


NAMES = st.sampled_from(["a", "b", "d", "e", ".", "..", "", "in", "out", "abs", "top", "loop"])


@settings(max_examples=150, deadline=None)
@given(path=st.lists(NAMES, max_size=6).map("/".join), policy=st.sampled_from([INSIDE, DENY]))
def test_walk_agrees_with_the_kernel(tmp_path_factory: pytest.TempPathFactory, path: str, policy: int) -> None:
    base = tmp_path_factory.getbasetemp() / "agree"
    if not base.exists():
        (base / "root/d/e").mkdir(parents=True)
        (base / "root/a").write_text("a")
        (base / "root/d/b").write_text("b")
        for name, target in {
            "in": "d/e/..",
            "d/in": "../a",
            "d/e/top": "../..",
            "out": "../x",
            "loop": "loop",
            "d/out": "../../..",
            "top": ".",
            "d/e/abs": "../in",
            "abs": "in/e/top/d",
        }.items():
            os.symlink(target, base / "root" / name)
    root = beneath.open_root(bytes(base / "root"))
    outcomes = []
    for walk in (False, True):
        try:
            fd = beneath.open_path(root, path.encode(), policy, walk=walk)
        except OSError as error:
            outcomes.append((error.errno, 0))
        else:
            outcomes.append((0, os.fstat(fd).st_ino))
            os.close(fd)
    os.close(root)
    assert outcomes[0] == outcomes[1]
