"""`watch = true`: a change shows long before anything would be looked at again.

What is known here stays fresh for an hour, so only the watcher explains that a change shows at all.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import brotli
import pytest

from tests.conftest import StartServer
from tests.crowd import only
from tests.needs import needs_root
from tests.server import Server, wait_until
from tests.web import serving

HOUR = '[cache]\nrevalidate = "1h"\nmax_stale = "1h"\n'
WATCHED = HOUR + "[[site]]\nwatch = true\nclean_urls = true\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A watched site; each test has a folder of its own in it."""
    with serving(tmp_path_factory.mktemp("watch"), WATCHED) as server:
        yield server


@pytest.fixture
def place(server: Server, request: pytest.FixtureRequest) -> Path:
    """An empty folder of the site."""
    place = server.root / str(abs(hash(request.node.nodeid)))
    place.mkdir()
    return place


def url(server: Server, path: Path | str) -> str:
    """As a client asks for a file, or a folder."""
    path = Path(path)
    return f"/{path.relative_to(server.root)}" + "/" * path.is_dir()


def known(server: Server, path: Path | str, expected: str | int) -> None:
    """It is served so, from memory: the second and third time nobody looks."""
    for _ in range(3):
        assert answer(server, path) == expected


def answer(server: Server, path: Path | str) -> str | int:
    """The text at a path, or the status that is no success."""
    reply = server.get(path if isinstance(path, str) else url(server, path))
    return reply.body.decode() if reply.status == 200 else reply.status


def shows(server: Server, path: Path | str, expected: str | int) -> None:
    """It is served so soon, and stays so."""
    wait_until(lambda: answer(server, path) == expected, f"{expected!r} at {path}")
    known(server, path, expected)


def put(path: Path, content: str | bytes) -> None:
    """By rename."""
    draft = path.with_name("draft")
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    draft.rename(path)


def watcher_of(server: Server) -> int:
    """The process that watches, when it does."""
    file = server.root / "probe"
    answer(server, "/probe")
    file.write_text("watched")
    shows(server, "/probe", "watched")
    file.write_text("surely")
    shows(server, "/probe", "surely")
    (pid,) = server.named("flashpy-watcher")
    return pid


def swap(link: Path, target: str) -> None:
    """A symbolic link exchanged for another one, in one step."""
    draft = link.with_name("draft-link")
    draft.symlink_to(target)
    draft.rename(link)


def test_changes_of_one_file(server: Server, place: Path) -> None:
    file = place / "a.txt"
    known(server, url(server, file), 404)
    file.write_text("created")
    shows(server, file, "created")
    put(file, "renamed")
    shows(server, file, "renamed")
    with file.open("r+") as handle:
        handle.write("in place")
        handle.flush()
        shows(server, file, "in place")  # while it is still open
        handle.truncate(2)
        handle.flush()
        shows(server, file, "in")
    file.unlink()
    shows(server, file, 404)


@pytest.fixture
def public() -> Iterator[Path]:
    """A root that everybody may read and only root may change."""
    folder = Path(tempfile.mkdtemp(prefix="flashpy-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@needs_root()
def test_rights_that_are_taken_away(tmp_path: Path, public: Path) -> None:
    with serving(tmp_path, '[server]\nuser = "nobody"\n' + WATCHED, root=public) as server:
        file = server.root / "a.txt"
        file.write_text("text")
        known(server, file, "text")
        file.chmod(0o600)
        shows(server, file, 403)
        file.chmod(0o644)
        shows(server, file, "text")
        (pid,) = server.named("flashpy-watcher")
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{os.stat(f'/proc/{server.workers()[0]}').st_uid}\t" in status
        assert "Uid:\t0" not in status
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status


def test_other_names_of_a_file(server: Server, place: Path) -> None:
    known(server, place, 403)
    known(server, url(server, place / "about"), 404)
    put(place / "index.html", "index")
    shows(server, place, "index")
    put(place / "index.html", "other index")
    shows(server, place, "other index")
    put(place / "about.html", "about")
    shows(server, url(server, place / "about"), "about")
    put(place / "about.html", "other")
    shows(server, url(server, place / "about"), "other")
    (place / "about").write_text("itself")
    shows(server, url(server, place / "about"), "itself")


def test_siblings(server: Server, place: Path) -> None:
    original, sibling = place / "a.css", place / "a.css.br"
    put(original, "original")
    path = url(server, original)

    def body() -> bytes:
        return server.get(path, {"Accept-Encoding": "br"}).body

    assert [body() for _ in range(3)] == [b"original"] * 3
    one, two = brotli.compress(b"original", quality=11), brotli.compress(b"original", quality=0)
    assert one != two
    put(sibling, one)
    wait_until(lambda: body() == one)
    assert [body() for _ in range(3)] == [one] * 3
    put(sibling, two)
    wait_until(lambda: body() == two)
    sibling.unlink()
    wait_until(lambda: body() == b"original")


def test_folders_that_come_go_and_move(server: Server, place: Path) -> None:
    deep = place / "one" / "two" / "three"
    file = deep / "a.txt"
    known(server, url(server, file), 404)
    deep.mkdir(parents=True)
    file.write_text("deep")
    shows(server, file, "deep")
    put(file, "changed")
    shows(server, file, "changed")
    moved = place / "moved"
    known(server, url(server, moved / "two" / "three" / "a.txt"), 404)
    (place / "one").rename(moved)
    shows(server, url(server, file), 404)
    file = moved / "two" / "three" / "a.txt"
    shows(server, file, "changed")
    put(file, "still seen")
    shows(server, file, "still seen")
    shutil.rmtree(moved)
    shows(server, url(server, file), 404)
    (moved / "two" / "three").mkdir(parents=True)
    file.write_text("back")
    shows(server, file, "back")


def test_a_folder_from_outside_and_back(server: Server, place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "new"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "a.txt").write_text("text")
    file = place / "new" / "sub" / "a.txt"
    known(server, url(server, file), 404)
    outside.rename(place / "new")
    shows(server, file, "text")
    put(file, "text 2")
    shows(server, file, "text 2")
    (place / "new").rename(outside)
    shows(server, url(server, file), 404)


def test_links_under_the_root(server: Server, place: Path) -> None:
    """As Kubernetes mounts a ConfigMap: a.txt -> ..data/a.txt, ..data -> ..1."""
    for number in (1, 2):
        (place / f"..{number}").mkdir()
        (place / f"..{number}" / "a.txt").write_text(f"version {number}")
    (place / "..data").symlink_to("..1")
    (place / "a.txt").symlink_to("..data/a.txt")
    (place / "data").symlink_to("..1")
    known(server, place / "a.txt", "version 1")
    known(server, url(server, place) + "data/a.txt", "version 1")
    swap(place / "..data", "..2")
    shows(server, place / "a.txt", "version 2")
    swap(place / "data", "..2")
    shows(server, url(server, place) + "data/a.txt", "version 2")
    (place / "data").unlink()
    shows(server, url(server, place) + "data/a.txt", 404)


def test_listings(start_server: StartServer) -> None:
    server = start_server(HOUR + '[[site]]\nwatch = true\nlisting = "json"\n')
    (server.root / "sub").mkdir()

    def listed() -> str:
        return server.get("/sub/").body.decode()

    assert '"entries":[]' in "".join(listed().split())
    (server.root / "sub" / "a.txt").write_text("four")
    wait_until(lambda: "a.txt" in listed())
    with (server.root / "sub" / "a.txt").open("a") as file:
        file.write("12345")
    wait_until(lambda: '"size":9' in "".join(listed().split()))
    (server.root / "sub" / "a.txt").unlink()
    wait_until(lambda: "a.txt" not in listed())


def release(folder: Path, number: int) -> Path:
    """A tree to switch to."""
    (folder / "public" / "docs").mkdir(parents=True)
    (folder / "public" / "a.txt").write_text(f"release {number}")
    (folder / "public" / "docs" / "index.html").write_text(f"docs {number}")
    return folder


def test_a_root_behind_a_link_that_is_switched(start_server: StartServer, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        release(tmp_path / "releases" / str(number), number)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    server = start_server(WATCHED, root=current / "public")
    known(server, "/a.txt", "release 1")
    known(server, "/docs/", "docs 1")
    for number in (2, 3):
        swap(current, f"releases/{number}")
        shows(server, "/a.txt", f"release {number}")
        shows(server, "/docs/", f"docs {number}")
        put(tmp_path / "releases" / str(number) / "public" / "docs" / "index.html", f"changed {number}")
        shows(server, "/docs/", f"changed {number}")
    (tmp_path / "releases" / "3" / "public").rename(tmp_path / "away")
    shows(server, "/a.txt", 404)
    release(tmp_path / "new", 4)
    (tmp_path / "new" / "public").rename(tmp_path / "releases" / "3" / "public")
    shows(server, "/a.txt", "release 4")
    put(tmp_path / "releases" / "3" / "public" / "a.txt", "release 4 changed")
    shows(server, "/a.txt", "release 4 changed")


def test_both_workers_hear_of_it(start_server: StartServer, docroot: Path) -> None:
    server = start_server("[server]\nworkers = 2\n" + WATCHED, root=docroot)
    workers = server.workers()
    assert len(workers) == 2
    for pid in workers:
        with only(server, pid):
            known(server, "/a.txt", "a text\n")
    put(docroot / "a.txt", "another text")
    for pid in workers:
        with only(server, pid):
            shows(server, "/a.txt", "another text")


def test_a_queue_that_was_too_short(start_server: StartServer, docroot: Path) -> None:
    server = start_server(WATCHED, root=docroot)
    (docroot / "sub").mkdir()
    pid = watcher_of(server)
    known(server, "/a.txt", "a text\n")
    known(server, "/sub/b.txt", 404)
    os.kill(pid, signal.SIGSTOP)
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with (docroot / "one").open("wb") as one, (docroot / "two").open("wb") as two:
        for _ in range(room // 2 + 100):
            os.pwrite(one.fileno(), b"x", 0)
            os.pwrite(two.fileno(), b"x", 0)
    put(docroot / "a.txt", "nobody told")
    (docroot / "sub" / "deep").mkdir()
    (docroot / "sub" / "b.txt").write_text("nobody told this either")
    known(server, "/a.txt", "a text\n")
    os.kill(pid, signal.SIGCONT)
    shows(server, "/a.txt", "nobody told")
    shows(server, "/sub/b.txt", "nobody told this either")
    put(docroot / "sub" / "deep" / "c.txt", "a folder whose making was lost")
    known(server, "/sub/deep/c.txt", "a folder whose making was lost")
    put(docroot / "sub" / "deep" / "c.txt", "is watched")
    shows(server, "/sub/deep/c.txt", "is watched")


def test_a_watcher_that_is_killed(start_server: StartServer, docroot: Path) -> None:
    server = start_server(WATCHED, root=docroot)
    pid = watcher_of(server)
    known(server, "/a.txt", "a text\n")
    os.kill(pid, signal.SIGSTOP)  # so it can tell nothing of this
    put(docroot / "a.txt", "while nobody watched")
    known(server, "/a.txt", "a text\n")
    server.expect_error("the watcher")
    os.kill(pid, signal.SIGKILL)
    server.wait_log("the watcher")
    shows(server, "/a.txt", "while nobody watched")
    put(docroot / "a.txt", "watched again")
    shows(server, "/a.txt", "watched again")
    assert server.named("flashpy-watcher") != [pid]
    assert server.stop() == 0
    assert server.counters()["watcher_restarts"] == 1


def test_reloads(start_server: StartServer, docroot: Path, tmp_path: Path) -> None:
    server = start_server(HOUR, root=docroot)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("other")
    assert server.named("flashpy-watcher") == []

    def reload(config: str, count: int) -> None:
        server.configure(config)
        server.signal(signal.SIGHUP)
        server.wait_log("reloaded:", count)

    mount = f'[[site.mount]]\nat = "/other/"\nroot = "{other}"\n'
    reload(WATCHED + mount, 1)
    wait_until(lambda: server.named("flashpy-watcher"))
    known(server, "/a.txt", "a text\n")
    known(server, "/other/a.txt", "other")
    put(docroot / "a.txt", "new")
    put(other / "a.txt", "new other")
    shows(server, "/a.txt", "new")
    shows(server, "/other/a.txt", "new other")
    watcher = watcher_of(server)
    reload(WATCHED, 2)
    assert server.named("flashpy-watcher") == [watcher]
    known(server, "/a.txt", "new")
    put(docroot / "a.txt", "newer")
    shows(server, "/a.txt", "newer")
    reload(HOUR, 3)
    wait_until(lambda: not server.named("flashpy-watcher"))
    known(server, "/a.txt", "newer")
    put(docroot / "a.txt", "nobody watches")
    known(server, "/a.txt", "newer")


def test_a_watcher_that_is_stopped_ends_when_it_is_wanted_no_more(start_server: StartServer, docroot: Path) -> None:
    server = start_server(WATCHED, root=docroot)
    os.kill(watcher_of(server), signal.SIGSTOP)
    server.configure(HOUR)
    server.signal(signal.SIGHUP)
    server.wait_log("reloaded:")
    wait_until(lambda: not server.named("flashpy-watcher"))


def test_an_unwatched_site_beside_a_watched_one(start_server: StartServer, docroot: Path, tmp_path: Path) -> None:
    config = WATCHED + f'[[site]]\nhosts = ["quiet"]\nroot = "{docroot}"\n'
    server = start_server(config, root=docroot)
    quiet = {"Host": "quiet"}
    known(server, "/a.txt", "a text\n")
    assert server.get("/a.txt", quiet).body == b"a text\n"
    put(docroot / "a.txt", "new")
    shows(server, "/a.txt", "new")
    assert server.get("/a.txt", quiet).body == b"a text\n"


def test_a_file_that_changes_all_the_time(start_server: StartServer, docroot: Path) -> None:
    """So that many a helper is at its job when it does."""
    server = start_server(WATCHED, root=docroot)
    for number in range(30):
        put(docroot / "a.txt", f"version {number}")
        server.get("/a.txt")
    shows(server, "/a.txt", "version 29")


@pytest.mark.slow
def test_how_soon_a_change_shows(server: Server, place: Path) -> None:
    """The figures are printed; held to is only that it is sooner than `revalidate` would be by default.

    A new content is read when it has rested (RESTED_NS): what comes before that the end of a file shows.
    """
    file = place / "a.txt"
    new, gone = [], []
    for number in range(100):
        new.append(measure(server, file, partial(put, file, f"{number}"), f"{number}"))
        gone.append(measure(server, file, file.unlink, 404))
    for what, waits in (("a new content", sorted(new)), ("an end", sorted(gone))):
        print(f"{what} shows after {1000 * waits[50]:.1f} ms (p50), {1000 * waits[98]:.1f} ms (p99)")
        assert waits[50] < 0.5


def measure(server: Server, file: Path, change: Callable[[], object], expected: str | int) -> float:
    """Seconds from a change to the first reply with it; what was there before was in memory."""
    path = url(server, file)
    with server.connect() as client:
        client.request(path)
        time.sleep(0.05)  # so that it is a change by itself, as most are
        change()
        began = time.monotonic()
        while True:
            reply = client.request(path)
            waited = time.monotonic() - began
            if expected in (reply.status, reply.body.decode()):
                return waited
            assert waited < 30
