"""Roots on file systems that behave in their own ways: overlayfs (every container) and tmpfs."""

import os
import random
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.crowd import Crowd, parse
from tests.needs import needs_root
from tests.server import REPOSITORY, Reply, Server, wait_until
from tests.versions import content, version_of
from tests.web import head

pytestmark = needs_root()

MOUNTED = (str(REPOSITORY / "tests" / "mounted.py"),)
SIZES = {"small.bin": 1000, "page.bin": 20_000, "large.bin": 2_000_000}
CONFIG = """
[cache]
chunk = "64KiB"
memory = "1MiB"
revalidate = "100ms"
max_stale = "1s"
[helpers]
max = 4
"""


class Site:
    """A server, and its root as it sees it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.lower = folder / "lower"
        self.root = Path(f"/proc/{server.pid}/root{folder}/root")

    def put(self, name: str, version: int, size: int) -> None:
        """Write a version as most tools do: over the old one."""
        fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, content(name, version, size), 0)
        os.ftruncate(fd, size)
        os.close(fd)

    def is_gone(self, name: str) -> bool:
        """Whether the file is known to be missing."""
        return self.server.get(f"/{name}").status == 404

    def wait_version(self, name: str, version: int, size: int) -> None:
        """Ask until the version is served; every reply is one that was there, or its beginning."""

        def is_served() -> bool:
            with self.server.connect() as client:
                client.send(head(f"/{name}", "Connection: close"))
                reply = parse(client.read_to_end())
            assert reply.status == 200, reply
            found = version_of(name, reply.body)
            return found == version and len(reply.body) == size

        wait_until(is_served, f"version {version} of {name}", 5)


@pytest.fixture(params=["tmpfs", "overlay"])
def site(request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path) -> Site:
    """Files on one of the file systems; those of the overlay lie in its lower layer."""
    folder = tmp_path / "mounts"
    for name in ("root", "lower", "upper", "work"):
        (folder / name).mkdir(parents=True)
    for name, size in SIZES.items():
        (folder / "lower" / name).write_bytes(content(name, 1, size))
    kind = request.param
    server = start_server(CONFIG, root=folder / "root", program=MOUNTED, args=(kind, str(folder)))
    site = Site(server, folder)
    assert site.root.stat().st_dev != folder.stat().st_dev, "nothing was mounted"
    if kind == "tmpfs":
        for name, size in SIZES.items():
            site.put(name, 1, size)
    return site


def test_files_are_served_and_their_changes_seen(site: Site) -> None:
    for name, size in SIZES.items():
        site.wait_version(name, 1, size)
        site.put(name, 2, size)  # the overlay copies it up: another inode
        site.wait_version(name, 2, size)
        site.put(name, 3, size // 2)
        site.wait_version(name, 3, size // 2)
        (site.root / "draft").write_bytes(content(name, 4, size + 7))
        (site.root / "draft").rename(site.root / name)
        site.wait_version(name, 4, size + 7)
        assert site.server.get(f"/{name}").body == content(name, 4, size + 7)
        (site.root / name).unlink()
        wait_until(partial(site.is_gone, name), "it is gone", 5)
    (site.root / "folder").mkdir()
    assert site.server.get("/folder").status == 301
    (site.root / "folder" / "index.html").write_text("index")
    assert site.server.get("/folder/").body == b"index"


def test_links_do_not_leave_the_root(site: Site) -> None:
    (site.root / "inside").symlink_to("small.bin")
    (site.root / "outside").symlink_to("/etc/passwd")
    (site.root / "up").symlink_to("../lower")
    assert site.server.get("/inside").body == content("small.bin", 1, SIZES["small.bin"])
    assert site.server.get("/outside").status == 403
    assert site.server.get("/up/small.bin").status == 403


def test_many_clients(site: Site) -> None:
    """Through a cache that is smaller than the files, with one that changes meanwhile."""
    versions = dict.fromkeys(SIZES, 1)
    choice = random.Random(2)

    def check(path: str, reply: Reply) -> None:
        assert reply.status == 200, (path, reply)
        assert version_of(path[1:], reply.body) in (versions[path[1:]], versions[path[1:]] - 1)
        assert len(reply.body) == SIZES[path[1:]]

    def change() -> None:
        if not crowd.closing:
            versions["page.bin"] += 1
            (site.root / "draft").write_bytes(content("page.bin", versions["page.bin"], SIZES["page.bin"]))
            (site.root / "draft").rename(site.root / "page.bin")
            crowd.later(1.2, change)

    crowd = Crowd(check)
    for _ in range(4):
        crowd.add(site.server.address, lambda: f"/{choice.choice(list(SIZES))}")
    crowd.later(0.1, change)
    crowd.run(2.5)
    crowd.finish()
    assert versions["page.bin"] >= 3
    assert crowd.replies > 50
