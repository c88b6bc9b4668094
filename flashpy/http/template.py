"""Where a rule leads: a text with placeholders, `/new/{1}?{query}`. Values only: master (checks) and worker.

What fills a placeholder came from a client. In a Location it is percent-encoded anew, so it holds nothing but visible
ASCII, and two slashes never meet at its ends: a path cannot turn into `//host`, which browsers take for another server.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

from flashpy.http.target import is_served_path, valid_host

PATH: Final = 0
QUERY: Final = -1
"""Placeholders that no wildcard fills: the decoded path without its first slash, and the raw query."""

_PLACEHOLDER = re.compile(r"\{(path|query|[1-9][0-9]?)\}")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)")
# RFC 3986: what a URL may consist of, and a query without its own separators.
_URL = re.compile(r"(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_IN_PATH: Final = frozenset(b"/:@-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_IN_QUERY: Final = _IN_PATH - frozenset(b"&+;=#?")
_RAW_QUERY: Final = _IN_PATH | frozenset(b"%?")
_SAMPLE = "x"


class Location(NamedTuple):
    """A Location but for the query of the request: `after` is None when it has no place for one."""

    before: bytes
    after: bytes | None

    def with_query(self, query: bytes | None) -> bytes:
        """The field's value for a request with this raw query (None: without one)."""
        if self.after is None:
            return self.before
        if not query:
            return self.before.rstrip(b"?&") + self.after
        return self.before + _encode(query, _RAW_QUERY) + self.after


class Template:
    """A compiled text. `parts` are its texts and, as numbers, its placeholders."""

    __slots__ = ("parts",)

    def __init__(self, text: str) -> None:
        pieces = _PLACEHOLDER.split(text)
        for piece in pieces[::2]:
            if "{" in piece or "}" in piece:
                raise ValueError("expected {1}, {2} and so on, {path} or {query} between braces")
        self.parts: list[str | int] = [_number(piece) if place % 2 else piece for place, piece in enumerate(pieces)]

    @property
    def highest(self) -> int:
        """The wildcards that a glob must have to fill it."""
        return max((part for part in self.parts if isinstance(part, int)), default=0)


class RedirectTemplate(Template):
    """`to` of a redirect: a path, or an http(s) URL whose host is fixed. Raises ValueError for any other."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        _check_start(text)
        if not all(_URL.fullmatch(part) for part in self.parts if isinstance(part, str)):
            raise ValueError(f"expected a URL, percent-encoded where it must be, not {text!r}")
        before, _, after = text.partition("{query}")
        if after and "{query}" in after:
            raise ValueError("expected {query} once at most")
        if "{query}" in text and ("?" not in before or "#" in before):
            raise ValueError('expected {query} after a question mark, as in "/new?{query}"')

    def location(self, path: str, caught: Sequence[str]) -> Location:
        """Filled with what each wildcard `caught` in the decoded `path`."""
        halves = [b""]
        in_path = True
        for part in self.parts:
            if part == QUERY:
                halves.append(b"")
                continue
            text = self._text(part, path, caught, _IN_PATH if in_path else _IN_QUERY)
            halves[-1] = _join(halves[-1], text) if in_path else halves[-1] + text
            in_path = in_path and not (isinstance(part, str) and ("?" in part or "#" in part))
        return Location(halves[0], halves[1] if len(halves) > 1 else None)

    def _text(self, part: str | int, path: str, caught: Sequence[str], literal: frozenset[int]) -> bytes:
        if isinstance(part, str):
            return part.encode("ascii")
        return _encode((path if part == PATH else caught[part - 1]).encode(), literal)

    def leads_to(self, path: str, caught: Sequence[str]) -> str | None:
        """The decoded path that a client would ask for next; None when it is another server's."""
        where = re.split(rb"[?#]", self.location(path, caught).before)[0].decode("ascii")
        return unquote(where)[1:] if where.startswith("/") else None


class RewriteTemplate(Template):
    """`rewrite` of a rule: another path of the site, decoded. Raises ValueError for what is none."""

    __slots__ = ()

    def __init__(self, text: str, dotfiles: bool) -> None:
        super().__init__(text)
        if QUERY in self.parts:
            raise ValueError("expected a path; {query} has no place in it")
        sample = self._filled(_SAMPLE, [_SAMPLE] * self.highest)
        if text[:1] != "/" or text[:2] == "//" or not text.isprintable() or "\\" in text:
            raise ValueError(f'expected a path such as "/other/{{1}}", decoded, not {text!r}')
        if not is_served_path(sample, dotfiles):
            raise ValueError(f"expected a path that a client could ask for too, not {text!r}")

    def path(self, path: str, caught: Sequence[str], dotfiles: bool) -> bytes | None:
        """The path without its first slash; None when what was caught makes it one that no client could ask for."""
        filled = self._filled(path, caught)
        return filled if is_served_path(filled, dotfiles) else None

    def _filled(self, path: str, caught: Sequence[str]) -> bytes:
        filled = b""
        for part in self.parts:
            text = part if isinstance(part, str) else path if part == PATH else caught[part - 1]
            filled = _join(filled, text.encode())
        return filled[1:]


def _number(name: str) -> int:
    if name == "path":
        return PATH
    return QUERY if name == "query" else int(name)


def _check_start(text: str) -> None:
    absolute = _ABSOLUTE.match(text)
    if absolute is not None:
        if not valid_host(absolute[1].encode("utf-8", "replace")):
            raise ValueError(f"expected the fixed name of a host after the scheme, not {absolute[1]!r}")
    elif text[:1] != "/" or text[:2] == "//":
        raise ValueError(f'expected a path that begins with one slash, or "https://...", not {text!r}')


def _join(before: bytes, text: bytes) -> bytes:
    """One after the other; slashes that meet are one slash."""
    return before + (text.lstrip(b"/") if before.endswith(b"/") else text)


def _encode(text: bytes, literal: frozenset[int]) -> bytes:
    return b"".join([b"%c" % byte if byte in literal else b"%%%02X" % byte for byte in text])
