"""Conditional requests and ranges over real connections: 200, 206, 304, 412 and 416."""

import os
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server import Client, Reply, Server
from tests.web import CHUNK, CONFIG, head, plant, serving, stream

MTIME = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE, AFTER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"
SIZE = 5 * CHUNK + 123
SIZES = {"file.txt": 1000, "large.bin": SIZE, "empty.bin": 0, "one.bin": 1}
KINDS = ("/file.txt", "/large.bin", "/empty.bin")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("conditions")
    root = folder / "root"
    root.mkdir()
    plant(root, SIZES)
    for name in SIZES:
        os.utime(root / name, (MTIME, MTIME))
    site = '[[site]]\nheaders = { X-Site = "x" }\n'
    with serving(folder, CONFIG + site, root=root) as server:
        yield server


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with site.connect() as client:
        yield client


def etag_of(client: Client, target: str) -> str:
    return client.request(target, method="HEAD").headers["etag"]


def ask(client: Client, target: str, *fields: str, method: str = "GET") -> Reply:
    """Ask twice: the second time all is in memory; the answers must be alike."""
    replies = []
    for _ in range(2):
        client.send(head(target, *fields, method=method))
        replies.append(client.read_reply(head=method == "HEAD"))
    assert replies[0].status == replies[1].status
    if "boundary" not in replies[0].headers.get("content-type", ""):
        assert replies[0].body == replies[1].body
    return replies[1]


def parts_of(reply: Reply) -> list[tuple[str, bytes]]:
    """The parts of a multipart/byteranges reply: Content-Range and bytes."""
    top = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(top + reply.body, policy=HTTP)
    return [(str(part["Content-Range"]), bytes(part.get_payload(decode=True))) for part in message.iter_parts()]


# Validators


@pytest.mark.parametrize("target", KINDS)
def test_validators_are_strong_and_stay(client: Client, target: str) -> None:
    reply = ask(client, target)
    assert reply.headers["last-modified"] == DATE
    assert reply.headers["etag"].startswith('"')
    assert reply.headers["etag"] == etag_of(client, target)


def test_etags_differ_between_versions(site: Server, client: Client) -> None:
    tags = set()
    for number, (size, mtime) in enumerate([(10, MTIME), (11, MTIME), (10, MTIME + 1), (10, MTIME + 1e-9)]):
        plant(site.root, {f"version{number}": size})
        mtime_ns = MTIME * 10**9 + 1 if mtime == MTIME + 1e-9 and number == 3 else int(mtime) * 10**9
        os.utime(site.root / f"version{number}", ns=(mtime_ns, mtime_ns))
        tags.add(etag_of(client, f"/version{number}"))
    assert len(tags) == 4


def test_a_time_in_the_future_is_never_said(site: Server, client: Client) -> None:
    plant(site.root, {"future.txt": 10})
    os.utime(site.root / "future.txt", (4_000_000_000, 4_000_000_000))
    reply = ask(client, "/future.txt")
    assert time.strptime(reply.headers["last-modified"], "%a, %d %b %Y %H:%M:%S GMT")[:6] <= time.gmtime()[:6]
    assert ask(client, "/future.txt", f"If-None-Match: {reply.headers['etag']}").status == 304
    said = reply.headers["last-modified"]
    assert ask(client, "/future.txt", f"If-Modified-Since: {said}").status == 304
    assert ask(client, "/future.txt", "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT").status == 200


# Conditions. TAG stands for the file's own entity tag.


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("If-None-Match: TAG", 304),
        ("If-None-Match: W/TAG", 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "x", W/"y", TAG', 304),
        ('If-None-Match: "a,b" ,, TAG,', 304),
        ('If-None-Match: "x"', 200),
        ("If-None-Match: x", 200),
        ('If-None-Match: "x\r\nIf-None-Match: TAG', 200),
        ('If-None-Match: "x"\r\nIf-None-Match: TAG', 304),
        (f"If-Modified-Since: {DATE}", 304),
        (f"If-Modified-Since: {AFTER}", 304),
        (f"If-Modified-Since: {BEFORE}", 200),
        ("If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("If-Modified-Since: Tue Nov 14 22:13:20 2023", 304),
        ("If-Modified-Since: yesterday", 200),
        (f'If-None-Match: "x"\r\nIf-Modified-Since: {AFTER}', 200),
        (f"If-None-Match: TAG\r\nIf-Modified-Since: {BEFORE}", 304),
        ("If-Match: TAG", 200),
        ("If-Match: *", 200),
        ('If-Match: "x", TAG', 200),
        ("If-Match: W/TAG", 412),
        ('If-Match: "x"', 412),
        (f"If-Unmodified-Since: {DATE}", 200),
        (f"If-Unmodified-Since: {BEFORE}", 412),
        ("If-Unmodified-Since: yesterday", 200),
        (f"If-Match: TAG\r\nIf-Unmodified-Since: {BEFORE}", 200),
        ('If-Match: "x"\r\nIf-None-Match: TAG', 412),
        ("If-Match: TAG\r\nIf-None-Match: TAG", 304),
        ("Range: bytes=0-9\r\nIf-None-Match: TAG", 304),
        ("Range: bytes=9999999-\r\nIf-None-Match: TAG", 304),
        ('Range: bytes=9999999-\r\nIf-Match: "x"', 412),
    ],
)
@pytest.mark.parametrize("target", KINDS)
def test_conditions(client: Client, target: str, field: str, status: int) -> None:
    tag = etag_of(client, target)
    reply = ask(client, target, field.replace("TAG", tag))
    assert reply.status == status
    assert ask(client, target, field.replace("TAG", tag), method="HEAD").status == status
    if status != 412:
        assert (reply.headers["etag"], reply.headers["last-modified"], reply.headers["x-site"]) == (tag, DATE, "x")
    assert reply.status != 304 or ("content-length" not in reply.headers and reply.body == b"")


def test_conditions_mean_nothing_where_there_is_no_file(client: Client) -> None:
    for field in ("If-None-Match: *", "If-Match: *", "Range: bytes=0-1", f"If-Modified-Since: {AFTER}"):
        assert ask(client, "/nothing", field).status == 404
    assert ask(client, "/file.txt", "If-Match: x", method="OPTIONS").status == 204


# Ranges


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("0-0", 0, 1), ("0-9", 0, 10), ("5-", 5, SIZE), ("-5", SIZE - 5, SIZE), ("-99999999", 0, SIZE),
        ("0-99999999", 0, SIZE), (f"{SIZE - 1}-", SIZE - 1, SIZE), (f"{CHUNK - 1}-{CHUNK}", CHUNK - 1, CHUNK + 1),
        (f"{CHUNK}-{CHUNK}", CHUNK, CHUNK + 1), (f"{CHUNK}-{2 * CHUNK - 1}", CHUNK, 2 * CHUNK),
        (f"10-{4 * CHUNK + 5}", 10, 4 * CHUNK + 6), (f"{5 * CHUNK}-", 5 * CHUNK, SIZE), ("0-5,6-9", 0, 10),
        (f"0-9,{SIZE}-", 0, 10), (" 3-4 ,, ", 3, 5), ("000-009", 0, 10),
    ],
)  # fmt: skip
def test_one_range(client: Client, value: str, start: int, stop: int) -> None:
    reply = ask(client, "/large.bin", f"Range: bytes={value}")
    assert (reply.status, reply.headers["content-range"]) == (206, f"bytes {start}-{stop - 1}/{SIZE}")
    assert reply.body == stream("large.bin", SIZE)[start:stop]
    assert reply.headers["content-type"] == "application/octet-stream"
    assert (reply.headers["last-modified"], reply.headers["x-site"]) == (DATE, "x")
    assert reply.headers["etag"] == etag_of(client, "/large.bin")


@pytest.mark.parametrize("target", ["/file.txt", "/large.bin"])
def test_several_ranges(client: Client, target: str) -> None:
    size = SIZES[target[1:]]
    content = stream(target[1:], size)
    spans = [(500, 600), (0, 10), (size - 1, size), (900, min(size - 50, 3 * CHUNK))]
    reply = ask(client, target, "Range: bytes=" + ",".join(f"{a}-{b - 1}" for a, b in spans))
    assert reply.status == 206
    assert reply.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert "content-range" not in reply.headers
    assert parts_of(reply) == [(f"bytes {a}-{b - 1}/{size}", content[a:b]) for a, b in spans]
    assert ask(client, target, "Range: bytes=0-0,2-2").headers["content-type"] != reply.headers["content-type"]


NONSENSE = (
    "bytes=x", "bytes=5-4", "bytes=", "lines=0-9", "bytes 0-9", "bytes=-", "bytes=1-2-3", "bytes=+1-2", "bytes=0x1-2",
    "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2)),
)  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE)
def test_a_range_that_makes_no_sense_is_ignored(client: Client, value: str) -> None:
    reply = ask(client, "/file.txt", f"Range: {value}")
    assert (reply.status, reply.body) == (200, stream("file.txt", 1000))


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("/file.txt", "1000-"),
        ("/large.bin", f"{SIZE}-"),
        ("/empty.bin", "0-0"),
        ("/file.txt", "-0"),
        ("/file.txt", "2000-3000,4000-"),
    ],
)
def test_a_range_beyond_the_end(client: Client, target: str, value: str) -> None:
    reply = ask(client, target, f"Range: bytes={value}")
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{SIZES[target[1:]]}")
    assert ask(client, target).status == 200


@pytest.mark.parametrize("value", ["bytes=0-9", "bytes=2000-", "bytes=0-1,5-6"])
def test_head_has_no_ranges(client: Client, value: str) -> None:
    reply = ask(client, "/file.txt", f"Range: {value}", method="HEAD")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "1000", b"")


@pytest.mark.parametrize(
    ("validator", "status"),
    [("TAG", 206), (DATE, 206), ("W/TAG", 200), ('"x"', 200), (BEFORE, 200), (AFTER, 200), ("*", 200), ("x", 200)],
)
@pytest.mark.parametrize("target", ["/file.txt", "/large.bin"])
def test_if_range(client: Client, target: str, validator: str, status: int) -> None:
    validator = validator.replace("TAG", etag_of(client, target))
    reply = ask(client, target, "Range: bytes=0-9", f"If-Range: {validator}")
    content = stream(target[1:], SIZES[target[1:]])
    assert (reply.status, reply.body) == (status, content[:10] if status == 206 else content)
    beyond = ask(client, target, "Range: bytes=999999999-", f"If-Range: {validator}")
    assert beyond.status == (416 if status == 206 else 200)


# Random ranges against an oracle that counts bytes


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int | None, int | None]]:
    """Ranges of good form, near to the borders of chunks more often than not."""
    border = st.builds(lambda n, d: max(0, n * CHUNK + d), st.integers(0, 6), st.integers(-2, 2))
    number = st.integers(0, SIZE + 10) | border
    found: list[tuple[int | None, int | None]] = []
    for _ in range(draw(st.integers(1, 6))):
        first = draw(st.none() | number)
        last = draw(
            number if first is None else st.none() | st.builds(lambda d, f=first: f + d, st.integers(0, 70_000))
        )
        found.append((first, last))
    return found


def oracle(wanted: list[tuple[int | None, int | None]], size: int) -> list[tuple[int, int]]:
    """What they select, joined where they touch: in their order, or ascending when some were joined."""
    spans = []
    for first, last in wanted:
        if first is None:
            start, stop = max(0, size - (last or 0)), size
        else:
            start, stop = first, size if last is None else min(last + 1, size)
        if start < stop:
            spans.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return spans if len(merged) == len(spans) else merged


def test_random_ranges(client: Client) -> None:
    content = stream("large.bin", SIZE)

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(wanted=ranges())
    def check(wanted: list[tuple[int | None, int | None]]) -> None:
        texts = [f"{'' if a is None else a}-{'' if b is None else b}" for a, b in wanted]
        client.send(head("/large.bin", "Range: bytes=" + ", ".join(texts)))
        reply = client.read_reply()
        spans = oracle(wanted, SIZE)
        if not spans:
            assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{SIZE}")
            return
        assert reply.status == 206
        expected = [(f"bytes {a}-{b - 1}/{SIZE}", content[a:b]) for a, b in spans]
        if len(spans) == 1:
            assert [(reply.headers["content-range"], reply.body)] == expected
        else:
            assert parts_of(reply) == expected

    check()


def test_the_same_file_in_two_hosts_folders_has_the_same_tag(site: Server, client: Client) -> None:
    """A tag is made of time and size alone, so it is the same wherever the site was copied to."""
    plant(site.root, {"copy/file.txt": 1000})
    os.utime(site.root / "copy" / "file.txt", (MTIME, MTIME))
    assert Path(site.root / "copy" / "file.txt").stat().st_ino != (site.root / "file.txt").stat().st_ino
    assert etag_of(client, "/copy/file.txt") == etag_of(client, "/file.txt")
