"""The logs of a running server in every form: what lines tell of how a request was served, ids, samples, reloads."""

import json
import re
import signal
import time
from calendar import timegm
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flashpy.config import ConfigError, load
from tests.conftest import StartServer
from tests.server import Client, Server, wait_until
from tests.web import exchange, head, lines_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRUSTING = 'trusted_proxies = ["127.0.0.1"]\n'
STRANGER = "127.0.0.2"


def records(server: Server, count: int) -> list[dict[str, Any]]:
    """The access lines as objects, when there are `count` of them."""
    return [json.loads(line) for line in lines_of(server, count)]


def ask(client: Client, *fields: str, target: str = "/a.txt") -> dict[str, str]:
    """The fields of the reply."""
    client.send(head(target, *fields))
    return client.read_reply().headers


def test_json_tells_how_each_was_served(start_server: StartServer, docroot: Path) -> None:
    server = start_server('[log]\nformat = "json"\n', root=docroot)
    with server.connect() as client:
        for _ in range(20):
            ask(client, "User-Agent: same")
        ask(client, "User-Agent: same", "X-New: 1")
        ask(client, target="/none")
        ask(client, target="/large.bin?q=1")
        client.send(head("/a.txt", method="DELETE"))
        client.read_reply()
    assert exchange(server, b'\x16\x03\x01 {"status": 200}\r\n\r\n')
    found = records(server, 25)
    assert [one["status"] for one in found] == [200] * 21 + [404, 200, 405, 400]
    served = [one["served"] for one in found]
    assert (served[0], served[20:]) == ("miss", ["hit", "miss", "miss", "refused", "refused"])
    assert Counter(served[1:20])["memo"] >= 15
    assert all(0 <= one["duration"] < 30 for one in found)
    assert {one["client"] for one in found} == {"127.0.0.1"}
    assert (found[22]["path"], found[22]["query"], found[22]["bytes"]) == ("/large.bin", "q=1", 1 << 20)
    assert found[0]["agent"] == "same"
    assert found[24]["method"] is None
    assert abs(time.time() - _seconds(found[0]["time"])) < 60


def _seconds(stamp: str) -> float:
    return timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))


def test_a_template_and_the_client_that_a_proxy_names(start_server: StartServer, docroot: Path) -> None:
    config = f"[server]\n{TRUSTING}[log]\nformat = '{{client}} {{scheme}} \"{{request}}\" {{status}} {{host}}'\n"
    server = start_server(config, root=docroot)
    with server.connect() as client:
        for number in range(8):
            ask(client, f"X-Forwarded-For: 203.0.113.{number % 2}", "X-Forwarded-Proto: https")
        ask(client)
    lines = lines_of(server, 9)
    wanted = [
        '203.0.113.0 https "GET /a.txt HTTP/1.1" 200 localhost',
        '203.0.113.1 https "GET /a.txt HTTP/1.1" 200 localhost',
    ]
    assert lines == wanted * 4 + ['127.0.0.1 http "GET /a.txt HTTP/1.1" 200 localhost']


def test_a_stale_reply_says_so(start_server: StartServer, docroot: Path) -> None:
    config = '[cache]\nrevalidate = "0.05s"\nmax_stale = "60s"\n[log]\nformat = "json served"\n'
    server = start_server(config, root=docroot)
    count = 0
    with server.connect() as client:

        def has_stale() -> bool:
            nonlocal count
            ask(client)
            count += 1
            time.sleep(0.06)  # older than `revalidate`, whatever else happens
            return {"served": "stale"} in records(server, count)

        wait_until(has_stale, "a stale reply")


def test_the_duration_of_a_slow_reply(start_server: StartServer, docroot: Path) -> None:
    """A reply that is sent in measure takes at least as long as the measure wants."""
    config = '[limits]\nrate = "1MiB"\nrate_after = "512KiB"\n[log]\nformat = "{path} {duration} {bytes}"\n'
    server = start_server(config, root=docroot)
    server.get("/large.bin")
    path, duration, size = lines_of(server, 1)[0].split()
    assert (path, int(size)) == ("/large.bin", 1 << 20)
    assert re.fullmatch(r"\d+\.\d{6}", duration)
    assert 0.2 < float(duration) < 30


def test_a_sample(start_server: StartServer, docroot: Path) -> None:
    for form in ("combined", "{status}"):
        server = start_server(f'[log]\nformat = "{form}"\nsample = 0.0\n', root=docroot)
        with server.connect() as client:
            for number in range(10):
                ask(client)
                ask(client, target="/none")
                ask(client, f"X-New: {number}", target="/docs/")
        assert server.stop() == 0
        lines = server.access.read_text().splitlines()
        assert len(lines) == 10
        assert all("404" in line for line in lines)
        assert server.counters()["requests"] == 30


def test_ids_are_taken_given_and_sent_back(start_server: StartServer, docroot: Path) -> None:
    config = f'[server]\nrequest_id = true\n{TRUSTING}[log]\nformat = "json request_id traceparent path status bytes"\n'
    server = start_server(config, root=docroot)
    sent = []
    with server.connect() as proxy, server.connect(source=STRANGER) as stranger:
        for number in range(10):
            fields = (f"X-Request-ID: given-{number}", f"Traceparent: {TRACE}")
            assert ask(proxy, *fields)["x-request-id"] == f"given-{number}"
            sent += [f"given-{number}", ask(stranger, *fields)["x-request-id"], ask(proxy)["x-request-id"]]
            sent.append(ask(proxy, 'X-Request-ID: "evil"', target="/none")["x-request-id"])
        proxy.send(head("/large.bin"))
        reply = proxy.read_reply()
        sent.append(reply.headers["x-request-id"])
        assert reply.body == (docroot / "large.bin").read_bytes()
    bad = exchange(server, b"no request\r\n\r\n")
    sent.append(bad.partition(b"X-Request-ID: ")[2][:32].decode())
    found = records(server, 42)
    assert Counter(one["request_id"] for one in found) == Counter(sent)
    assert len(set(sent)) == 42
    made = [one for one in sent if not one.startswith("given-")]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert Counter(one["traceparent"] for one in found) == {TRACE: 20, None: 22}
    assert found[40] == {
        "request_id": sent[40],
        "traceparent": None,
        "path": "/large.bin",
        "status": 200,
        "bytes": 1 << 20,
    }


def test_ids_are_sent_back_though_nothing_is_logged(start_server: StartServer, docroot: Path) -> None:
    server = start_server('[server]\nrequest_id = true\n[log]\naccess = "off"\n', root=docroot)
    with server.connect() as client:
        ids = {ask(client)["x-request-id"] for _ in range(10)}
    assert len(ids) == 10
    plain = start_server(root=docroot)
    with plain.connect() as client:
        assert "x-request-id" not in ask(client, "X-Request-ID: a")


def test_a_field_that_two_would_set_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    site = f'[[site]]\nroot = "{tmp_path}"\nheaders = {{ x-request-id = "a" }}\n'
    file.write_text(f"[server]\nrequest_id = true\n{site}")
    with pytest.raises(ConfigError, match="sets this field itself") as caught:
        load(file)
    assert caught.value.line == 5
    file.write_text(site)
    load(file)


def test_ids_of_replies_that_do_not_fit_and_of_the_last_one(start_server: StartServer, docroot: Path) -> None:
    """Replies from memory that the socket does not take at once, and one after which the connection ends."""
    content = bytes(range(256)) * 2000
    (docroot / "medium.bin").write_bytes(content)
    config = '[server]\nrequest_id = true\n[cache]\nchunk = "512KiB"\n[log]\nformat = "{request_id} {bytes}"\n'
    server = start_server(config, root=docroot)
    sent = []
    with server.connect() as client:
        for number in range(20):
            client.send(head("/medium.bin", *(["Connection: close"] if number > 18 else [])))
            time.sleep(0.02)  # each comes alone, and one of them finds the socket full
        for _ in range(20):
            reply = client.read_reply()
            assert reply.body == content
            sent.append(f"{reply.headers['x-request-id']} {len(content)}")
        assert client.read_to_end() == b""
    for _ in range(6):
        data = exchange(server, head("/a.txt", version="1.0"))
        sent.append(f"{data.partition(b'X-Request-ID: ')[2][:32].decode()} 7")
    assert lines_of(server, 26) == sent


def test_the_error_log_as_json(start_server: StartServer, docroot: Path) -> None:
    server = start_server('[log]\nerror_format = "json"\n', root=docroot)
    exchange(server, b"bad\r\n\r\n")
    server.wait_log("invalid http request")
    server.stop()
    found = [json.loads(line) for line in server.log_lines()]
    assert all(list(one) == ["time", "pid", "level", "message"] for one in found)
    assert any(one["message"] == "127.0.0.1: 400: invalid http request" for one in found)
    assert server.counters()["status_4xx"] == 1
    assert server.stderr == ""


def test_a_reload_changes_the_forms_or_keeps_them(start_server: StartServer, docroot: Path) -> None:
    server = start_server('[log]\nformat = "{status} one"\n', root=docroot)
    server.get("/a.txt")
    server.configure('[log]\nformat = "{statsu}"\n')
    server.expect_error("not reloaded")
    server.signal(signal.SIGHUP)
    assert "did you mean 'status'?" in server.wait_log("not reloaded, the old settings stay")
    server.get("/a.txt")
    assert lines_of(server, 2) == ["200 one"] * 2
    server.configure('[log]\nformat = "{status} two"\nerror_format = "json"\n')
    server.signal(signal.SIGHUP)
    json.loads(server.wait_log("reloaded: "))
    server.get("/a.txt")
    assert lines_of(server, 3)[2] == "200 two"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('[log]\nformat = "{nope}"', "unknown name 'nope'"),
        ("[log]\nformat = 1", "a text in quotes"),
        ("[log]\nsample = 1.5", "a number from 0 to 1"),
        ('[log]\nerror_format = "xml"', '"text" or "json"'),
    ],
)
def test_what_is_refused_at_load(config: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'{config}\n[[site]]\nroot = "{tmp_path}"\n')
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load(file)
    assert caught.value.line == 2
