"""What REDbot and httplint say of our replies: nothing is bad, and each warning is one that we know.

REDbot asks a running server over loopback and probes on its own with conditions, ranges and codings; httplint judges
the messages that a well-behaved client never provokes. A multipart/byteranges reply is not asked for: httplint wants
Content-Range in its head, where RFC 9110 15.3.7.2 forbids it.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from httplint import HttpResponseLinter

from tests.server import REPOSITORY, Server
from tests.web import exchange, head, plant, serving

KNOWN = {
    "FRESHNESS_HEURISTIC": "how long a cache may keep a file is the operator's to say (`headers` of a site), not ours",
}
"""Warnings that may be there, and why."""

PROVOKED = {400: "STATUS_BAD_REQUEST", 414: "STATUS_URI_TOO_LONG", 505: "STATUS_VERSION_NOT_SUPPORTED"}
"""Notes of httplint that say no more than the status that a bad request was meant to get."""

HTML = "<!doctype html><html lang=en><title>x</title>" + "<p>some text\n" * 300


STYLE = "".join(f".c{number} {{ width: {number * number}px }}\n" for number in range(500))


class Asked(NamedTuple):
    """A request for REDbot, and the status that it must find."""

    name: str
    status: int
    method: str
    target: str
    fields: dict[str, str]


ASKED = (
    Asked("index", 200, "GET", "/", {}),
    Asked("html", 200, "GET", "/page.html", {}),
    Asked("css", 200, "GET", "/style.css", {}),
    Asked("binary", 200, "GET", "/data.bin", {}),
    Asked("coded", 200, "GET", "/coded.css", {"Accept-Encoding": "gzip"}),
    Asked("coded-sometimes", 200, "GET", "/coded.css", {}),
    Asked("empty", 200, "GET", "/empty.txt", {}),
    Asked("large", 200, "GET", "/large.bin", {}),
    Asked("head", 200, "HEAD", "/style.css", {}),
    Asked("options", 204, "OPTIONS", "/style.css", {}),
    Asked("part", 206, "GET", "/data.bin", {"Range": "bytes=10-99"}),
    Asked("folder", 301, "GET", "/docs", {}),
    Asked("not-modified", 304, "GET", "/style.css", {"If-None-Match": "*"}),
    Asked("forbidden", 403, "GET", "/bare/", {}),
    Asked("missing", 404, "GET", "/none", {}),
    Asked("not-allowed", 405, "DELETE", "/style.css", {}),
    Asked("not-matching", 412, "GET", "/style.css", {"If-Match": '"x"'}),
    Asked("beyond", 416, "GET", "/data.bin", {"Range": "bytes=99999-"}),
    Asked("not-known", 501, "BREW", "/style.css", {}),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("redbot")
    root = folder / "root"
    plant(root, {"data.bin": 10_000, "large.bin": 3_000_000, "empty.txt": 0, "bare/a.txt": 10})
    (root / "docs").mkdir()
    for name in ("index.html", "page.html", "docs/index.html"):
        (root / name).write_text(HTML)
    for name in ("style.css", "coded.css"):
        (root / name).write_text(STYLE)
    (root / "coded.css.gz").write_bytes(gzip.compress(STYLE.encode()))
    with serving(folder, root=root) as server:
        yield server


@pytest.fixture(scope="module")
def found(site: Server) -> dict[str, Any]:
    """What REDbot found, by the names of `ASKED`."""
    asked = [[case.method, f"http://127.0.0.1:{site.port}{case.target}", case.fields] for case in ASKED]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.droid"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip([case.name for case in ASKED], json.loads(ran.stdout), strict=True))


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_redbot(found: dict[str, Any], case: Asked) -> None:
    report = found[case.name]
    assert report["complete"]
    assert report["status"] == case.status
    assert [note for note in report["notes"] if note[0] == "BAD" or note[1] not in KNOWN] == []


def test_each_known_warning_is_still_given(found: dict[str, Any]) -> None:
    assert {note[1] for report in found.values() for note in report["notes"]} == set(KNOWN)


RAW = (
    (200, head("/style.css", "Connection: keep-alive", version="1.0")),
    (200, head("/style.css", version="1.2")),
    (204, head("*", method="OPTIONS")),
    (400, head("/a b")),
    (400, head("/", "Host: a@b")),
    (400, head("/", "Transfer-Encoding: chunked", method="POST") + b"x\r\n"),
    (405, head("/", "Content-Length: 5", "Expect: 100-continue", method="PUT")),
    (405, head("localhost:80", method="CONNECT")),
    (413, head("/", f"Content-Length: {1 << 40}", method="POST")),
    (414, head("/" + "a" * 9000)),
    (417, head("/", "Expect: wonders")),
    (421, head("https://localhost/")),
    (431, head("/", "X: " + "a" * 40_000)),
    (505, head("/", version="2.0")),
)


@pytest.mark.parametrize(("status", "data"), RAW, ids=lambda value: str(value)[:40])
def test_httplint(site: Server, status: int, data: bytes) -> None:
    linter = lint(exchange(site, data))
    assert linter.status_code == status
    names = {type(note).__name__ for note in linter.notes if note.level.name in ("WARN", "BAD")}
    assert names - KNOWN.keys() == ({PROVOKED[status]} if status in PROVOKED else set())


def lint(message: bytes) -> HttpResponseLinter:
    """httplint's view of one whole reply."""
    top, _, content = message.partition(b"\r\n\r\n")
    first, *lines = top.split(b"\r\n")
    version, status, phrase = first.split(b" ", 2)
    linter = HttpResponseLinter()
    linter.process_response_topline(version.removeprefix(b"HTTP/"), status, phrase)
    pairs = [line.partition(b":") for line in lines]
    linter.process_headers([(name, value.strip()) for name, _, value in pairs])
    linter.feed_content(content)
    linter.finish_content(True)
    return linter


def test_httplint_would_say_so() -> None:
    linter = lint(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nDate: yesterday\r\nContent-Type: text/plain\r\n\r\nhello")
    assert {"BAD_DATE_SYNTAX", "CL_INCORRECT"} <= {type(note).__name__ for note in linter.notes}
