"""The rules of a site, compiled with values, and over a running server."""

from pathlib import Path
from typing import Any

import pytest

from flashpy.config import ConfigError, load, to_toml
from flashpy.config import Site as SiteSettings
from flashpy.connection import WAITS
from flashpy.http.presets import IMMUTABLE
from flashpy.rules import Rules
from tests.conftest import StartServer
from tests.server import Reply, Server, wait_until
from tests.web import head

SITE = """\
[[site]]
root = "."
headers = { X-Site = "own" }
"""
ONE = '[[site.rule]]\nmatch = "/a/**"\n'


def site_of(folder: Path, text: str) -> SiteSettings:
    (folder / "c.toml").write_text(SITE + text)
    settings = load(folder / "c.toml")
    again = folder / "again.toml"
    again.write_text(to_toml(settings))
    assert load(again) == settings, "what is printed is the same"
    return settings.site[0]


def fields_of(folder: Path, text: str, path: bytes, **asked: Any) -> dict[str, str]:
    ruling = Rules(site_of(folder, text)).ruling(path)
    lines = ruling.extra(asked.get("origin"), secure=asked.get("secure", False), error=asked.get("error", False))
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)


def test_without_rules_there_is_one_ruling(tmp_path: Path) -> None:
    rules = Rules(site_of(tmp_path, ""))
    assert rules.ruling(b"a") is rules.ruling(b"b")
    assert rules.ruling(b"a").fields == b"X-Site: own\r\n"


def test_all_that_match_apply_and_later_ones_are_stronger(tmp_path: Path) -> None:
    text = ONE + 'cache = "1h"\nheaders = { X-One = "1", x-site = "rule" }\n'
    text += '[[site.rule]]\nmatch = ["/b", "/a/*.js"]\ncache = "immutable"\nheaders = { X-ONE = "" }\n'
    assert fields_of(tmp_path, text, b"a/x.css") == {"x-site": "rule", "X-One": "1", "Cache-Control": "max-age=3600"}
    assert fields_of(tmp_path, text, b"a/x.js") == {"x-site": "rule", "Cache-Control": IMMUTABLE}
    assert fields_of(tmp_path, text, b"c") == {"X-Site": "own"}
    assert fields_of(tmp_path, text, b"a/x.js", error=True) == {"x-site": "rule"}, "an error is not kept"


def test_where_paths_lead(tmp_path: Path) -> None:
    text = '[[site.rule]]\nmatch = "/old/**"\nredirect = { to = "/new/{1}?{query}", status = 308 }\n'
    text += '[[site.rule]]\nmatch = "/old/**"\ndeny = true\n[[site.rule]]\nmatch = "/api/*"\nrewrite = "/v1/{1}.json"\n'
    text += '[[site.rule]]\nmatch = "/private/**"\ndeny = true\n'
    rules = Rules(site_of(tmp_path, text))
    status, location = rules.ruling(b"old/a b/\xc3\xa9").redirect or (0, None)
    assert location is not None
    assert (status, location.with_query(b"x=1")) == (308, b"/new/a%20b/%C3%A9?x=1")
    assert location.with_query(None) == b"/new/a%20b/%C3%A9"
    assert not rules.ruling(b"old/x").deny
    assert rules.ruling(b"api/list").rewrite == b"v1/list.json"
    assert (rules.ruling(b"private/x").deny, rules.may_bar) == (True, True)


def test_who_may_read(tmp_path: Path) -> None:
    text = ONE + 'cors = ["https://a.example", "http://b.example:81"]\n'
    mine = fields_of(tmp_path, text, b"a/x", origin=b"https://a.example")
    assert (mine["Access-Control-Allow-Origin"], mine["Vary"]) == ("https://a.example", "Origin")
    other = fields_of(tmp_path, text, b"a/x", origin=b"https://evil.example", error=True)
    assert ("Access-Control-Allow-Origin" in other, other["Vary"]) == (False, "Origin")
    assert "Vary" not in fields_of(tmp_path, text, b"b", origin=b"https://a.example")
    everybody = fields_of(tmp_path, ONE + 'cors = "*"\n', b"a/x", error=True)
    assert (everybody["Access-Control-Allow-Origin"], "Vary" in everybody) == ("*", False)
    both = ONE + 'cors = "*"\n' + ONE + 'cors = "https://a.example"\n'
    assert "Access-Control-Allow-Origin" not in fields_of(tmp_path, both, b"a/x")


def test_presets(tmp_path: Path) -> None:
    text = 'preset = ["hashed-assets", "secure-headers"]\n'
    hashed = fields_of(tmp_path, text, b"app.3f9a1c2b.js", secure=True)
    assert hashed["Cache-Control"] == IMMUTABLE
    assert hashed["X-Content-Type-Options"] == "nosniff"
    assert hashed["Strict-Transport-Security"].startswith("max-age=")
    plain = fields_of(tmp_path, text, b"index.html")
    assert (plain["Cache-Control"], "Strict-Transport-Security" in plain) == ("no-cache", False)
    assert "Cache-Control" not in fields_of(tmp_path, text, b"photo.jpg")
    own = text + ONE + 'cache = "5m"\nheaders = { X-Frame-Options = "" }\n'
    assert fields_of(tmp_path, own, b"a/index.html")["Cache-Control"] == "max-age=300"
    assert "X-Frame-Options" not in fields_of(tmp_path, own, b"a/index.html")


def test_rulings_are_remembered_within_bounds(tmp_path: Path) -> None:
    rules = Rules(site_of(tmp_path, ONE + 'cache = "1h"\n'))
    assert rules.ruling(b"a/1") is rules.ruling(b"a/1")
    for number in range(10_000):
        rules.ruling(b"a/%d" % number)
    assert len(rules._remembered) <= 4096


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[[site.rule]]\nmatch = "a"\ndeny = true', 5, "begins with a slash"),
        ("[[site.rule]]\nmatch = []\ndeny = true", 5, "at least one glob"),
        ('[[site.rule]]\nmatch = ["/a", "/{b"]\ndeny = true', 5, "expected }"),
        ('[[site.rule]]\nmatch = "/a"', 4, "this rule does nothing"),
        (ONE + 'cache = "soon"', 6, 'expected "immutable"'),
        (ONE + 'cache = "1h"\nheaders = { cache-control = "x" }', 6, "a Cache-Control in its headers"),
        (ONE + 'headers = { Content-Length = "1" }', 6, "the server sets this field itself"),
        (ONE + 'headers = { Vary = "Cookie" }', 6, "the server sets this field itself"),
        (ONE + 'headers = { "a b" = "1" }', 6, "not a field name"),
        (ONE + 'headers = { X = "a\\r\\nb" }', 6, "one line of printable ASCII"),
        (ONE + 'redirect = { to = "//evil" }', 6, "begins with one slash"),
        (ONE + 'redirect = { to = "/b/{2}" }', 6, "needs as many wildcards"),
        (ONE + 'redirect = { to = "/a/b/{1}" }', 6, "a circle"),
        (ONE + 'redirect = { to = "/b", status = 200 }', 6, "expected 301 or 302"),
        (ONE + "redirect = { status = 301 }", 6, "missing"),
        (ONE + 'rewrite = "b"', 6, "expected a path"),
        (ONE + 'rewrite = "/../b"', 6, "a client could ask for"),
        (ONE + 'deny = true\nrewrite = "/b"', 6, "one way to go"),
        (ONE + 'cors = ["*", "https://a"]', 6, 'expected "*" alone'),
        (ONE + 'cors = "https://a/"', 6, "expected"),
        (ONE + "deni = true", 6, "did you mean 'deny'"),
        ('preset = ["spa", "spa"]', 4, "given twice"),
        ('preset = ["speed"]', 4, 'expected "spa" or "hashed-assets"'),
        ('preset = ["spa"]\nindex = []', 4, "expected an index"),
        ('error_page = { 500 = "/x" }', 4, "expected 403 or 404"),
        ('error_page = { 404 = "404.html" }', 4, "the path of a file"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as problem:
        site_of(tmp_path, text + "\n")
    assert words in str(problem.value)
    assert f":{line}:" in str(problem.value)


@pytest.fixture
def site(docroot: Path) -> Path:
    for name, text in {
        "app.3f9a1c2b.js": "script",
        "lost.html": "lost page",
        "no.html": "forbidden page",
        "secret/index.html": "secret",
        "v1/list.json": "[1]",
        "about.html": "about",
    }.items():
        (docroot / name).parent.mkdir(exist_ok=True)
        (docroot / name).write_text(text)
    return docroot


def start(start_server: StartServer, root: Path, text: str) -> Server:
    return start_server("[cache]\nrevalidate = 0.1\n[[site]]\n" + text, root=root)


def test_rules_over_the_wire(start_server: StartServer, site: Path) -> None:
    text = """\
headers = { X-Site = "own" }
clean_urls = true
[[site.rule]]
match = "/old/*"
redirect = { to = "https://new.example/{1}?{query}", status = 301 }
[[site.rule]]
match = "/api/*"
rewrite = "/v1/{1}.json"
cache = "no-store"
[[site.rule]]
match = ["/secret/index.html", "/about.html"]
deny = true
[[site.rule]]
match = "/*.js"
cache = "immutable"
cors = ["https://a.example"]
"""
    server = start(start_server, site, text)
    with server.connect() as client:
        for _ in range(5):
            moved = client.request("/old/a%20b?x=1")
            assert (moved.status, moved.headers["location"]) == (301, "https://new.example/a%20b?x=1")
            listed = client.request("/api/list")
            assert (listed.body, listed.headers["cache-control"]) == (b"[1]", "no-store")
            assert listed.headers["content-type"] == "application/json"
            assert client.request("/about").status == 403, "by the name of its file"
            assert client.request("/secret/").status == 403
            script = client.request("/app.3f9a1c2b.js", {"Origin": "https://a.example"})
            assert script.headers["access-control-allow-origin"] == "https://a.example"
            assert (script.headers["vary"], script.headers["cache-control"]) == ("Origin", IMMUTABLE)
            other = client.request("/app.3f9a1c2b.js", {"Origin": "https://b.example"})
            assert "access-control-allow-origin" not in other.headers
            lost = client.request("/none.js", {"Origin": "https://a.example"})
            assert (lost.status, lost.headers["x-site"], "cache-control" in lost.headers) == (404, "own", False)
            assert lost.headers["access-control-allow-origin"] == "https://a.example"
        tag = script.headers["etag"]
        same = client.request("/app.3f9a1c2b.js", {"Origin": "https://a.example", "If-None-Match": tag})
        assert (same.status, same.headers["cache-control"]) == (304, IMMUTABLE)
        assert same.headers["access-control-allow-origin"] == "https://a.example"
        beyond = client.request("/app.3f9a1c2b.js", {"Origin": "https://a.example", "Range": "bytes=99-"})
        assert (beyond.status, beyond.headers["access-control-allow-origin"]) == (416, "https://a.example")
        client.send(head("/app.3f9a1c2b.js", "Origin: https://a.example", method="OPTIONS"))
        asked = client.read_reply(head=True)
        assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD")
        client.send(head("/app.3f9a1c2b.js", "Origin: https://b.example", method="OPTIONS"))
        assert "access-control-allow-methods" not in client.read_reply(head=True).headers
    server.stop()
    assert server.counters()["memo_hits"] > 0


PAGE = {"Accept": "text/html,*/*;q=0.8"}


def test_an_application_that_knows_its_own_paths(start_server: StartServer, site: Path) -> None:
    server = start(start_server, site, 'preset = ["spa", "hashed-assets"]\n')
    with server.connect() as client:
        index = client.request("/", PAGE)
        for _ in range(5):
            page = client.request("/users/jo.doe", PAGE)
            assert (page.status, page.body, page.headers["etag"]) == (200, index.body, index.headers["etag"])
            assert page.headers["cache-control"] == "no-cache"
            assert client.request("/users/7", {**PAGE, "If-None-Match": page.headers["etag"]}).status == 304
            assert page.headers["vary"] == "Accept, Sec-Fetch-Mode"
            lost = client.request("/lost.4f9a1c2b.js", PAGE)
            assert (lost.status, lost.headers.get("vary")) == (404, None)
            other = client.request("/users/7", {"Accept": "*/*"})
            assert (other.status, other.headers["vary"]) == (404, "Accept, Sec-Fetch-Mode")
            assert "vary" not in client.request("/", PAGE).headers
            assert client.request("/users/7", {**PAGE, "Sec-Fetch-Mode": "cors"}).status == 404
        (site / "users").mkdir()
        (site / "users/jo.doe").write_bytes(b"now a file")
        wait_until(lambda: client.request("/users/jo.doe", PAGE).body == b"now a file")
        (site / "index.html").write_bytes(b"another index")
        wait_until(lambda: client.request("/users/8", PAGE).body == b"another index")


def test_pages_for_errors(start_server: StartServer, site: Path) -> None:
    text = 'error_page = { 404 = "/lost.html", 403 = "/no.html" }\n[[site.rule]]\nmatch = "/private/**"\ndeny = true\n'
    server = start(start_server, site, text)

    def plainly(reply: Reply) -> tuple[int, bytes, bool]:
        return reply.status, reply.body, "etag" in reply.headers or "last-modified" in reply.headers

    with server.connect() as client:
        for _ in range(3):
            assert plainly(client.request("/none")) == (404, b"lost page", False)
            assert plainly(client.request("/none", {"Range": "bytes=0-1", "If-None-Match": "*"}))[:2] == (
                404,
                b"lost page",
            )
            assert plainly(client.request("/private/x")) == (403, b"forbidden page", False)
            assert client.request("/lost.html").status == 200
        client.send(head("/none", method="HEAD"))
        assert client.read_reply(head=True).headers["content-length"] == str(len("lost page"))
        (site / "lost.html").unlink()
        wait_until(lambda: b"There is nothing" in client.request("/none").body)
    server.wait_log('404: no page for it at /lost.html: "GET /none HTTP/1.1"')


def test_a_cache_too_small_for_all_that_a_reply_needs(start_server: StartServer, site: Path) -> None:
    """What is missing takes the place of what was missing before: no request may wait for ever."""
    (site / "index.html").unlink()
    text = 'preset = ["spa"]\nerror_page = { 404 = "/gone.html" }\n'
    server = start_server("[cache]\npaths = 4\n[[site]]\n" + text, root=site)
    with server.connect() as client:
        for number in range(5):
            assert client.request(f"/users/{number}", PAGE).status in (404, 503)
    server.stop()
    assert server.counters()["misses"] <= 5 * (WAITS + 1)
