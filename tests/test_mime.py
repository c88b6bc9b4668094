"""File names to Content-Type."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy.http.mime import DEFAULT, TYPES, compressible, content_type, extension

OCTETS = DEFAULT.encode()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"index.html", b"text/html"),
        (b"a/b/style.css", b"text/css"),
        (b"app.js", b"text/javascript"),
        (b"app.mjs", b"text/javascript"),
        (b"data.json", b"application/json"),
        (b"app.js.map", b"application/json"),
        (b"site.webmanifest", b"application/manifest+json"),
        (b"module.wasm", b"application/wasm"),
        (b"photo.avif", b"image/avif"),
        (b"photo.webp", b"image/webp"),
        (b"font.woff2", b"font/woff2"),
        (b"logo.svg", b"image/svg+xml"),
        (b"read.md", b"text/markdown"),
        (b"plan.ics", b"text/calendar"),
        (b"film.mp4", b"video/mp4"),
        (b"film.webm", b"video/webm"),
        (b"live.m3u8", b"application/vnd.apple.mpegurl"),
        (b"all.tar.zst", b"application/zstd"),
        (b"all.7z", b"application/x-7z-compressed"),
        (b"paper.pdf", b"application/pdf"),
    ],
)
def test_types_of_a_modern_site(path: bytes, expected: bytes) -> None:
    assert content_type(path, {}, "") == expected


@pytest.mark.parametrize("path", [b"A.HTML", b"a.Html", b"a.b.c/x.hTML", b"..html", b"a/x.y.html"])
def test_case_and_place_of_the_extension(path: bytes) -> None:
    assert content_type(path, {}, "") == b"text/html"


@pytest.mark.parametrize(
    "path",
    [b"", b"README", b"a.html/README", b".html", b"a/.html", b"a.", b"a.unknown", b"a.html ",
     b"a.\xff\xfe", b"a.\xe4\xb8\xad", b"html"],
)  # fmt: skip
def test_anything_else_is_octets(path: bytes) -> None:
    assert content_type(path, {}, "utf-8") == OCTETS


@pytest.mark.parametrize(
    "path",
    [b"a.html", b"a.css", b"a.js", b"a.txt", b"a.csv", b"a.md", b"a.xml", b"a.svg", b"a.rss",
     b"a.xhtml"],
)  # fmt: skip
def test_charset_is_added_to_text(path: bytes) -> None:
    assert content_type(path, {}, "utf-8") == content_type(path, {}, "") + b"; charset=utf-8"


@pytest.mark.parametrize("path", [b"a.json", b"a.png", b"a.wasm", b"a.pdf", b"a.bin", b"a.woff2"])
def test_charset_is_not_added_to_the_rest(path: bytes) -> None:
    assert content_type(path, {}, "utf-8") == content_type(path, {}, "")


def test_overrides_go_before_the_table() -> None:
    overrides = {"html": "application/xhtml+xml", "foo": "text/x-foo"}
    assert content_type(b"a.HTML", overrides, "") == b"application/xhtml+xml"
    assert content_type(b"a.foo", overrides, "utf-8") == b"text/x-foo; charset=utf-8"
    assert content_type(b"a.css", overrides, "") == b"text/css"


def test_a_charset_in_an_override_stays() -> None:
    overrides = {"txt": "text/plain; Charset=latin-1", "md": "text/markdown; variant=GFM"}
    assert content_type(b"a.txt", overrides, "utf-8") == b"text/plain; Charset=latin-1"
    assert content_type(b"a.md", overrides, "utf-8") == b"text/markdown; variant=GFM; charset=utf-8"


@pytest.mark.parametrize(
    "kind",
    [b"text/html", b"Text/CSS; charset=utf-8", b"image/svg+xml", b"application/ld+json", b"application/json",
     b"text/javascript", b"application/wasm", b"font/ttf", b"font/otf", b"application/vnd.ms-fontobject",
     b"image/vnd.microsoft.icon", b"image/bmp"],
)  # fmt: skip
def test_what_shrinks_is_compressible(kind: bytes) -> None:
    assert compressible(kind)


@pytest.mark.parametrize(
    "kind",
    [b"image/png", b"image/webp", b"font/woff2", b"video/mp4", b"application/zip", b"application/gzip",
     b"application/x-brotli", b"application/zstd", b"application/octet-stream", b""],
)  # fmt: skip
def test_what_is_compressed_already_is_not(kind: bytes) -> None:
    assert not compressible(kind)


def test_the_table_is_well_formed() -> None:
    assert len(TYPES) >= 150
    for suffix, kind in TYPES.items():
        assert re.fullmatch(r"[a-z0-9]+", suffix)
        assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", kind), suffix


@given(st.binary() | st.binary().map(lambda stem: stem + b".html"))
@settings(deadline=None)
def test_any_name_has_a_type(path: bytes) -> None:
    kind = content_type(path, {}, "utf-8")
    assert re.fullmatch(rb"[a-z]+/[a-z0-9.+-]+(; charset=utf-8)?", kind)
    assert "/" not in extension(path)
