"""Request targets against a slow reference, and what must never come out of them."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy.http.status import Refusal
from flashpy.http.target import Target, folder_location, parse_target, valid_host

LETTERS = string.ascii_letters + string.digits
UNRESERVED = frozenset((LETTERS + "-._~").encode())
LITERAL = UNRESERVED | frozenset(b"!$&'()*+,;=:@/")


def outcome(raw: bytes, dotfiles: bool = False) -> Target | int:
    try:
        return parse_target(raw, dotfiles)
    except Refusal as refusal:
        return refusal.status


def path_of(raw: bytes, dotfiles: bool = False) -> bytes | int:
    found = outcome(raw, dotfiles)
    return found if isinstance(found, int) else found.path


def reference(raw: bytes, dotfiles: bool) -> tuple[bytes, bytes | None] | int:
    """What an origin-form target means, one byte at a time."""
    if any(byte <= 32 or byte >= 127 or byte == ord("#") for byte in raw):
        return 400
    mark = raw.find(b"?")
    path, query = (raw, None) if mark < 0 else (raw[:mark], raw[mark + 1 :])
    decoded = bytearray()
    place = 0
    while place < len(path):
        byte = path[place]
        place += 1
        if byte == ord("%"):
            digits = path[place : place + 2].decode()
            if len(digits) < 2 or set(digits) - set(string.hexdigits):
                return 400
            byte = int(digits, 16)
            place += 2
            if byte in b"\0/":
                return 400
        if byte == ord("\\"):
            return 400
        decoded.append(byte)
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return 400
    stack: list[bytes] = []
    slash = False
    for segment in bytes(decoded).split(b"/"):
        slash = segment in (b"", b".", b"..")
        if segment == b"..":
            if not stack:
                return 400
            stack.pop()
        elif not slash:
            stack.append(segment)
    for number, segment in enumerate(stack):
        hidden = segment[:1] == b"." and not (number == 0 and segment == b".well-known")
        if len(segment) > 255 or (hidden and not dotfiles):
            return 404
    return b"/".join(stack) + (b"/" if slash and stack else b""), query


PIECES = st.sampled_from(
    [b"/", b"//", b"/.", b"/..", b"/../", b"/./", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F",
     b"%00", b"%5c", b"%5C", b"\\", b"%", b"%2", b"%zz", b"%25", b"%252e", b"%252f", b"?", b"#",
     b"%c0%af", b"%c0%ae", b"%e0%80%af", b"%c3%a4", b"%e4%b8%ad", b"%ff", b"%ed%a0%80", b"%20",
     b"a", b"docs", b"x.html", b".well-known", b".git", b"...", b"n" * 128, b"\xe4", b" ", b"\0",
     b"\x7f", b"~", b":", b"@", b";", b"|", b"http://", b"[", b"%0d%0a", b"%f4%90%80%80"]
)  # fmt: skip
TARGETS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces))
GENTLE = st.lists(
    st.sampled_from([b"/", b"/a", b"/docs", b"/x.html", b"/%c3%a4", b"/.", b"/..", b"%20", b"/%2e%2e", b"?q"]),
    max_size=10,
).map(lambda pieces: b"/" + b"".join(pieces))


@given(TARGETS | GENTLE, st.booleans())
@settings(deadline=None, max_examples=600)
def test_agrees_with_the_reference(raw: bytes, dotfiles: bool) -> None:
    expected = reference(raw, dotfiles)
    found = outcome(raw, dotfiles)
    if isinstance(expected, int):
        assert found == expected
    else:
        assert found == (*expected, None)


@given(TARGETS | GENTLE | st.binary(), st.booleans())
@settings(deadline=None, max_examples=400)
def test_what_comes_out_is_harmless(raw: bytes, dotfiles: bool) -> None:
    found = outcome(raw, dotfiles)
    if isinstance(found, int):
        assert found in (400, 404)
        return
    assert not found.path.startswith(b"/")
    assert b"\0" not in found.path
    assert b"\\" not in found.path
    segments = found.path.removesuffix(b"/").split(b"/")
    assert not set(segments) & {b".", b".."}
    assert found.path == b"" or b"" not in segments
    assert all(len(segment) <= 255 for segment in segments)
    assert found.path.decode().encode() == found.path


@given(TARGETS | GENTLE | st.binary())
@settings(deadline=None, max_examples=400)
def test_location_leads_to_the_same_folder_and_nowhere_else(raw: bytes) -> None:
    found = outcome(raw, True)
    if isinstance(found, int):
        return
    location = folder_location(found)
    assert location.startswith(b"/")
    assert not location.startswith((b"//", b"/\\"))
    assert all(0x21 <= byte <= 0x7E for byte in location)
    again = outcome(location, True)
    assert isinstance(again, Target)
    assert again == (found.path.rstrip(b"/") + (b"/" if found.path else b""), found.query, None)


@given(st.lists(st.text("abc é中%#? +", min_size=1, max_size=8).map(str.encode), min_size=1, max_size=5))
@settings(deadline=None)
def test_encoded_names_come_back_once_decoded(names: list[bytes]) -> None:
    raw = b"".join(b"/" + b"".join(b"%%%02x" % byte for byte in name) for name in names)
    assert path_of(raw) == b"/".join(names)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", b""),
        (b"//", b""),
        (b"/index.html", b"index.html"),
        (b"/docs/", b"docs/"),
        (b"/docs//a///b", b"docs/a/b"),
        (b"//docs/a", b"docs/a"),
        (b"/a/./b", b"a/b"),
        (b"/a/.", b"a/"),
        (b"/a/b/..", b"a/"),
        (b"/a/b/../c", b"a/c"),
        (b"/a/..", b""),
        (b"/a//../b", b"b"),
        (b"/a/%2e%2e/b", b"b"),
        (b"/a/%2E/b", b"a/b"),
        (b"/a%20b", b"a b"),
        (b"/a+b", b"a+b"),
        (b"/%41%62", b"Ab"),
        (b"/%2541", b"%41"),
        (b"/%252e%252e/x", b"%2e%2e/x"),
        (b"/%252f", b"%2f"),
        (b"/%c3%a4", "ä".encode()),
        (b"/a;b=c", b"a;b=c"),
        (b"/a:b@c", b"a:b@c"),
        (b"/[x]|^`{}<>\"'", b"[x]|^`{}<>\"'"),
        (b"/a..b", b"a..b"),
        (b"/a.", b"a."),
        (b"/a/b..", b"a/b.."),
        (b"/.well-known/security.txt", b".well-known/security.txt"),
        (b"/.well-known", b".well-known"),
        (b"/x/../.well-known/a", b".well-known/a"),
        (b"/.git/../a", b"a"),
        (b"/" + b"n" * 255, b"n" * 255),
    ],
)
def test_paths(raw: bytes, path: bytes) -> None:
    assert path_of(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"*", b"a", b"index.html", b"?", b"?x", b"./a", b"../a", b"\\a",
        b"/..", b"/../", b"/../etc/passwd", b"/a/../../etc/passwd", b"/./..", b"//..",
        b"/%2e%2e/etc/passwd", b"/%2e%2e", b"/.%2e/a", b"/a/%2E./../b",
        b"/..%2fetc/passwd", b"/a%2fb", b"/a%2Fb", b"/%5c", b"/..%5c..%5Cx", b"/a\\b", b"/\\evil",
        b"/%00", b"/a%00.html", b"/a\0", b"/a b", b"/a\tb", b"/a\r", b"/a\nb", b"/a\x7f", b"/ ",
        b"/#", b"/a#b", b"/a?b#c", b"/a?b c", b"/a?\x80", b"/a?\0", b"/\xc3\xa4", b"/\xff",
        b"/%", b"/%4", b"/a%", b"/%zz", b"/%-1", b"/%+1", b"/%0x", b"/% 1", b"/%u0041",
        b"/%c0%af", b"/%c0%ae%c0%ae/x", b"/%e0%80%ae", b"/%f0%80%80%af", b"/%fc%80%80%80%80%af",
        b"/%ff", b"/%80", b"/%c3", b"/%ed%a0%80", b"/%f4%90%80%80",
    ],
)  # fmt: skip
def test_bad_targets(raw: bytes) -> None:
    assert path_of(raw) == 400
    assert path_of(raw, dotfiles=True) == 400


@pytest.mark.parametrize(
    "raw",
    [b"/.git/config", b"/a/.htaccess", b"/%2ehtaccess", b"/...", b"/.well-known/.x", b"/a/...",
     b"/a/.well-known", b"/.well-knownx", b"/.a/"],
)  # fmt: skip
def test_dotfiles_are_hidden_and_the_connection_goes_on(raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        parse_target(raw)
    assert caught.value.status == 404
    assert not caught.value.close
    assert isinstance(path_of(raw, dotfiles=True), bytes)


@pytest.mark.parametrize("raw", [b"/" + b"n" * 256, b"/a/" + b"%41" * 256 + b"/b"])
def test_names_that_no_file_can_have(raw: bytes) -> None:
    assert path_of(raw) == 404


@pytest.mark.parametrize(
    ("raw", "query"),
    [(b"/a", None), (b"/a?", b""), (b"/a?b=c", b"b=c"), (b"/a?b?c", b"b?c"),
     (b"/?a/../b", b"a/../b"), (b"/a?%zz%00%2f", b"%zz%00%2f"), (b"/a?//\\", b"//\\"),
     (b"/%41?x", b"x")],
)  # fmt: skip
def test_query_is_kept_as_it_is(raw: bytes, query: bytes | None) -> None:
    assert parse_target(raw).query == query


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"http://example.com/a?b", (b"a", b"b", b"example.com")),
        (b"HTTP://Example.com:8080/", (b"", None, b"Example.com:8080")),
        (b"http://[::1]:443/a/../b", (b"b", None, b"[::1]:443")),
        (b"http://example.com", (b"", None, b"example.com")),
        (b"http://example.com?x", (b"", b"x", b"example.com")),
        (b"http://example.com//a", (b"a", None, b"example.com")),
        (b"http://h/http://x/", (b"http:/x/", None, b"h")),
    ],
)
def test_absolute_form(raw: bytes, expected: tuple[bytes, bytes | None, bytes]) -> None:
    assert parse_target(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [b"http://", b"http:///a", b"http:/a", b"http:a", b"http://u@h/", b"http://u:p@h/", b"ftp://h/",
     b"http://h:x/", b"http://h:99999/", b"http://:80/", b"http://h /", b"http://h#/", b"http://h/#",
     b"http://h\\@evil/", b"http://[::1/", b"http://h/..", b"h:80", b"//", b"http://h\n/",
     b"https:\\\\h\\a", b"http://h/\n"],
)  # fmt: skip
def test_bad_absolute_form(raw: bytes) -> None:
    expected = b"" if raw == b"//" else 400
    assert path_of(raw) == expected


@pytest.mark.parametrize(
    ("raw", "location"),
    [
        (b"/docs", b"/docs/"),
        (b"/a/b?x=1&y", b"/a/b/?x=1&y"),
        (b"/a?", b"/a/?"),
        (b"//evil.com", b"/evil.com/"),
        (b"//evil.com/a/..", b"/evil.com/"),
        (b"/a%20b", b"/a%20b/"),
        (b"/a%0d%0aSet-Cookie:x", b"/a%0D%0ASet-Cookie:x/"),
        (b"/%3f", b"/%3F/"),
        (b"/%23%25", b"/%23%25/"),
        (b"/%c3%a4", b"/%C3%A4/"),
        (b"/", b"/"),
        (b"http://evil.com/a", b"/a/"),
    ],
)
def test_folder_location(raw: bytes, location: bytes) -> None:
    assert folder_location(parse_target(raw)) == location


def test_folder_location_encodes_all_but_path_characters() -> None:
    every = bytes(range(256)).replace(b"/", b"")
    location = folder_location(Target(every, None, None))
    escapes = {byte for byte in range(256) if b"%%%02X" % byte in location}
    assert escapes == set(range(256)) - LITERAL


@pytest.mark.parametrize(
    "host",
    [b"example.com", b"EXAMPLE.com", b"localhost:8080", b"a_b.c", b"127.0.0.1", b"127.0.0.1:0",
     b"[::1]", b"[::1]:80", b"[2001:db8::192.0.2.1]", b"x.", b"h:", b"h:65535", b"h:00080",
     b"xn--mnchen-3ya.de", b"a%20b", b"[v1.a:b]", b"a~b!$&'()*+,;=c"],
)  # fmt: skip
def test_valid_hosts(host: bytes) -> None:
    assert valid_host(host)


@pytest.mark.parametrize(
    "host",
    [b"", b":80", b"u@h", b"u:p@h", b"h:80:80", b"h:x", b"h:-1", b"h:+1", b"h:65536", b"h:123456",
     b"h/", b"h?", b"h?x", b"h#", b"h\\", b"a b", b" h", b"h ", b"h\t", b"h\n", b"h\0", b"\xc3\xa4",
     b"[::1", b"::1", b"::1]", b"[::g]", b"[1:2]", b"[::1%25eth0]", b"[]", b"[127.0.0.1]", b"a%2",
     b"a%zz", b"<h>", b'"h"', b"h|", b"{h}", b"h^", b"[::1]x", b"[v1]", b"a\xff", b"h: 80"],
)  # fmt: skip
def test_invalid_hosts(host: bytes) -> None:
    assert not valid_host(host)


@given(st.binary(max_size=20))
@settings(deadline=None)
def test_hosts_never_raise_and_hold_no_delimiter(host: bytes) -> None:
    if valid_host(host):
        assert not set(host) & set(b" \t\r\n\0/?#@\\")
        assert host.isascii()
