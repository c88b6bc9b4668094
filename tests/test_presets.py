"""Names with a content hash, and requests that mean a page."""

import random
import string
import time

import pytest

from flashpy.http.navigation import is_navigation, looks_like_asset
from flashpy.http.presets import is_hashed


@pytest.mark.parametrize(
    "name",
    ["app.3f9a1c2b.js", "a/index-BfE3xY2z.css", "app.3f9a1c2b.js.map", "main.8f2c1d0e.chunk.js", "app-5FPDOX3Y.js"],
)
def test_a_content_hash_is_seen(name: str) -> None:
    assert is_hashed(name)


OTHERS = """
    bootstrap.bundle.min.js 2024-report.pdf jquery-3.7.1.js photo-iPhone15Pro.jpg setup-win32x64.zip README
    icon-iOS17App.png setup-Win10x64.zip setup-macOS11x64.zip results-Q3Report.pdf my-JavaScript.js x.deadbeef.js
    annual-20240131.pdf photo-20240131T120000.jpg a-550e8400-e29b-41d4-a716-44665544abcd.jpg build-b12345678.zip
    docs-VERSION2.pdf movie-1920x1080.mp4 3f9a1c2b.js app.3f9a1c2b app-3f9a1c2b/page.js log-20240131a.txt
"""


@pytest.mark.parametrize("name", OTHERS.split())
def test_other_names_are_not_taken_for_hashed(name: str) -> None:
    assert not is_hashed(name)


@pytest.mark.parametrize(
    ("alphabet", "least"), [("0123456789abcdef", 0.9), (string.ascii_letters + string.digits, 0.6)]
)
def test_most_random_names_are_known(alphabet: str, least: float) -> None:
    chance = random.Random(1)
    names = ["a-" + "".join(chance.choices(alphabet, k=8)) + ".js" for _ in range(2000)]
    assert sum(map(is_hashed, names)) / len(names) > least


@pytest.mark.parametrize("run", ["a" * 32, "A" * 32, "aA" * 16, "1" * 32])
def test_no_name_costs_much_time(run: str) -> None:
    # Enough breaks to be looked at for words, of which the first could be divided in millions of ways.
    start = time.process_time()
    assert is_hashed(f"a-{run}{'B2' * 16}.js")
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    ("path", "asset"),
    [
        (b"app.js", True),
        (b"a.b/c", False),
        (b"a/PIC.PNG", True),
        (b"page.html", False),
        (b"user/j.doe", False),
        (b"", False),
        (b"docs/", False),
        (b".js", False),
        (b"a.own", True),
    ],
)
def test_assets_are_known_by_their_extension(path: bytes, asset: bool) -> None:
    assert looks_like_asset(path, {"own": "text/x-own"}) == asset


@pytest.mark.parametrize(
    ("method", "accept", "mode", "page"),
    [
        (b"GET", b"text/html,application/xhtml+xml,*/*;q=0.8", None, True),
        (b"HEAD", b"*/*, Text/HTML;q=0.9", None, True),
        (b"GET", b"*/*", None, False),
        (b"GET", b"application/json, x/text/html", None, False),
        (b"GET", None, None, False),
        (b"GET", None, b"navigate", True),
        (b"GET", b"text/html", b"cors", False),
        (b"POST", b"text/html", b"navigate", False),
    ],
)
def test_navigations(method: bytes, accept: bytes | None, mode: bytes | None, page: bool) -> None:
    assert is_navigation(method, accept, mode) == page
