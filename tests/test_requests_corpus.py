"""Every file of tests/requests through a real connection, as a client would send it."""

import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashpy.http.body import Body
from flashpy.http.request import RequestParser
from flashpy.http.target import parse_target
from flashpy.states import CLOSED
from tests.workbench import Bench, replies

FOLDER = Path(__file__).parent / "requests"
VALID = sorted((FOLDER / "valid").glob("*.http"))
INVALID = sorted((FOLDER / "invalid").glob("*.http"))
AFTER = b"GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def facts(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.with_suffix(".toml").read_text())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("root"), queue=1000)
    bench.ready()
    yield bench
    bench.close()


def test_the_corpus_is_whole() -> None:
    assert len(VALID) >= 60
    assert len(INVALID) >= 259
    assert all(file.with_suffix(".toml").exists() for file in VALID + INVALID)


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_request_means_what_it_says(file: Path) -> None:
    expected, data = facts(file), file.read_bytes()[facts(file).get("leading", 0) :]
    head, end, rest = data.partition(b"\r\n\r\n")
    request = RequestParser(8192, 100).parse((head + end).split(b"\r\n"))
    assert request.line.method.decode() == expected["method"]
    assert request.line.target.decode() == expected["target"]
    assert f"1.{request.line.minor}" == expected["version"]
    assert request.host.decode() == expected["host"]
    assert request.keeps == expected["keep_alive"]
    length = request.special.length if request.special else 0
    assert length == (-1 if expected.get("chunked") else expected["body_length"])
    body = Body(length, 1 << 20)
    assert body.drop(rest) == b""
    assert body.done
    if "authority" in expected:
        assert parse_target(request.line.target).host == expected["authority"].encode()


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_request_is_answered_and_its_end_found(file: Path, bench: Bench) -> None:
    expected, data = facts(file), file.read_bytes()
    bench.log_lines()
    got = replies(bench.exchange(data + AFTER), expected["method"].encode(), b"GET")
    final = [status for status, _, _ in got if status != 100]
    first = {"GET": (404, 403), "HEAD": (404, 403), "OPTIONS": (204,)}
    assert final[0] in first.get(expected["method"], (405,)), final
    assert final[1:] == ([404] if expected["keep_alive"] else [])
    lines = [line for line in bench.log_lines() if line.startswith("A")]
    assert len(lines) == len(final)
    if not expected["keep_alive"]:
        assert got[-1][1][b"connection"] == b"close"


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_an_invalid_request_is_refused(file: Path, bench: Bench) -> None:
    expected, data = facts(file), file.read_bytes()
    bench.log_lines()
    client, connection = bench.connect()
    with client:
        client.sendall(data[:65536])
        got = bytearray()

        def answered() -> bool:
            got.extend(bench.receive(client))
            return b"\r\n\r\n" in got.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")

        bench.until(answered)
        client.shutdown(socket.SHUT_WR)
        got += bench.receive_all(client)
        methods = [b"HEAD"] if data.startswith(b"HEAD ") and expected["where"] == "target" else []
        final = [reply for reply in replies(bytes(got), *methods) if reply[0] != 100]
    assert [status for status, _, _ in final] == [expected["status"]], expected["why"]
    if expected["where"] != "method":
        assert final[0][1][b"connection"] == b"close"
    lines = bench.log_lines()
    assert len([line for line in lines if line.startswith("A")]) == 1
    assert not [line for line in lines if "[error]" in line]
    bench.until(lambda: connection.state == CLOSED)
