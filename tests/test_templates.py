"""Where a rule leads: placeholders, and that no client can make it lead elsewhere."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.target import is_served_path, parse_target
from flashpy.http.template import RedirectTemplate, RewriteTemplate

CAUGHT = st.text(max_size=8) | st.sampled_from(["/", "//", "/evil.example", "\r\nX: y", "\\", "..", ".git", ""])
TARGETS = ["/{1}", "/{1}{2}", "/{1}/{2}", "/{1}/x?q={2}", "/{path}", "/a/{1}?{query}", "/{1}?{query}&z#{2}"]


@pytest.mark.parametrize(
    ("to", "caught", "query", "location"),
    [
        ("/new/{1}", ["a b/\u00e9"], b"x=1", b"/new/a%20b/%C3%A9"),
        ("/n?{query}", [], None, b"/n"),
        ("/n?{query}", [], b"a=<>&b=%20", b"/n?a=%3C%3E&b=%20"),
        ("/n?a={1}&{query}#f", ["x&y=1"], b"p", b"/n?a=x%26y%3D1&p#f"),
        ("/n?a={1}&{query}#f", ["x"], None, b"/n?a=x#f"),
        ("https://h.example/{path}", [], None, b"https://h.example/old/%C3%A9"),
        ("/a/{1}/b", [""], None, b"/a/b"),
        ("/{1}/x?q={2}", ["", "1"], None, b"/x?q=1"),
    ],
)
def test_a_location_is_filled(to: str, caught: list[str], query: bytes | None, location: bytes) -> None:
    assert RedirectTemplate(to).location("old/\u00e9", caught).with_query(query) == location


@given(st.sampled_from(TARGETS), CAUGHT, CAUGHT, st.none() | st.binary(max_size=8))
def test_a_location_stays_a_path_of_visible_ascii(to: str, one: str, two: str, query: bytes | None) -> None:
    location = RedirectTemplate(to).location(one, [one, two]).with_query(query)
    assert re.fullmatch(rb"/(?![/\\])[!-~]*|/", location)


@given(st.sampled_from(["/{1}", "/{1}{2}", "/{1}/{2}", "/x/{1}.html", "/{path}"]), CAUGHT, CAUGHT, st.booleans())
def test_a_rewrite_leads_only_where_a_client_could_go(to: str, one: str, two: str, dotfiles: bool) -> None:
    path = RewriteTemplate(to, dotfiles).path(one, [one, two], dotfiles)
    if path is not None:
        assert not path.startswith(b"/")
        assert is_served_path(path, dotfiles)
        escaped = b"".join(b"%c" % byte if byte == 47 else b"%%%02X" % byte for byte in path)
        if b"\0" not in path and b"\\" not in path:
            assert parse_target(b"/" + escaped, dotfiles).path == path


@pytest.mark.parametrize(("one", "path"), [("a/b", b"o/a/b"), ("", b"o/"), (".git/config", None), ("..", None)])
def test_a_rewrite_is_filled(one: str, path: bytes | None) -> None:
    assert RewriteTemplate("/o/{1}", dotfiles=False).path("p", [one], dotfiles=False) == path


def test_it_is_known_where_a_redirect_leads() -> None:
    assert RedirectTemplate("/en/{1}?x").leads_to("a", ["\u00e9"]) == "en/\u00e9"
    assert RedirectTemplate("https://h.example/{1}").leads_to("a", ["a"]) is None
    assert RedirectTemplate("/{3}-{1}").highest == 3
    assert RedirectTemplate("/{path}?{query}").highest == 0


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("", "begins with one slash"),
        ("new", "begins with one slash"),
        ("//evil.example", "begins with one slash"),
        ("javascript:x", "begins with one slash"),
        ("https://h{1}/", "fixed name of a host"),
        ("https://u@h/", "fixed name of a host"),
        ("https://", "fixed name of a host"),
        ("/a b", "percent-encoded"),
        ("/a\r\nX: y", "percent-encoded"),
        ("/%zz", "percent-encoded"),
        ("/{0}", "between braces"),
        ("/{name}", "between braces"),
        ("/{query}", "after a question mark"),
        ("/#?{query}", "after a question mark"),
        ("/a?{query}{query}", "once at most"),
    ],
)
def test_what_is_no_redirect_is_refused(to: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RedirectTemplate(to)


@pytest.mark.parametrize("to", ["", "x", "//x", "/a//b", "/../x", "/.git/{1}", "/a\\b", "/a\n", "/a?{query}", "/{x}"])
def test_what_is_no_rewrite_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        RewriteTemplate(to, dotfiles=False)
