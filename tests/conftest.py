"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.server import Client, Server


class StartServer(Protocol):
    """Start a server; the arguments are those of ``tests.server.Server`` after the folder."""

    def __call__(self, config: str = "", **options: Any) -> Server: ...


@pytest.fixture
def docroot(tmp_path: Path) -> Path:
    """A small site: index.html, a.txt, docs/index.html, large.bin (1 MiB), empty.txt."""
    root = tmp_path / "docroot"
    (root / "docs").mkdir(parents=True)
    (root / "index.html").write_text("<h1>home</h1>\n")
    (root / "a.txt").write_text("a text\n")
    (root / "docs" / "index.html").write_text("<h1>docs</h1>\n")
    (root / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (root / "empty.txt").touch()
    return root


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers that are stopped and checked when the test is over."""
    started: list[Server] = []

    def start(config: str = "", **options: Any) -> Server:
        folder = tmp_path / f"server{len(started)}"
        ready = options.pop("wait", True)
        server = Server(folder, config, wait=False, **options)
        started.append(server)
        if ready:
            server.wait_ready()
        return server

    yield start
    problems = []
    for server in reversed(started):
        try:
            server.finish()
        except Exception as problem:  # the others must be stopped too
            problems.append(problem)
    if problems:
        raise problems[0]


@pytest.fixture
def server(start_server: StartServer, docroot: Path) -> Server:
    """A server with defaults over ``docroot``."""
    return start_server(root=docroot)


@pytest.fixture
def raw(server: Server) -> Iterator[Client]:
    """A connection to ``server``."""
    with server.connect() as client:
        yield client
