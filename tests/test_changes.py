"""Files that change under the server: every whole reply is one version, and one that was there lately.

Every page of a content names its version and its place, so a mixture, a shift or a filling is seen.
A large reply that a change interrupts is cut short: what was sent is the beginning of one version.
"""

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import parse, whole_length
from tests.needs import needs_root
from tests.server import Client, Reply, Server
from tests.versions import content, version_of
from tests.web import head, serving

CHUNK = 65536
LARGE = 12_000_000
MAX_STALE = 1.0
SLACK = 1.0
"""Seconds that a noisy machine may add to what is promised."""

CONFIG = f"""
[server]
user = "nobody"
[helpers]
max = 4
[cache]
chunk = "64KiB"
memory = "1MiB"
revalidate = "200ms"
max_stale = "{MAX_STALE:.0f}s"
"""


def write(path: Path, version: int, size: int) -> None:
    """A version put in place by rename."""
    draft = path.with_name(f"draft-{path.name}")
    draft.write_bytes(content(path.name, version, size))
    draft.rename(path)


def overwrite(path: Path, version: int, size: int) -> None:
    """A version written over the old one, in one call, then cut to its size."""
    fd = os.open(path, os.O_WRONLY)
    assert os.pwrite(fd, content(path.name, version, size), 0) == size
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)
    os.close(fd)


def grow(path: Path, size: int) -> None:
    """The same version, longer."""
    with path.open("ab") as file:
        file.write(content(path.name, 1, size)[file.tell() :])


def by_folder(path: Path) -> None:
    """A folder takes its place."""
    path.unlink()
    path.mkdir()


def by_link(path: Path, target: Path) -> None:
    """A symlink takes its place."""
    path.with_name("link").symlink_to(target)
    path.with_name("link").rename(path)


CHANGES: dict[str, tuple[Callable[[Path, int], object], int]] = {
    "renamed": (lambda path, size: write(path, 2, size), 200),
    "renamed-longer": (lambda path, size: write(path, 2, size + 5000), 200),
    "same-size": (lambda path, size: overwrite(path, 2, size), 200),
    "longer": (lambda path, size: overwrite(path, 2, size + 5000), 200),
    "truncated": (lambda path, size: os.truncate(path, size // 2 + 5), 200),
    "emptied": (lambda path, size: os.truncate(path, 0), 200),
    "grown": (lambda path, size: grow(path, size + 5000), 200),
    "deleted": (lambda path, size: path.unlink(), 404),
    "unreadable": (lambda path, size: path.chmod(0), 403),
    "folder": (lambda path, size: by_folder(path), 301),
    "link-inside": (lambda path, size: by_link(path, path.with_name("another.bin")), 200),
    "link-outside": (lambda path, size: by_link(path, Path("/etc/passwd")), 403),
}  # fmt: skip


def etag_of(path: Path) -> str:
    """The ETag of what is there now."""
    facts = path.stat()
    return f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A root that nobody may read; pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="flashpy-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(public: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: each test has files of its own."""
    write(public / "another.bin", 9, 7000)
    with serving(tmp_path_factory.mktemp("changes"), CONFIG, root=public) as server:
        yield server


@needs_root()
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [30_000, 3 * CHUNK + 777])
def test_a_file_in_the_cache_changes(server: Server, public: Path, change: str, size: int) -> None:
    path = public / f"cached-{change}-{size}.bin"
    write(path, 1, size)
    old = etag_of(path)
    with server.connect() as client:
        for _ in range(5):
            reply = client.request(f"/{path.name}")
            assert (reply.headers["etag"], reply.body) == (old, content(path.name, 1, size))
        CHANGES[change][0](path, size)
        changed = time.monotonic()
        replies = []
        while time.monotonic() < changed + MAX_STALE + SLACK:
            asked = time.monotonic()
            reply = client.request(f"/{path.name}")
            if reply.status == 200 and reply.headers["etag"] == old:
                assert reply.body == content(path.name, 1, size)
                assert asked < changed + MAX_STALE + 0.05, "older than max_stale"
            else:
                replies.append(reply)
                is_the_new(path, change, reply)
            if len(replies) == 20:
                return
    raise AssertionError(f"the change was not seen: {len(replies)} new replies")


def is_the_new(path: Path, change: str, reply: Reply) -> None:
    """The reply is what the path is now, byte by byte."""
    assert reply.status == CHANGES[change][1], reply
    if reply.status == 200:
        assert reply.headers["etag"] == etag_of(path)
        assert reply.body == path.read_bytes()


@needs_root()
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_being_sent_changes(server: Server, public: Path, change: str) -> None:
    path = public / f"sent-{change}.bin"
    write(path, 1, LARGE)
    with small_window(server) as client:
        client.send(head(f"/{path.name}"))
        data = client.socket.recv(1000)
        while len(data) < 100_000:
            data += client.socket.recv(10_000)
        CHANGES[change][0](path, LARGE)
        client.pending = data
        reply, _ = read_some(client)
    assert reply is not None
    assert reply.headers["content-length"] == str(LARGE)
    body = reply.body
    assert body == content(path.name, 1, len(body)), "not the beginning of the one version"
    assert len(body) < LARGE, "the change came too late to be of interest"
    end = time.monotonic() + MAX_STALE + SLACK
    with server.connect() as client:
        reply = client.request(f"/{path.name}", method="HEAD")
        while reply.status == 200 and reply.headers["content-length"] == str(LARGE) and time.monotonic() < end:
            if reply.headers["etag"] == etag_if_there(path):
                break
            reply = client.request(f"/{path.name}", method="HEAD")
        assert reply.status == CHANGES[change][1], reply
    if path.is_file():
        path.unlink()


def etag_if_there(path: Path) -> str:
    """The ETag of a file, or nothing."""
    return etag_of(path) if path.is_file() else ""


def small_window(server: Server) -> Client:
    """A connection with a small receive buffer, so that the server must wait for the client."""
    client = server.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    return client


@pytest.mark.slow
@pytest.mark.parametrize("how", [write, overwrite])
def test_a_file_that_changes_all_the_time(
    start_server: StartServer, tmp_path: Path, how: Callable[[Path, int, int], None]
) -> None:
    """Whole replies are one version that was there within the bound; the others are cut short or errors."""
    (tmp_path / "files").mkdir()
    path, choice = tmp_path / "files" / "busy.bin", random.Random(3)
    sizes = (20_000, 400_000, 6_000_000)
    write(path, 1, sizes[0])
    config = CONFIG.replace('user = "nobody"', "workers = 2")
    server = start_server(config, root=path.parent)
    there: dict[int, tuple[float, int]] = {1: (time.monotonic(), sizes[0])}
    whole, ended = 0, time.monotonic() + 6
    client, pause = server.connect(), 0.0
    while time.monotonic() < ended:
        asked = time.monotonic()
        client.send(head("/busy.bin"))
        if asked > pause:
            version, size = max(there) + 1, choice.choice(sizes)
            if choice.random() < 0.5:
                client.pending = client.socket.recv(1 << 16)
            how(path, version, size)
            there[version] = (time.monotonic(), size)
            pause = time.monotonic() + choice.choice((0.0, 0.05, 0.4))
        reply, complete = read_some(client)
        if not complete:
            client.socket.close()
            client = server.connect()
        if reply is not None and reply.status == 200:
            version = judge(reply, there, asked, complete)
            whole += complete and version > 1
        else:
            assert reply is None or reply.status == 503
    client.socket.close()
    assert len(there) > 20
    assert whole > 20


def read_some(client: Client) -> tuple[Reply | None, bool]:
    """A reply, and whether it is whole; None when nothing came of it."""
    while not (whole := whole_length(client.pending)) or len(client.pending) < whole:
        data = client.socket.recv(1 << 20)
        if not data:
            return (parse(client.pending) if whole else None), False
        client.pending += data
    data, client.pending = client.pending, b""
    assert len(data) == whole
    return parse(data), True


def judge(reply: Reply, there: dict[int, tuple[float, int]], asked: float, complete: bool) -> int:
    """The version of a reply, which was there at most `MAX_STALE` before it was asked for."""
    if not reply.body:
        assert not complete
        return 0
    version = version_of("busy.bin", reply.body)
    size = there[version][1]
    assert int(reply.headers["content-length"]) == size or not complete, (reply.headers, size)
    assert not complete or len(reply.body) == size
    if version + 1 in there:
        replaced = there[version + 1][0]
        assert asked < replaced + MAX_STALE + SLACK, f"version {version} was gone for {asked - replaced} s"
    return version


def test_a_root_that_is_switched(start_server: StartServer, tmp_path: Path) -> None:
    """The usual way to publish: releases side by side, and a link to the current one."""
    for number in (1, 2, 3):
        (tmp_path / f"release{number}").mkdir()
        for name in ("page.bin", f"only{number}.bin"):
            write(tmp_path / f"release{number}" / name, number, 20_000)
    current = tmp_path / "current"
    current.symlink_to("release1")
    server = start_server(CONFIG.replace('user = "nobody"', ""), root=current)
    with server.connect() as client:
        assert version_of("page.bin", client.request("/page.bin").body) == 1
        for number in (2, 3):
            assert client.request(f"/only{number}.bin").status == 404
            (tmp_path / "next").symlink_to(f"release{number}")
            (tmp_path / "next").rename(current)
            switched = time.monotonic()
            while version_of("page.bin", client.request("/page.bin").body) != number:
                assert time.monotonic() < switched + MAX_STALE + SLACK
            while client.request(f"/only{number}.bin").status != 200:
                assert time.monotonic() < switched + MAX_STALE + SLACK
            while client.request(f"/only{number - 1}.bin").status != 404:
                assert time.monotonic() < switched + MAX_STALE + SLACK
