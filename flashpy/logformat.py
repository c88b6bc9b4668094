"""What an access line looks like: `[log] format`, compiled. Values only: master (checks) and worker.

A format becomes a text in two steps. `fill` puts in what a request and its reply say, which is remembered with the
reply; what each line has of its own (the client, the time, how long it took) is left as `%(name)b` for the end. So the
line of a reply from memory costs one formatting of a few values.

A client chooses much of what stands in a line, and must not be able to forge one. In a text, what it sent is escaped as
\\xHH: control characters, what is not ASCII, quotes, backslashes, the character that follows in the format, and outside
of quotes every space. As JSON it is a string that the encoder made.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from flashpy.http.accesstext import escape

COMBINED: Final = '{client} - {user} [{clf}] "{request}" {status} {bytes} "{referer}" "{agent}"'
"""The format that is called "combined"."""

OF_THE_REPLY: Final = frozenset(
    (
        "agent",
        "bytes",
        "host",
        "method",
        "path",
        "protocol",
        "query",
        "referer",
        "request",
        "scheme",
        "status",
        "user",
        "worker",
    )
)
OF_THE_LINE: Final = frozenset(("client", "clf", "duration", "epoch", "request_id", "served", "time", "traceparent"))
"""The names of what `fill` takes, and of what it leaves."""
NUMBERS: Final = frozenset(("status", "bytes", "worker", "epoch", "duration"))
TRACING: Final = frozenset(("request_id", "traceparent"))
_JSON: Final = "time client user method path query protocol status bytes duration served host referer agent scheme"
_PIECE = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")

Values = Mapping[str, bytes | None]
Encode = Callable[[bytes], bytes]


class Format:
    """A compiled format. Raises ValueError for one that does not compile.

    `needs` are the names in it; `is_combined` is said of the one that everybody has.
    """

    __slots__ = ("_parts", "as_json", "is_combined", "needs")

    def __init__(self, text: str) -> None:
        kind, *names = text.split() or [""]
        self.as_json = kind == "json"
        self.is_combined = text == "combined"
        pieces = _object(names or _JSON.split()) if self.as_json else _pieces(COMBINED if self.is_combined else text)
        self.needs = frozenset(piece for piece in pieces[1::2])
        if not self.needs:
            raise ValueError('expected "combined", "json" or a text with names in braces, such as "{client} {status}"')
        for name in pieces[1::2]:
            _check_name(name)
        self._parts = _compile(pieces, self.as_json)

    def fill(self, values: Values) -> bytes:
        """The format with what a request and its reply say, ready for `%` with what the line has of its own."""
        pieces = []
        for part in self._parts:
            if isinstance(part, bytes):
                pieces.append(part)
            elif isinstance(part, str):
                pieces.append(b"%%(%b)b" % part.encode())
            else:
                name, encode = part
                pieces.append(encode(values[name] or b"").replace(b"%", b"%%"))
        return b"".join(pieces)

    def own(self, text: bytes) -> bytes:
        """One of the line's own values that is no number; b"" when there is none."""
        return _as_json(text) if self.as_json else text or b"-"


# Texts, and between them names: what a format consists of.
Pieces = list[str]
Part = bytes | str | tuple[str, Encode]


def _pieces(text: str) -> Pieces:
    """A text taken apart at its names in braces."""
    if not all(character.isprintable() or character == "\t" for character in text):
        raise ValueError("expected one line of printable characters")
    pieces = [""]
    for place, piece in enumerate(_PIECE.split(text)):
        if place % 2 == 0:
            pieces[-1] += piece
        elif piece in ("{{", "}}"):
            pieces[-1] += piece[0]
        elif len(piece) == 1:
            raise ValueError(f'expected names in braces, such as "{{client}}"; a brace itself is written {piece * 2}')
        else:
            pieces += [piece[1:-1], ""]
    return pieces


def _object(names: list[str]) -> Pieces:
    """An object with these members: the encoder makes the names here, and `_as_json` the values."""
    if len(set(names)) < len(names):
        raise ValueError("a name is given twice")
    pieces = ["{"]
    for place, name in enumerate(names):
        pieces[-1] += f"{', ' if place else ''}{json.dumps(name)}: "
        pieces += [name, ""]
    pieces[-1] += "}"
    return pieces


def _compile(pieces: Pieces, as_json: bool) -> list[Part]:
    """Texts, names of what the line has of its own, and the others with how each is written."""
    parts: list[Part] = []
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            parts.append(piece.encode().replace(b"%", b"%%"))
        elif piece in OF_THE_LINE:
            parts.append(piece)
        else:
            quoted = "".join(pieces[:place:2]).count('"') % 2 == 1
            following = "".join(pieces[place + 1 :: 2])[:1]
            parts.append((piece, _encoder(piece, as_json, following, quoted)))
    return [*parts, b"\n"]


def _check_name(name: str) -> None:
    known = sorted(OF_THE_REPLY | OF_THE_LINE)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown name {name!r}; {hint}")


def _encoder(name: str, as_json: bool, following: str, quoted: bool) -> Encode:
    if name in NUMBERS:
        return _number
    if as_json:
        return _as_json
    return _plain("" if quoted else " ", following)


def _number(text: bytes) -> bytes:
    return text


def _plain(*others: str) -> Encode:
    """Writes a value that cannot contain these either. A letter or digit cannot be kept out: escapes have them."""
    kept_out = [
        (one.encode(), b"\\x%02x" % ord(one)) for one in _distinct(others) if one.isascii() and not one.isalnum()
    ]

    def encode(text: bytes) -> bytes:
        text = escape(text)
        for one, instead in kept_out:
            text = text.replace(one, instead)
        return text or b"-"

    return encode


def _distinct(characters: Iterable[str]) -> Iterable[str]:
    """Without those that `escape` has dealt with."""
    return dict.fromkeys(one for one in characters if one and one not in '"\\\t')


def _as_json(text: bytes) -> bytes:
    """A string in ASCII, or null for nothing. What is not UTF-8 is escaped as in the other formats."""
    if not text:
        return b"null"
    try:
        readable = text.decode()
    except UnicodeDecodeError:
        readable = escape(text).decode("ascii")
    # DEL is the one control character that JSON lets stand.
    return json.dumps(readable).encode("ascii").replace(b"\x7f", b"\\u007f")
