"""Listings over a running server: made by a helper, kept until the folder changes, in the form that is asked for."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.server import Client, Server, wait_until

QUICK = '[cache]\nrevalidate = "0.1s"\nmax_stale = "1s"\n'
AS_JSON = {"Accept": "application/json"}


@pytest.fixture
def folder(docroot: Path) -> Path:
    folder = docroot / "files"
    (folder / "inner").mkdir(parents=True)
    for name, size in (("b.txt", 20), ("a.txt", 300), ("c <&>.txt", 1), (".secret", 5)):
        (folder / name).write_bytes(bytes(size))
    (folder / "away").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def server(start_server: StartServer, docroot: Path, folder: Path) -> Server:
    return start_server(QUICK + '[[site]]\nlisting = "html"\n', root=docroot)


def listed(client: Client, target: str = "/files/") -> dict[str, Any]:
    reply = client.request(target, AS_JSON)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(reply.body)
    return found


def names(listing: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in listing["entries"]]


def test_a_page_for_people(server: Server) -> None:
    with server.connect() as client:
        for _ in range(5):
            reply = client.request("/files/", {"Accept": "text/html,*/*;q=0.8"})
            assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert b'href="a.txt"' in reply.body
            assert b"c &lt;&amp;&gt;.txt" in reply.body
            assert b".secret" not in reply.body
            assert reply.headers["vary"] == "Accept"
            assert "script-src 'sha256-" in reply.headers["content-security-policy"]
            assert "last-modified" not in reply.headers
        tag = reply.headers["etag"]
        assert client.request("/files/", {"If-None-Match": tag}).status == 304
        client.send(b"HEAD /files/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read_reply(head=True).headers["content-length"] == str(len(reply.body))
    server.stop()
    assert server.counters()["helper_jobs"] <= 10  # and not one for each


def test_json_for_programs(server: Server) -> None:
    with server.connect() as client:
        assert names(listed(client)) == ["inner", "a.txt", "b.txt", "c <&>.txt"]
        assert [entry["size"] for entry in listed(client)["entries"]] == [None, 300, 20, 1]
        assert names(listed(client, "/files/?sort=size&order=desc")) == ["inner", "a.txt", "b.txt", "c <&>.txt"]
        assert names(listed(client, "/files/?order=desc&x")) == ["inner", "c <&>.txt", "b.txt", "a.txt"]
        assert listed(client, "/files/?page=7")["page"] == 1


def test_what_else_a_path_may_be(server: Server, folder: Path) -> None:
    with server.connect() as client:
        moved = client.request("/files?sort=size")
        assert (moved.status, moved.headers["location"]) == (301, "/files/?sort=size")
        assert client.request("/files/none/").status == 404
        assert client.request("/files/a.txt/").status == 404
        assert client.request("/files/a.txt").body == bytes(300)
        (folder / "inner/index.html").write_bytes(b"index")
        assert client.request("/files/inner/").body == b"index"


def test_a_listing_follows_its_folder(server: Server, folder: Path) -> None:
    with server.connect() as client:
        assert "new.txt" not in names(listed(client))
        (folder / "new.txt").write_bytes(b"12")
        wait_until(lambda: "new.txt" in names(listed(client)))
        (folder / "new.txt").write_bytes(b"123")  # which leaves the folder as it was
        wait_until(lambda: 3 in [entry["size"] for entry in listed(client)["entries"]])
        (folder / "index.html").write_bytes(b"now an index")
        wait_until(lambda: client.request("/files/").body == b"now an index")
        (folder / "index.html").unlink()
        wait_until(lambda: names(listed(client)) if client.request("/files/").body[:2] == b"<!" else None)


def test_a_folder_that_goes_and_one_that_nobody_may_read(server: Server, docroot: Path) -> None:
    with server.connect() as client:
        (docroot / "brief").mkdir()
        assert names(listed(client, "/brief/")) == []
        (docroot / "brief").rmdir()
        wait_until(lambda: client.request("/brief/").status == 404)


def test_a_large_folder_in_pages(start_server: StartServer, docroot: Path) -> None:
    (docroot / "many").mkdir()
    for number in range(700):
        (docroot / "many" / f"{number}{'x' * 150}").touch()
    config = QUICK + '[cache]\nchunk = "64KiB"\n[[site]]\nlisting = "json"\n'
    server = start_server(config.replace(QUICK, ""), root=docroot)
    with server.connect() as client:
        first = json.loads(client.request("/many/").body)
        assert (first["total"], first["truncated"]) == (700, False)
        assert first["pages"] > 1
        found = []
        for page in range(1, first["pages"] + 1):
            found += names(json.loads(client.request(f"/many/?page={page}").body))
        assert found == [f"{number}{'x' * 150}" for number in range(700)]


def test_off_by_default(start_server: StartServer, docroot: Path, folder: Path) -> None:
    assert start_server("", root=docroot).get("/files/").status == 403


def test_clean_addresses(start_server: StartServer, docroot: Path) -> None:
    (docroot / "about.html").write_bytes(b"about us")
    (docroot / "about.html.gz").write_bytes(b"zipped")
    server = start_server("[[site]]\nclean_urls = true\n", root=docroot)
    assert server.get("/about").headers["content-type"] == "text/html; charset=utf-8"
    assert server.get("/about").body == b"about us"
    assert server.get("/about", {"Accept-Encoding": "gzip"}).body == b"zipped"
    assert server.get("/about/").status == 404
    assert server.get("/a.txt").status == 200
    assert server.get("/none").status == 404
