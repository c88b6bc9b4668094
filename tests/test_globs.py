"""Globs, against the plainest matcher that there is, and against paths made to cost time."""

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flashpy.http.glob import Glob


def ends(pattern: str, path: str, at: int) -> Iterator[int]:
    """Every place of `path` that `pattern` can reach from `at`; `pattern` has no braces. Tries everything."""
    if not pattern:
        yield at
    elif pattern.startswith("/**/"):
        if path[at : at + 1] == "/":
            for stop in range(at + 1, len(path) + 1):
                if path[stop - 1] == "/":
                    yield from ends(pattern[3:], path, stop - 1)
    elif pattern.startswith("**"):
        for stop in range(at, len(path) + 1):
            yield from ends(pattern[2:], path, stop)
    elif pattern[0] == "*":
        for stop in range(at, len(path) + 1):
            if "/" not in path[at:stop]:
                yield from ends(pattern[1:], path, stop)
    elif at < len(path):
        width = pattern.index("]") + 1 if pattern[0] == "[" else 1
        one, character = pattern[:width], path[at]
        allowed = {"[ab]": character in "ab", "[!a]": character not in "a/", "?": character != "/"}
        if allowed.get(one, character == one):
            yield from ends(pattern[width:], path, at + 1)


def without_braces(pieces: list[str | list[str]]) -> Iterator[str]:
    if not pieces:
        yield ""
        return
    for first in [pieces[0]] if isinstance(pieces[0], str) else pieces[0]:
        for rest in without_braces(pieces[1:]):
            yield first + rest


PLAIN = st.sampled_from(["a", "b", "-", "/", "?", "[ab]", "[!a]", "*", "**", "/**/", "a/", "*b"])
BRACES = st.lists(st.sampled_from(["a", "b", "ab", "a*b", "?", "", "a/b"]), min_size=2, max_size=3)
PATTERNS = st.lists(PLAIN | PLAIN | BRACES, max_size=7)
PATHS = st.text("ab-/", max_size=12)


def joined(pieces: list[str | list[str]]) -> str:
    """The pattern. Stars beside braces are left out: the plain matcher would see others once the braces are gone."""
    pattern = "/" + "".join(piece if isinstance(piece, str) else f"{{{','.join(piece)}}}" for piece in pieces)
    assume(not re.search(r"\*\{|\}\*", pattern) and pattern.count("{") <= 3)
    return pattern


@given(PATTERNS, PATHS)
@settings(deadline=None, max_examples=3000)
def test_a_glob_matches_what_the_plain_matcher_does(pieces: list[str | list[str]], path: str) -> None:
    pattern = joined(pieces)
    if "***" in pattern:
        with pytest.raises(ValueError, match="not more in a row"):
            Glob(pattern)
        return
    expected = any(len(path) + 1 in ends("/" + plain, "/" + path, 0) for plain in without_braces(pieces))
    caught = Glob(pattern).match(path)
    assert (caught is not None) == expected, pattern
    assert caught is None or len(caught) == Glob(pattern).wildcards


@given(st.lists(st.sampled_from(["a", "-", "/x/", "*", "?", "[ab]"]), max_size=8), PATHS)
def test_what_was_caught_puts_the_path_together_again(pieces: list[str], path: str) -> None:
    pattern = "/" + "".join(pieces)
    caught = None if "**" in pattern else Glob(pattern).match(path)
    if caught is not None:
        parts = iter(caught)
        assert "".join(next(parts) if piece in ("*", "?", "[ab]") else piece for piece in pieces) == path


@given(PATTERNS)
@settings(deadline=None)
def test_the_example_matches(pieces: list[str | list[str]]) -> None:
    pattern = joined(pieces)
    if "***" not in pattern:
        assert Glob(pattern).match(Glob(pattern).example()) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "caught"),
    [
        ("/", "", ()),
        ("/assets/**", "assets/a/b", ("a/b",)),
        ("/assets/**", "assets/", ("",)),
        ("/assets/**", "assets", None),
        ("/**/*.js", "app.js", ("", "app")),
        ("/**/*.js", "a/b/app.js", ("a/b", "app")),
        ("/*", "a/b", None),
        ("/?", "\u00e9", ("\u00e9",)),
        ("/[]a]", "]", ("]",)),
        ("/[*]", "*", ("*",)),
        ("/*-*", "a-b-c", ("a", "b-c")),
        ("/{blog,news}/**", "news/x/y", ("news", "x/y")),
        ("/{a*,b}/{,x?}c", "a12/xyc", ("a12", "12", "xy", "y")),
        ("/{a*,b}/{,x?}c", "b/c", ("b", "", "", "")),
        ("/**/x*/z", "x1/q/x2/z", ("x1/q", "2")),
        ("/a.b", "axb", None),
    ],
)
def test_what_each_wildcard_catches(pattern: str, path: str, caught: tuple[str, ...] | None) -> None:
    assert Glob(pattern).match(path) == caught


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "begins with a slash"),
        ("*.js", "begins with a slash"),
        ("/{a", "expected } after {"),
        ("/a}", "expected { before }"),
        ("/{a}", "two or more"),
        ("/***", "not more in a row"),
        ("/a/***", "not more in a row"),
        ("/[z-a]", "from low to high"),
        ("/[", "around the characters of a set"),
        ("/a]", "around the characters of a set"),
        ("/[]", "around the characters of a set"),
        ("/[!]", "around the characters of a set"),
        ("/[a/b]", "without slash"),
        ("/\\*", "write [*]"),
        ("/a\n", "no path has"),
        ("/" + "{a,b}" * 7, "100 globs at most"),
    ],
)
def test_what_is_no_glob_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Glob(pattern)


@pytest.mark.parametrize("pattern", ["/**a*b**a*b**a*bc", "/**/a/**/a/**/a/**/b", "/*a*a*a*a*b", "/**a*a*a*a*b"])
@pytest.mark.parametrize("path", ["a/" * 2047, ("a" * 250 + "/") * 16, ("ab" * 125 + "/") * 16])
def test_no_path_costs_much_time(pattern: str, path: str) -> None:
    # 4 ms at most on an idle machine; a `.*` for each wildcard would take minutes.
    glob, start = Glob(pattern), time.process_time()
    assert glob.match(path) is None
    assert time.process_time() - start < 0.5
