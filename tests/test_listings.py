"""Listings over a running server: made by a helper, kept until the folder changes, in the form that is asked for."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flashpy_helpers.codings import compress
from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import head

QUICK = '[cache]\nrevalidate = "0.1s"\nmax_stale = "1s"\n'
LONG = '[cache]\nrevalidate = "60s"\nmax_stale = "120s"\n'
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


def test_a_page_for_people(start_server: StartServer, docroot: Path, folder: Path) -> None:
    server = start_server(LONG + '[[site]]\nlisting = "html"\n', root=docroot)
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
    assert server.counters()["helper_jobs"] == 2  # one to find it, one to list it


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
    (docroot / "about.html.gz").write_bytes(compress("gzip", b"about us", "best"))
    server = start_server("[[site]]\nclean_urls = true\n", root=docroot)
    assert server.get("/about").headers["content-type"] == "text/html; charset=utf-8"
    assert server.get("/about").body == b"about us"
    assert server.get("/about", {"Accept-Encoding": "gzip"}).body == compress("gzip", b"about us", "best")
    assert server.get("/about/").status == 404
    assert server.get("/a.txt").status == 200
    assert server.get("/none").status == 404


def two_sites(root: Path, one: str, two: str) -> str:
    """Two sites with one root: hosts a and b."""
    return LONG + "".join(
        f'[[site]]\nhosts = ["{host}"]\nroot = "{root}"\n{text}\n' for host, text in (("a", one), ("b", two))
    )


def test_two_sites_of_one_root_know_nothing_of_each_other(
    start_server: StartServer, docroot: Path, folder: Path
) -> None:
    shown, hidden = 'listing = "json"\ndotfiles = true', 'listing = "json"\nprecompressed = false'
    other = f'\n[[site.mount]]\nat = "/files/a.txt/"\nroot = "{folder}"'
    (docroot / "a.css").write_bytes(b"css")
    (docroot / "a.css.gz").write_bytes(compress("gzip", b"css", "best"))
    server = start_server(two_sites(docroot, shown, hidden + other))
    for _ in range(3):
        assert ".secret" in names(json.loads(server.get("/files/", {"Host": "a"}).body))
        assert ".secret" not in names(json.loads(server.get("/files/", {"Host": "b"}).body))
        assert server.get("/a.css", {"Host": "a", "Accept-Encoding": "gzip"}).body == compress("gzip", b"css", "best")
        plain = server.get("/a.css", {"Host": "b", "Accept-Encoding": "gzip"})
        assert (plain.body, plain.headers.get("vary")) == (b"css", None)


def test_two_sites_of_one_root_need_not_agree_on_types(start_server: StartServer, docroot: Path) -> None:
    (docroot / "a.foo").write_bytes(b"foo")
    (docroot / "a.foo.gz").write_bytes(compress("gzip", b"foo", "best"))
    server = start_server(two_sites(docroot, "", 'types = { foo = "text/css" }'))
    for _ in range(3):
        assert server.get("/a.foo", {"Host": "a", "Accept-Encoding": "gzip"}).body == b"foo"
        assert server.get("/a.foo", {"Host": "b", "Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_a_mount_beside_what_is_missing(start_server: StartServer, docroot: Path, folder: Path) -> None:
    mount = f'[[site.mount]]\nat = "/dl/"\nroot = "{folder}"'
    server = start_server(two_sites(docroot, "", mount))
    assert server.get("/dl", {"Host": "a"}).status == 404
    assert server.get("/dl", {"Host": "b"}).status == 301


def test_a_folder_three_hundred_folders_deep(start_server: StartServer, docroot: Path) -> None:
    docroot.joinpath(*["a"] * 300).mkdir(parents=True)
    server = start_server('[cache]\nchunk = "64KiB"\n[[site]]\nlisting = "html"\n', root=docroot)
    reply = server.get("/" + "a/" * 300)
    assert (reply.status, reply.body.count(b"<bdi>a</bdi>")) == (200, 21)


def test_more_folders_at_a_time_than_are_remembered(start_server: StartServer, docroot: Path) -> None:
    for number in range(40):
        (docroot / f"d{number}").mkdir()
        for name in range(100):
            (docroot / f"d{number}" / f"n{name}").touch()
    server = start_server('[cache]\npaths = 16\n[[site]]\nlisting = "json"\n', root=docroot)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(40)]
        for number, client in enumerate(clients):
            client.send(head(f"/d{number}/"))
        for client in clients:
            reply = client.read_reply()
            assert (reply.status, json.loads(reply.body)["total"]) == (200, 100)
    server.stop()
    assert server.counters()["helper_jobs"] < 200


def test_pages_that_are_not_there_are_the_last_one(start_server: StartServer, docroot: Path, folder: Path) -> None:
    server = start_server(LONG + '[[site]]\nlisting = "html"\n', root=docroot)
    with server.connect() as client:
        for page in range(1, 200):
            assert client.request(f"/files/?page={page}").status == 200
        refused = client.request("/files/", {"If-Match": '"other"'})
        assert (refused.status, refused.headers["vary"]) == (412, "Accept")
    server.stop()
    assert server.counters()["helper_jobs"] == 2
