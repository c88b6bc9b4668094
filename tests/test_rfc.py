"""RFC 9112 and RFC 9110, section by section: what they ask of an origin server, each asked of a running one.

A row is the section, what it asks for, the bytes that a client sends, and what must come back: the statuses, and of the
last reply fields (None: it must not be there), content, and whether the connection goes on (`open`) or ends with it.
The many malformed heads and bodies are the files of `tests/requests`; here is one of a kind, and all that is not about
being malformed.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from flashpy.http.dates import parse_date
from tests.server import Client, Reply, Server
from tests.web import head, serving

MTIME = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
TEXT = b"0123456789" * 10
ALLOW = "GET, HEAD, OPTIONS"
ETAG = f'"{MTIME * 10**9:x}-64"'
Fields = Mapping[str, str | None]
NOTHING: Fields = {}


class Row(NamedTuple):
    """One requirement; `data` may hold several requests."""

    section: str
    asks: str
    data: bytes
    statuses: tuple[int, ...]
    fields: Fields = NOTHING
    content: bytes | None = None
    open: bool = True


def get(*fields: str, target: str = "/a.txt", method: str = "GET", version: str = "1.1") -> bytes:
    return head(target, *fields, method=method, version=version)


CHUNKED = "Transfer-Encoding: chunked"
CLOSED: Fields = {"connection": "close"}

RFC_9112 = (
    Row("2.1", "the start line names the version that the server conforms to", get(), (200,), content=TEXT),
    Row("2.2", "an empty line before the request line is ignored", b"\r\n\r\n" + get(), (200,)),
    Row("2.2", "a bare CR is invalid", get("A: b\rc"), (400,), CLOSED, open=False),
    Row("2.2", "a bare LF may end a line; here it does not", get().replace(b"\r\n", b"\n"), (400,), open=False),
    Row("2.2", "whitespace before the first field is rejected", get(" A: b"), (400,), open=False),
    Row("2.3", "another major version", get(version="2.0"), (505,), open=False),
    Row("2.3", "the version is case-sensitive", get().replace(b"HTTP", b"http"), (400,), open=False),
    Row("3", "a request line of 8000 bytes is taken", get(target="/a.txt?" + "q" * 7980), (200,)),
    Row("3", "a longer one gets 414", get(target="/" + "q" * 9000), (414,), open=False),
    Row("3", "the parts of a request line are parted by one space", get(target=" /"), (400,), open=False),
    Row("3.1", "a method that is not known", get(method="BREW"), (501,), {"allow": None}),
    Row("3.1", "a method that is longer than all known ones", get(method="A" * 9000), (501,), open=False),
    Row("3.1", "methods are case-sensitive", get(method="get"), (501,)),
    Row("3.2", "no Host", b"GET / HTTP/1.1\r\n\r\n", (400,), open=False),
    Row("3.2", "two Hosts", get("Host: a", "Host: a"), (400,), open=False),
    Row("3.2", "an invalid Host", get("Host: a@b"), (400,), open=False),
    Row("3.2", "no Host on HTTP/1.0", b"GET /a.txt HTTP/1.0\r\n\r\n", (200,), open=False),
    Row("3.2.1", "origin-form with a query", get(target="/a.txt?x=/../y"), (200,), content=TEXT),
    Row("3.2.2", "absolute-form", get(target="http://localhost/a.txt"), (200,), content=TEXT),
    Row("3.2.2", "its host goes before Host", get("Host: two.example", target="http://localhost/a.txt"), (200,)),
    Row("3.2.2", "so it does the other way round", get(target="http://two.example/a.txt"), (404,)),
    Row("3.2.3", "authority-form is for CONNECT", get(target="localhost:80"), (400,), open=False),
    Row("3.2.3", "CONNECT has no other", get(method="CONNECT"), (400,), open=False),
    Row("3.2.4", "asterisk-form is for OPTIONS", get(target="*"), (400,), open=False),
    Row("3.2.4", "OPTIONS of the server", get(target="*", method="OPTIONS"), (204,), {"allow": ALLOW}),
    Row("3.2.4", "OPTIONS of the server by its URI", get(target="http://localhost", method="OPTIONS"), (204,)),
    Row("5.1", "whitespace before the colon", get("A : b"), (400,), open=False),
    Row("5.1", "whitespace around a value is not part of it", get("Connection: \t close \t "), (200,), open=False),
    Row("5.2", "a folded line", get("A: b\r\n c"), (400,), open=False),
    Row("6.1", "a coding that is not known", get("Transfer-Encoding: gzip, chunked"), (501,), open=False),
    Row("6.1", "Transfer-Encoding and Content-Length", get(CHUNKED, "Content-Length: 5"), (400,), open=False),
    Row("6.1", "Transfer-Encoding on HTTP/1.0", get(CHUNKED, version="1.0") + b"0\r\n\r\n", (400,), open=False),
    Row("6.1", "no Transfer-Encoding in a 204", get(target="*", method="OPTIONS"), (204,), {"transfer-encoding": None}),
    Row("6.2", "a body of so many bytes", get("Content-Length: 5") + b"GET /" + get(), (200, 200)),
    Row("6.3", "chunked is not the last coding", get("Transfer-Encoding: chunked, gzip"), (400,), open=False),
    Row("6.3", "an invalid Content-Length", get("Content-Length: +5"), (400,), open=False),
    Row("6.3", "lengths that differ", get("Content-Length: 5", "Content-Length: 6"), (400,), open=False),
    Row("6.3", "no length is no body", get(method="POST") + get(), (405, 200)),
    Row("7.1", "a chunked body", get(CHUNKED) + b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n" + get(), (200, 200)),
    Row("7.1", "a chunk-size that overflows", get(CHUNKED) + b"f" * 17 + b"\r\n", (400,), open=False),
    Row("7.1.1", "chunk extensions are ignored", get(CHUNKED) + b'1;a=b;c="d"\r\nx\r\n0\r\n\r\n' + get(), (200, 200)),
    Row("7.1.2", "trailers are ignored", get(CHUNKED) + b"0\r\nConnection: close\r\n\r\n" + get(), (200, 200)),
    Row("7.4", "TE is heeded or not", get("TE: gzip, trailers", "Connection: TE"), (200,), {"transfer-encoding": None}),
    Row("9.3", "HTTP/1.1 persists", get() * 2, (200, 200), {"connection": None}),
    Row("9.3", "HTTP/1.0 does not", get(version="1.0") + get(), (200,), CLOSED, open=False),
    Row("9.3", "unless it asks", get("Connection: keep-alive", version="1.0"), (200,), {"connection": "keep-alive"}),
    Row("9.3.2", "pipelined replies come in order", get() + get(target="/none") + get(), (200, 404, 200)),
    Row("9.6", "close", get("Connection: close") + get(), (200,), CLOSED, open=False),
    Row("9.6", "options are case-insensitive and a list", get("Connection: x, CLOSE"), (200,), CLOSED, open=False),
)

PART = {"content-range": "bytes 10-19/100", "content-length": "10", "etag": ETAG, "last-modified": DATE}
RFC_9110 = (
    Row("2.5", "a higher minor version means what ours does", get(version="1.9"), (200,), content=TEXT),
    Row("4.2.4", "userinfo", get(target="http://u:p@localhost/a.txt"), (400,), open=False),
    Row("5.1", "names are case-insensitive", get("cOnNeCtIoN: close"), (200,), CLOSED, open=False),
    Row("5.1", "fields that are not known are ignored", get("X-New: y", "Cookie: z"), (200,)),
    Row("5.3", "lines of one name are a list", get('If-None-Match: "x"', f"If-None-Match: {ETAG}"), (304,)),
    Row("5.4", "too many fields", get(*["A: b"] * 200), (431,), open=False),
    Row("5.5", "NUL in a value", get("A: b\0"), (400,), open=False),
    Row("5.5", "bytes over 127 in a value", get("A: caf\xe9"), (200,)),
    Row("5.6.1", "empty elements of a list", get("Connection: ,, close,"), (200,), CLOSED, open=False),
    Row("6.4.2", "HEAD has no content", get(method="HEAD") + get(), (200, 200), content=TEXT),
    Row("6.5.1", "framing in a trailer", get(CHUNKED) + b"0\r\nContent-Length: 1\r\n\r\n", (400,), open=False),
    Row("7.2", "an empty Host", get("Host:"), (400,), open=False),
    Row("7.4", "an https URI without TLS", get(target="https://localhost/a.txt"), (421,)),
    Row("7.6.1", "a Connection option that is ours but not its field's", get("Connection: Range"), (200,)),
    Row("7.8", "Upgrade is ignored", get("Upgrade: h2c, websocket", "Connection: upgrade"), (200,), {"upgrade": None}),
    Row("7.8", "Upgrade on HTTP/1.0 too", get("Upgrade: h2c", version="1.0"), (200,), {"upgrade": None}, open=False),
    Row("8.3", "Content-Type", get(), (200,), {"content-type": "text/plain; charset=utf-8"}),
    Row("8.6", "no Content-Length in a 204", get(method="OPTIONS"), (204,), {"content-length": None}),
    Row("8.6", "HEAD says the length of GET", get(method="HEAD"), (200,), {"content-length": "100"}),
    Row("8.6", "a length of many digits", get("Content-Length: " + "9" * 40), (400,), open=False),
    Row("8.8", "validators", get(), (200,), {"etag": ETAG, "last-modified": DATE}),
    Row("9.1", "GET and HEAD", get() + get(method="HEAD"), (200, 200)),
    Row("9.3.1", "a body of GET means nothing", get("Content-Length: 3") + b"abc", (200,), content=TEXT),
    Row("9.3.2", "HEAD of what is not there", get(target="/none", method="HEAD") + get(), (404, 200)),
    Row("9.3.3", "POST", get("Content-Length: 3", method="POST") + b"abc", (405,), {"allow": ALLOW}),
    Row("9.3.4", "PUT", get(CHUNKED, method="PUT") + b"1\r\na\r\n0\r\n\r\n", (405,), {"allow": ALLOW}),
    Row("9.3.5", "DELETE", get(method="DELETE"), (405,), {"allow": ALLOW}),
    Row("9.3.6", "CONNECT", get(target="localhost:80", method="CONNECT"), (405,), {"allow": ALLOW}),
    Row("9.3.6", "CONNECT without a port", get(target="localhost", method="CONNECT"), (400,), open=False),
    Row("9.3.7", "OPTIONS", get(method="OPTIONS"), (204,), {"allow": ALLOW}),
    Row("9.3.8", "TRACE", get("Cookie: secret", method="TRACE"), (405,), {"allow": ALLOW}),
    Row("10.1.1", "an expectation that is not known", get("Expect: tea"), (417,), open=False),
    Row("10.1.1", "100-continue", get("Expect: 100-continue", "Content-Length: 1") + b"x" + get(), (100, 200, 200)),
    Row("10.1.1", "no 100 without a body", get("Expect: 100-continue"), (200,)),
    Row("10.1.1", "no 100 on HTTP/1.0", get("Expect: 100-continue", "Content-Length: 1", version="1.0") + b"x", (200,),
        open=False),
    Row("10.1.1", "a final status at once", get("Expect: 100-continue", "Content-Length: 1", method="PUT"), (405,),
        CLOSED, open=False),
    Row("10.2.1", "405 has Allow", get(method="PATCH"), (405,), {"allow": ALLOW}),
    Row("10.2.2", "Location of a folder", get(target="/docs?q"), (301,), {"location": "/docs/?q"}),
    Row("13.1.1", "If-Match compares strongly", get(f"If-Match: W/{ETAG}"), (412,)),
    Row("13.1.1", "If-Match of any", get("If-Match: *"), (200,)),
    Row("13.1.2", "If-None-Match compares weakly", get(f"If-None-Match: W/{ETAG}"), (304,)),
    Row("13.1.3", "If-Modified-Since", get(f"If-Modified-Since: {DATE}"), (304,)),
    Row("13.1.3", "is ignored beside If-None-Match", get(f"If-Modified-Since: {DATE}", 'If-None-Match: "x"'), (200,)),
    Row("13.1.3", "and when it is no date", get("If-Modified-Since: now"), (200,)),
    Row("13.1.3", "and when the method is neither GET nor HEAD",
        get(f"If-Modified-Since: {DATE}", method="OPTIONS"), (204,)),
    Row("13.1.4", "If-Unmodified-Since", get("If-Unmodified-Since: Tue, 14 Nov 2023 22:13:19 GMT"), (412,)),
    Row("13.1.5", "If-Range that holds", get("Range: bytes=10-19", f"If-Range: {ETAG}"), (206,), PART),
    Row("13.1.5", "If-Range that is weak", get("Range: bytes=10-19", f"If-Range: W/{ETAG}"), (200,), content=TEXT),
    Row("13.1.5", "If-Range without Range", get('If-Range: "x"'), (200,)),
    Row("13.2.1", "conditions of what is not there", get("If-None-Match: *", target="/none"), (404,)),
    Row("13.2.2", "If-Match goes first", get('If-Match: "x"', f"If-None-Match: {ETAG}"), (412,)),
    Row("14.1.2", "the last bytes", get("Range: bytes=-10"), (206,), {"content-range": "bytes 90-99/100"}),
    Row("14.2", "a unit that is not known", get("Range: lines=1-2"), (200,), content=TEXT),
    Row("14.2", "Range is for GET", get("Range: bytes=0-1", method="HEAD"), (200,), {"content-length": "100"}),
    Row("14.2", "an invalid Range", get("Range: bytes=9-1"), (200,), content=TEXT),
    Row("14.3", "Accept-Ranges", get(), (200,), {"accept-ranges": "bytes"}),
    Row("14.4", "Content-Range", get("Range: bytes=10-19"), (206,), PART, content=b"0123456789"),
    Row("15.3.7.2", "several parts have no Content-Range", get("Range: bytes=0-1,5-6"), (206,),
        {"content-range": None}),
    Row("15.4.5", "304 has the fields of the 200", get(f"If-None-Match: {ETAG}"), (304,),
        {"etag": ETAG, "x-site": "one", "cache-control": "max-age=60", "content-length": None}),
    Row("15.5.14", "a body that is too large", get("Content-Length: 99999999"), (413,), CLOSED, open=False),
    Row("15.5.17", "416 says the size", get("Range: bytes=100-"), (416,), {"content-range": "bytes */100"}),
    Row("15.5.17", "416 with a condition that goes first", get("Range: bytes=100-", f"If-None-Match: {ETAG}"), (304,)),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rfc")
    for name in ("root", "two"):
        (folder / name / "docs").mkdir(parents=True)
    (folder / "root" / "a.txt").write_bytes(TEXT)
    os.utime(folder / "root" / "a.txt", (MTIME, MTIME))
    fields = 'headers = { X-Site = "one", Cache-Control = "max-age=60" }\n'
    two = f'[[site]]\nroot = "{folder}/two"\nhosts = ["two.example"]\n'
    with serving(folder, "[[site]]\n" + fields + two, root=folder / "root") as server:
        yield server


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{rfc}-{row.section}-{row.asks}") for rfc, rows in
            ((9112, RFC_9112), (9110, RFC_9110)) for row in rows]
)  # fmt: skip
def test_requirement(site: Server, row: Row) -> None:
    with site.connect() as client:
        client.send(row.data)
        replies = [read(client, row.data, number) for number in range(len(row.statuses))]
        assert tuple(reply.status for reply in replies) == row.statuses
        last = replies[-1]
        assert {name: last.headers.get(name) for name in row.fields} == row.fields
        assert row.content is None or last.body == row.content
        if row.open:
            assert "close" not in last.headers.get("connection", "")
            client.send(get("Connection: close"))
            assert client.read_reply().body == TEXT
        else:
            assert last.headers["connection"] == "close"
            client.socket.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b""


def read(client: Client, data: bytes, number: int) -> Reply:
    """The next reply, to the request of that number in `data`. Every final one has a Date (RFC 9110 6.6.1)."""
    methods = [line.split(b" ")[0] for line in data.split(b"\r\n") if b" HTTP/1." in line]
    reply = client.read_reply(head=number < len(methods) and methods[number] == b"HEAD")
    if reply.status >= 200:
        assert parse_date(reply.headers["date"].encode(), MTIME) is not None
    return reply
