"""Request target to path, query and host; or a Refusal (worker, hot path).

What comes out is what helpers look up below a root, so this is where a path is made harmless: it is
decoded exactly once, has no NUL, backslash, empty, `.` or `..` segment, is valid UTF-8 (which rules
out overlong forms), and never begins with a slash. A helper does not rely on it: it opens beneath
its root whatever it is given.

A target that is plain already, as nearly all are, costs one regular expression. For the others the
order is: refuse, decode, merge slashes, resolve dots, look at the names. Merging comes before the
dots, as in a file system: `/a//../b` is `/b`.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from flashpy.http.status import Refusal

# A segment that needs no work: no `%`, no backslash, no leading dot, no longer than a file name.
_SEGMENT = rb'[!"$&-\-0->@-\[\]-~][!"$&-.0->@-\[\]-~]{0,254}+'
_QUERY = rb'[!"$-~]*+'
_PLAIN = re.compile(rb"/((?:%b(?:/%b)*+/?)?)(?:\?(%b))?" % (_SEGMENT, _SEGMENT, _QUERY))

_ABSOLUTE = re.compile(rb"(?i:http(s?))://([^/?#]*)(.*)", re.DOTALL)
_VISIBLE = re.compile(rb'[!"$-~]*')
_BAD_PATH = re.compile(rb"\\|%(?:00|2[Ff]|5[Cc]|(?![0-9A-Fa-f]{2}))")
_ESCAPE = re.compile(rb"%(..)")

_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
    rb"|\[(?:(?P<v6>[0-9A-Fa-f:.]+)|[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\])"
    rb"(?::0*(?P<port>[0-9]{0,5}))?"
)

# What stands for itself in a Location: unreserved, sub-delims, ":", "@" and "/" (RFC 3986, 3.3).
_LITERAL: Final = frozenset(b"/:@-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ENCODED: Final = tuple(bytes((byte,)) if byte in _LITERAL else b"%%%02X" % byte for byte in range(256))

_NAME_MAX = 255
_PATH_MAX: Final = 4095
_WELL_KNOWN = b".well-known"


class Target(NamedTuple):
    """What a request asks for.

    `path` is decoded and has no leading slash: b"" is the root folder, b"docs/" a folder wanted.
    `query` is raw, without its question mark; None when there was no question mark. `host` is the
    authority of an absolute-form target, which takes the place of the Host field.
    """

    path: bytes
    query: bytes | None
    host: bytes | None


def parse_target(raw: bytes, dotfiles: bool = False) -> Target:
    """Take a target in origin-form or absolute-form apart (RFC 9112, section 3.2).

    Raises Refusal: 400 for what is not a target or tries to leave the root; 421 for an https URI,
    which only a secured connection may ask for (RFC 9110, 7.4); 404 for names that no root can
    hold, and for names that begin with a dot unless `dotfiles` (a path that begins with
    `.well-known` is allowed: RFC 8615).
    """
    plain = _PLAIN.fullmatch(raw)
    if plain is not None and len(plain[1]) <= _PATH_MAX:
        return Target(plain[1], plain[2], None)
    host, rest = _split_host(raw)
    if _VISIBLE.fullmatch(rest) is None:
        raise Refusal(400, reason="target holds a byte that must be percent-encoded")
    path, mark, query = rest.partition(b"?")
    segments, folder = _resolve(_decode(path))
    _check_names(segments, dotfiles)
    if folder and segments:
        segments.append(b"")
    return Target(b"/".join(segments), query if mark else None, host)


def check_target(raw: bytes, method: bytes) -> None:
    """Hold the target of a method that looks nothing up to the form that is the method's (RFC 9112, section 3.2).

    Raises Refusal as `parse_target` does. CONNECT must name a host and a port (RFC 9110, 9.3.6).
    """
    if method == b"CONNECT":
        found = _HOST.fullmatch(raw) if valid_host(raw) else None
        if found is None or not int(found["port"] or 0):
            raise Refusal(400, reason="CONNECT without a host and a port")
    elif raw != b"*" or method != b"OPTIONS":
        parse_target(raw, dotfiles=True)


def valid_host(host: bytes) -> bool:
    """Tell whether bytes are `uri-host [":" port]` as Host may hold (RFC 9110, section 7.2).

    An empty host is refused, since an http URI must have one; userinfo, and a port over 65535, too.
    """
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    return found["v6"] is None or _valid_ipv6(found["v6"])


def folder_location(target: Target) -> bytes:
    """The Location that adds a folder's missing slash: path-absolute, the query kept.

    Made anew from the decoded path, so it can neither begin with `//` nor hold anything but visible
    ASCII, whatever the request line looked like.
    """
    path = b"".join([_ENCODED[byte] for byte in target.path.strip(b"/")])
    location = b"/%b/" % path if path else b"/"
    return location if target.query is None else b"%b?%b" % (location, target.query)


def is_served_path(path: bytes, dotfiles: bool) -> bool:
    """Whether `path` is one that parse_target() could give: for paths that were made by a rule."""
    segments = path.removesuffix(b"/").split(b"/") if path else []
    if any(segment in (b"", b".", b"..") for segment in segments) or b"\0" in path or b"\\" in path:
        return False
    try:
        _check_names(segments, dotfiles)
    except Refusal:
        return False
    return True


def _split_host(raw: bytes) -> tuple[bytes | None, bytes]:
    """The authority of an absolute-form target, and what follows it as an origin-form."""
    if raw.startswith(b"/"):
        return None, raw
    absolute = _ABSOLUTE.fullmatch(raw)
    if absolute is None:
        raise Refusal(400, reason="target is neither a path nor an http URI")
    secure, host, rest = absolute.groups()
    if not valid_host(host):
        raise Refusal(400, reason="bad authority in the target")
    if secure:
        raise Refusal(421, close=False, reason="an https URI on a connection without TLS")
    return host, rest if rest.startswith(b"/") else b"/" + rest


def _decode(path: bytes) -> bytes:
    """Undo percent-encoding, once."""
    if _BAD_PATH.search(path):
        raise Refusal(400, reason="bad or forbidden escape in the target")
    decoded = _ESCAPE.sub(_unescape, path)
    try:
        decoded.decode()
    except UnicodeDecodeError:
        raise Refusal(400, reason="target is not UTF-8") from None
    return decoded


def _unescape(escape: re.Match[bytes]) -> bytes:
    return bytes((int(escape[1], 16),))


def _resolve(path: bytes) -> tuple[list[bytes], bool]:
    """The segments that are left without empty ones and dots; and whether a folder is meant."""
    pieces = path.split(b"/")
    segments: list[bytes] = []
    for piece in pieces:
        if piece == b"..":
            if not segments:
                raise Refusal(400, reason="target climbs above the root")
            segments.pop()
        elif piece not in (b"", b"."):
            segments.append(piece)
    return segments, pieces[-1] in (b"", b".", b"..")


def _check_names(segments: list[bytes], dotfiles: bool) -> None:
    # The framing of such a request is sound, so the connection goes on.
    if sum(map(len, segments)) + len(segments) > _PATH_MAX:
        raise Refusal(404, close=False, reason="path too long")
    for number, segment in enumerate(segments):
        if len(segment) > _NAME_MAX:
            raise Refusal(404, close=False, reason="name too long")
        if segment.startswith(b".") and not dotfiles and (number or segment != _WELL_KNOWN):
            raise Refusal(404, close=False, reason="hidden file")


def _valid_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except AddressValueError:
        return False
    return True
