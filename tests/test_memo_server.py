"""The memos of a running server: what they answer, and above all what they must not."""

import threading
import time
from collections import Counter
from pathlib import Path

from flashpy.http.pages import page as page_of
from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import head

QUICK = '[cache]\nrevalidate = "0.2s"\nmax_stale = "0.6s"\n'
SLACK = 2.0
"""Seconds that a busy machine may add to a bound."""


def ask(client: Client, data: bytes) -> tuple[int, bytes]:
    client.send(data)
    reply = client.read_reply()
    return reply.status, reply.body


def test_identical_heads_are_answered_from_the_memo(server: Server) -> None:
    data = head("/a.txt", "User-Agent: one", "Accept: */*")
    with server.connect() as client:
        for _ in range(50):
            assert ask(client, data) == (200, b"a text\n")
    server.stop()
    counters = server.counters()
    assert 45 <= counters["memo_hits"] <= 49
    assert (counters["requests"], counters["status_2xx"], counters["misses"]) == (50, 50, 1)


def test_heads_that_never_repeat_are_not(server: Server) -> None:
    with server.connect() as client:
        for number in range(200):
            assert ask(client, head("/a.txt", f"X-Request-ID: {number:08x}")) == (200, b"a text\n")
    server.stop()
    counters = server.counters()
    assert counters["memo_hits"] == 0
    assert (counters["requests"], counters["misses"], counters["hits"]) == (200, 1, 199)


def test_what_depends_on_more_than_the_file_is_not_memoised(server: Server, docroot: Path) -> None:
    (docroot / "folder").mkdir()
    with server.connect() as client:
        assert client.request("/a.txt").status == 200
        for _ in range(10):
            assert ask(client, head("/a.txt", "Content-Length: 2") + b"ab")[0] == 200
            assert ask(client, head("/a.txt", "Expect: 100-continue"))[0] == 200
            assert ask(client, head("/a.txt", "Range: bytes=0-0,3-3"))[0] == 206
            assert ask(client, head("/a.txt", "If-Match: x"))[0] == 412
            assert ask(client, head("/a.txt", "Range: bytes=9-"))[0] == 416
            assert ask(client, head("/folder"))[0] == 301
            assert ask(client, head("/a.txt", method="POST"))[0] == 405
    server.stop()
    assert server.counters()["memo_hits"] == 0


def test_what_depends_on_the_head_and_the_file_is(server: Server) -> None:
    """304, one range, 404, and what HEAD gets of them: counted by status, and each logged with what was sent."""
    with server.connect() as client:
        tag = client.request("/a.txt").headers["etag"]
        for _ in range(10):
            assert ask(client, head("/a.txt", f"If-None-Match: {tag}")) == (304, b"")
            assert ask(client, head("/a.txt", "Range: bytes=2-3")) == (206, b"te")
            assert ask(client, head("/nothing"))[0] == 404
            client.send(head("/nothing", method="HEAD"))
            assert client.read_reply(head=True).status == 404
    server.stop()
    counters = server.counters()
    assert counters["memo_hits"] == 4 * 7  # by the whole head from the fourth sighting on
    assert [counters[f"status_{kind}xx"] for kind in (2, 3, 4)] == [11, 10, 20]
    page = len(page_of(404))
    assert counters["bytes_sent"] == 7 + 10 * (2 + page)
    sent = Counter(line.split('" ')[1].removesuffix(' "-') for line in server.access.read_text().splitlines())
    assert sent == {"200 7": 1, "304 0": 10, "206 2": 10, f"404 {page}": 10, "404 0": 10}


def test_a_remembered_404_ends_when_the_file_appears(server: Server, docroot: Path) -> None:
    with server.connect() as client:
        for _ in range(5):
            assert ask(client, head("/new.txt"))[0] == 404
        (docroot / "new.txt").write_bytes(b"here")
        wait_until(lambda: ask(client, head("/new.txt")) == (200, b"here"))


def test_a_remembered_304_ends_when_the_file_changes(server: Server, docroot: Path) -> None:
    with server.connect() as client:
        fields = [f"If-None-Match: {client.request('/a.txt').headers['etag']}", "Range: bytes=0-2"]
        for _ in range(5):
            assert ask(client, head("/a.txt", fields[0])) == (304, b"")
            assert ask(client, head("/a.txt", fields[1])) == (206, b"a t")
        (docroot / "a.txt").write_bytes(b"another")
        wait_until(lambda: ask(client, head("/a.txt", fields[0])) == (200, b"another"))
        assert ask(client, head("/a.txt", fields[1])) == (206, b"ano")


def test_each_kind_of_client_has_its_own_last_fields(server: Server) -> None:
    """One that stays, one that stays though it is old, two that go: all from the memo, none with another's ending."""
    stays = head("/a.txt")
    old = b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    going = (head("/a.txt", "Connection: close"), b"GET /a.txt HTTP/1.0\r\n\r\n")
    with server.connect() as new_client, server.connect() as old_client:
        for _ in range(10):
            new_client.send(stays)
            assert "connection" not in new_client.read_reply().headers
            old_client.send(old)
            assert old_client.read_reply().headers["connection"] == "keep-alive"
            for data in going:
                with server.connect() as leaving:
                    leaving.send(data)
                    reply = leaving.read_reply()
                    assert (reply.body, reply.headers["connection"]) == (b"a text\n", "close")
                    assert leaving.read_to_end() == b""
    server.stop()
    assert server.counters()["requests"] == 40
    assert server.counters()["memo_hits"] >= 40 - 4 * 3


def test_heads_that_differ_in_a_line_without_meaning(server: Server) -> None:
    """When its name is known to come with ever new values the rest of the head is enough, and only then."""
    with server.connect() as client:
        for number in range(600):
            assert ask(client, head("/a.txt", f"X-Id: {number}", "Accept: */*")) == (200, b"a text\n")
        for line in ("X-Id: \x01", "X-Id : 1", "X-Id: 1\r\n folded", "X-Id: 1\nHost: b"):
            with server.connect() as bad:
                bad.send(head("/a.txt", line, "Accept: */*"))
                assert bad.read_reply().status == 400
        assert ask(client, head("/a.txt", *[f"X-Id: {number}" for number in range(200)], "Accept: */*"))[0] == 431
    with server.connect() as client:  # another one: the refusal was its connection's last reply
        assert ask(client, head("/index.html", "X-Id: 700", "Accept: */*")) == (200, b"<h1>home</h1>\n")
        assert ask(client, head("/a.txt", "X-Id: 701", "Range: bytes=0-0")) == (206, b"a")
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nX-Id: 1\r\n\r\n")
        assert client.read_reply().body == b"a text\n"
        assert client.read_reply().status == 400
    server.stop()
    assert server.counters()["memo_hits"] == 0


def test_the_bytes_of_a_memoised_head_inside_a_body(server: Server) -> None:
    """They are content there, whatever they were before."""
    data = head("/a.txt")
    with server.connect() as client:
        for _ in range(5):
            assert ask(client, data) == (200, b"a text\n")
        client.send(head("/index.html", f"Content-Length: {len(data)}", "X: 1"))
        client.send(data)
        assert client.read_reply().body == b"<h1>home</h1>\n"
        client.send(head("/nothing"))
        assert client.read_reply().status == 404


def test_a_memoised_head_after_half_of_another(server: Server) -> None:
    data = head("/a.txt")
    with server.connect() as client:
        for _ in range(5):
            assert ask(client, data) == (200, b"a text\n")
        client.send(b"GET /index.html HTTP/1.1\r\nX: ")
        client.send(data)
        assert client.read_reply().body == b"<h1>home</h1>\n"


def test_sites_with_the_same_target(start_server: StartServer, tmp_path: Path) -> None:
    config = ""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        config += f'[[site]]\nhosts = ["{name}"]\nroot = "{tmp_path}/{name}"\n'
    server = start_server(config)
    with server.connect() as client:
        for _ in range(10):
            for name in ("one", "two", "ONE", "two:80"):
                body = name.lower()[:3].encode()
                assert ask(client, head("/a.txt", f"Host: {name}")) == (200, body)
                assert ask(client, head("http://two/a.txt", f"Host: {name}")) == (200, b"two")
    server.stop()
    assert server.counters()["memo_hits"] > 20


def test_never_across_listeners(start_server: StartServer, docroot: Path) -> None:
    """The same head on another listener is looked at anew: what it may see can differ there."""
    server = start_server('[server]\nlisten = ["127.0.0.1:0", "127.0.0.2:0"]\n', root=docroot)
    data = head("/a.txt", "Accept: */*")
    with server.connect(0) as one, server.connect(1) as two:
        for _ in range(5):
            assert ask(one, data) == (200, b"a text\n")
        for _ in range(5):
            assert ask(two, data) == (200, b"a text\n")
    server.stop()
    # Each listener had to see it twice: no more than three hits of five on either.
    assert 4 <= server.counters()["memo_hits"] <= 8


def test_a_memo_does_not_outlive_the_file(start_server: StartServer, docroot: Path) -> None:
    server = start_server(QUICK, root=docroot)
    data = head("/a.txt")
    with server.connect() as client:
        for number in range(4):
            (docroot / "new").write_text(f"version {number}")
            (docroot / "new").rename(docroot / "a.txt")
            changed = time.monotonic()
            seen = _traffic_until(client, data, f"version {number}".encode())
            assert seen - changed < 0.6 + SLACK
            for _ in range(5):
                assert ask(client, data)[1] == f"version {number}".encode()
        (docroot / "a.txt").unlink()
        changed = time.monotonic()
        while ask(client, data)[0] != 404:
            assert time.monotonic() - changed < 0.6 + SLACK
        (docroot / "a.txt").write_text("back")
        changed = time.monotonic()
        while ask(client, data) != (200, b"back"):
            assert time.monotonic() - changed < 0.6 + SLACK
    server.stop()
    assert server.counters()["memo_hits"] > 20
    assert server.counters()["revalidations"] > 0


def _traffic_until(client: Client, data: bytes, body: bytes) -> float:
    """Ask without a pause until this is what comes; when that was."""
    deadline = time.monotonic() + 10
    while ask(client, data)[1] != body:
        assert time.monotonic() < deadline
    return time.monotonic()


def test_new_content_shows_within_revalidate_under_traffic(start_server: StartServer, docroot: Path) -> None:
    """`max_stale` is far away: it is the check behind the hits that finds the change, for all listeners' memos."""
    config = '[server]\nlisten = ["127.0.0.1:0", "127.0.0.2:0"]\n[cache]\nrevalidate = "0.2s"\nmax_stale = "60s"\n'
    server = start_server(config, root=docroot)
    data = head("/a.txt")
    with server.connect(0) as one, server.connect(1) as two:
        for _ in range(5):
            ask(one, data)
            ask(two, data)
        (docroot / "a.txt").write_text("changed in place")
        changed = time.monotonic()
        assert _traffic_until(one, data, b"changed in place") - changed < 0.3 + SLACK
        assert ask(two, data)[1] == b"changed in place"
        assert ask(one, head("/a.txt", "X-Other: head"))[1] == b"changed in place"
        assert ask(one, head("/./a.txt"))[1] == b"changed in place"


def test_nothing_is_older_than_max_stale(start_server: StartServer, docroot: Path) -> None:
    """Without traffic nobody checks, so the first request after `max_stale` waits for a look at the file."""
    server = start_server(QUICK, root=docroot)
    data = head("/a.txt")
    with server.connect() as client:
        for _ in range(5):
            ask(client, data)
        (docroot / "a.txt").write_text("later")
        time.sleep(0.7)  # longer than max_stale, which is what is tested
        assert ask(client, data) == (200, b"later")
    server.stop()
    assert server.counters()["misses"] == 2


def test_an_unchanged_file_stays_in_the_memo(start_server: StartServer, docroot: Path) -> None:
    server = start_server(QUICK, root=docroot)
    data = head("/a.txt")
    end = time.monotonic() + 1.5
    count = 0
    with server.connect() as client:
        while time.monotonic() < end:
            assert ask(client, data) == (200, b"a text\n")
            count += 1
    server.stop()
    counters = server.counters()
    assert counters["misses"] == 1
    assert counters["memo_hits"] >= count - 5
    assert 1 <= counters["revalidations"] <= 12
    assert counters["stale"] >= counters["revalidations"]


def test_keys_of_a_dead_entry_are_gone_for_many_clients(start_server: StartServer, docroot: Path) -> None:
    """Several connections hammer one head while the file is replaced: each sees versions in order, never one again."""
    server = start_server(QUICK, root=docroot)
    data, problems = head("/a.txt"), []
    (docroot / "a.txt").write_text("0000")
    done = threading.Event()

    def hammer() -> None:
        last = b""
        with server.connect() as client:
            while not done.is_set():
                body = ask(client, data)[1]
                if body < last:
                    problems.append((last, body))
                last = body

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 25):
        (docroot / "new").write_text(f"{number:04}")
        (docroot / "new").rename(docroot / "a.txt")
        time.sleep(0.05)  # versions follow each other while clients ask
    done.set()
    for thread in threads:
        thread.join(30)
    assert problems == []
