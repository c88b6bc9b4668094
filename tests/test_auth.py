"""Rules that ask for a password: who gets in, what others learn, and what is never remembered."""

import os
import signal
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.config import ConfigError, load, to_toml
from flashpy.http.credentials import Credentials, HtpasswdError, dearest, hash_of_nobody, parse_basic, parse_htpasswd
from tests.conftest import StartServer
from tests.server import Server, wait_until
from tests.web import head, lines_of


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


ANN, BOB = basic("ann", "secret"), basic("bob", "hunter2")


@pytest.fixture
def site(docroot: Path) -> Path:
    (docroot / "private").mkdir()
    for name in ("index.html", "private/index.html", "private/a.txt", "open.txt"):
        (docroot / name).write_bytes(name.encode())
    return docroot


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "htpasswd"
    file.write_text(f"# of the house\nann:{hashed('secret')}\n\nbob:{hashed('hunter2')}:a comment\n")
    return file


def rule(users: Path, match: str = "/private/**", more: str = "") -> str:
    return f'[[site.rule]]\nmatch = "{match}"\nauth = {{ htpasswd = "{users}"{more} }}\n'


@pytest.fixture
def server(start_server: StartServer, site: Path, users: Path) -> Server:
    text = '[[site]]\nlisting = "html"\n' + rule(users, more=', realm = "the house"')
    return start_server(text + '[[site.rule]]\nmatch = "/private/open/**"\nauth = { htpasswd = "" }\n', root=site)


def test_who_says_the_password_gets_in(server: Server) -> None:
    with server.connect() as client:
        for _ in range(3):
            for fields in ({}, basic("ann", "wrong"), basic("eve", "secret"), {"Authorization": "Bearer x"}):
                refused = client.request("/private/a.txt", fields)
                assert refused.status == 401
                assert refused.headers["www-authenticate"] == 'Basic realm="the house", charset="UTF-8"'
                assert b"private/a.txt" not in refused.body
            for fields in (ANN, BOB):
                assert client.request("/private/a.txt", fields).body == b"private/a.txt"
                assert client.request("/private/", fields).body == b"private/index.html"
            assert client.request("/open.txt").body == b"open.txt"
            assert client.request("/open.txt", basic("eve", "x")).body == b"open.txt"
    server.wait_log("401: wrong password, or no such user: 'eve': \"GET /private/a.txt HTTP/1.1\" for")
    server.stop()
    assert server.counters()["heavy_jobs"] == 4, "two right ones and two wrong ones, each held against its hash once"


def test_nobody_learns_what_is_there(server: Server) -> None:
    for path in ("/private", "/private/none", "/private/", "/private/none/"):
        assert server.get(path).status == (401 if path != "/private" else 301), path
        assert server.get(path, basic("ann", "x")).status == (401 if path != "/private" else 301)
    assert server.get("/private/none", ANN).status == 404
    assert server.get("/private/open/none").status == 404
    for method, status in (("HEAD", 401), ("OPTIONS", 204), ("POST", 405)):
        with server.connect() as client:
            client.send(head("/private/a.txt", method=method))
            assert client.read_reply(head=True).status == status


def test_conditions_and_ranges_need_it_too(server: Server) -> None:
    tag = server.get("/private/a.txt", ANN).headers["etag"]
    for _ in range(3):
        assert server.get("/private/a.txt", ANN | {"If-None-Match": tag}).status == 304
        assert server.get("/private/a.txt", {"If-None-Match": tag}).status == 401
        assert server.get("/private/a.txt", ANN | {"Range": "bytes=0-1"}).body == b"pr"
        assert server.get("/private/a.txt", {"Range": "bytes=0-1"}).status == 401


def test_a_reply_for_somebody_is_remembered_for_nobody(server: Server) -> None:
    with server.connect() as client:
        for _ in range(8):
            assert client.request("/private/a.txt", ANN).status == 200
        assert client.request("/private/a.txt").status == 401
    server.stop()
    counters = server.counters()
    assert counters["memo_hits"] == 0
    assert counters["hits"] >= 7


def test_the_user_is_in_the_access_log(server: Server) -> None:
    server.get("/private/a.txt", ANN)
    server.get("/private/a.txt", basic("eve", "x"))
    server.get("/open.txt", ANN)
    first, second, third = lines_of(server, 3)
    assert first.startswith("127.0.0.1 - ann [")
    assert second.startswith("127.0.0.1 - - [")
    assert third.startswith("127.0.0.1 - - [")


def test_an_index_is_guarded_by_its_own_name_too(start_server: StartServer, site: Path, users: Path) -> None:
    server = start_server('[[site]]\npreset = ["spa"]\n' + rule(users, "/index.html"), root=site)
    page = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    for _ in range(3):
        for path in ("/", "/index.html", "/users/7"):
            assert server.get(path, page).status == 401, path
            assert server.get(path, page | ANN).body == b"index.html"


def test_no_shared_cache_may_keep_what_needed_a_password(start_server: StartServer, site: Path, users: Path) -> None:
    for name in ("app.3f2a91bc.js", "private/app.3f2a91bc.js"):
        (site / name).write_bytes(b"x")
    more = '[[site.rule]]\nmatch = "/private/*.txt"\ncache = "immutable"\n'
    server = start_server('[[site]]\npreset = ["hashed-assets"]\n' + rule(users) + more, root=site)
    kept = ", max-age=31536000, immutable"
    for _ in range(3):
        assert server.get("/app.3f2a91bc.js").headers["cache-control"] == "public" + kept
        for path in ("/private/app.3f2a91bc.js", "/private/a.txt"):
            assert server.get(path, ANN).headers["cache-control"] == "private" + kept


def test_passwords_are_read_anew_at_a_reload(server: Server, users: Path) -> None:
    assert server.get("/private/a.txt", ANN).status == 200
    users.write_text(f"ann:{hashed('changed')}\n")
    server.signal(signal.SIGHUP)
    server.wait_log("reloaded")
    assert server.get("/private/a.txt", ANN).status == 401
    assert server.get("/private/a.txt", basic("ann", "changed")).status == 200
    users.write_text("ann:plain\n")
    server.expect_error("not reloaded")
    server.signal(signal.SIGHUP)
    assert f"{users}:1: the hash of 'ann' is not bcrypt" in server.wait_log("not reloaded")
    assert server.get("/private/a.txt", basic("ann", "changed")).status == 200


def test_no_helper_is_an_error_and_no_door(start_server: StartServer, site: Path, users: Path) -> None:
    text = '[heavy]\nmin = 1\nmax = 1\ntimeout = "0.5s"\n[[site]]\n' + rule(users)
    server = start_server(text, root=site)
    wait_until(lambda: server.named("flashpy-press"))
    (helper,) = server.named("flashpy-press")
    os.kill(helper, signal.SIGSTOP)
    assert server.get("/private/a.txt", ANN).status == 504
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: server.get("/private/a.txt", ANN).status == 200)


def test_those_without_a_password_wait_for_nobody(start_server: StartServer, site: Path, users: Path) -> None:
    """While all heavy helpers are at passwords, files are served as ever."""
    server = start_server("[heavy]\nmin = 1\nmax = 1\n[[site]]\n" + rule(users), root=site)
    wait_until(lambda: server.named("flashpy-press"))
    (helper,) = server.named("flashpy-press")
    os.kill(helper, signal.SIGSTOP)
    with server.connect() as waiting, server.connect() as client:
        waiting.send(head("/private/a.txt", f"Authorization: {ANN['Authorization']}"))
        for _ in range(3):
            assert client.request("/open.txt").status == 200
        os.kill(helper, signal.SIGCONT)
        assert waiting.read_reply().body == b"private/a.txt"


def test_there_is_no_clear_word_in_what_is_shown(site: Path, users: Path, tmp_path: Path) -> None:
    file = tmp_path / "flashpy.toml"
    file.write_text(f'[[site]]\nroot = "{site}"\n' + rule(users))
    settings = load(file)
    auth = settings.site[0].rule[0].auth
    assert auth is not None
    assert set(auth.users) == {"ann", "bob"}
    shown = to_toml(settings)
    assert "$2b$" not in shown
    file.write_text(shown)
    assert load(file) == settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ann\n", 'htpasswd:1: expected "user:hash"'),
        ("\n:x\n", 'htpasswd:2: expected "user:hash"'),
        ("ann:secret\n", "htpasswd:1: the hash of 'ann' is not bcrypt; make it with: htpasswd -B"),
        ("ann:$apr1$abc$def\n", "htpasswd:1: the hash of 'ann' is not bcrypt"),
        (f"ann:$2y$04${'a' * 53}\n", "htpasswd:1: the hash of 'ann' is not bcrypt"),
        (f"ann:$2y$31${'e' * 53}\n", "htpasswd:1: the hash of 'ann' has a cost of 31; expected 4 to 16"),
        (f"ann:$2y$04${'e' * 53}\n" * 2, "htpasswd:2: the user 'ann' is given twice"),
        ("# nobody\n", "flashpy.toml:6: site[0].rule[0].auth.htpasswd: "),
        (None, "flashpy.toml:6: site[0].rule[0].auth.htpasswd: "),
    ],
)
def test_a_bad_htpasswd_is_refused_with_its_line(site: Path, tmp_path: Path, text: str | None, words: str) -> None:
    users, file = tmp_path / "htpasswd", tmp_path / "flashpy.toml"
    if text is not None:
        users.write_text(text)
    file.write_text(f'[[site]]\nroot = "{site}"\n' + rule(users).replace("auth", "\nauth"))
    with pytest.raises(ConfigError) as problem:
        load(file)
    assert words in str(problem.value)


@pytest.mark.parametrize("realm", ["", 'a"b', "a\\\\b", "grün", "a\\nb"])
def test_a_realm_that_no_field_can_hold_is_refused(site: Path, users: Path, tmp_path: Path, realm: str) -> None:
    file = tmp_path / "flashpy.toml"
    file.write_text(f'[[site]]\nroot = "{site}"\n' + rule(users, more=f", realm = '{realm}'"))
    with pytest.raises(ConfigError, match=r"auth\.realm|not valid TOML"):
        load(file)


# Values


@given(
    st.text(st.characters(exclude_characters=":\0", exclude_categories=["Cs"])),
    st.text().filter(lambda text: "\0" not in text),
)
def test_credentials_come_back(user: str, password: str) -> None:
    value = basic(user, password.encode("utf-8", "replace").decode())["Authorization"].encode()
    found = parse_basic(value)
    assert found == (Credentials(user.encode(), password.encode("utf-8", "replace")) if len(value) <= 1024 else None)


@given(st.none() | st.binary() | st.binary().map(lambda rest: b"Basic " + rest))
def test_what_is_no_credentials_is_none(value: bytes | None) -> None:
    found = parse_basic(value)
    assert found is None or b":" not in found.user


def test_a_file_as_htpasswd_writes_it() -> None:
    hash = hashed("x").replace("$2b$", "$2y$")
    assert parse_htpasswd(f"a b:{hash}\n#c:d\n  \nü:{hash}:Ü") == {"a b": hash, "ü": hash}
    with pytest.raises(HtpasswdError) as problem:
        parse_htpasswd("ok\n")
    assert problem.value.line == 1


def test_nobody_costs_as_much_as_the_dearest() -> None:
    cost = dearest(b"$2b$%02d$" % cost + b"a" * 53 for cost in (4, 6, 5))
    names = (b"eve", b"mallory", b"", "grün".encode())
    hashes = {hash_of_nobody(user, cost) for user in names}
    assert len(hashes) == len(names)
    for nobody in hashes:
        assert nobody.startswith(b"$2b$06$")
        assert not bcrypt.checkpw(b"", nobody)


def test_a_password_that_was_tried_for_one_name_is_not_known_for_another(server: Server) -> None:
    """Else a reply at once would tell that the name is not there."""
    for name in ("eve", "mallory", "ann", "eve", "mallory", "ann"):
        assert server.get("/private/a.txt", basic(name, "guess")).status == 401
    server.stop()
    assert server.counters()["heavy_jobs"] == 3
