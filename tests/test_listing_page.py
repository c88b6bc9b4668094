"""The page of a listing in a real browser: with and without its script, by keys, in the dark, on a phone."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from flashpy_helpers import listingpage, listingtemplate
from flashpy_helpers.listing import Entry, Folder
from flashpy_helpers.query import parse_query
from tests.needs import find, needs

pytestmark = needs("chromium")

FOLDER = Folder(
    (
        Entry(b"archive", True, 0, 1_700_000_000),
        Entry(b"docs", True, 0, 1_600_000_000),
        Entry(b"<b>.html", False, 20, 1_500_000_000),
        Entry(b"file2.txt", False, 3_000_000, 1_400_000_000),
        Entry(b"file10.txt", False, 100, 1_760_000_000),
        Entry("\u202egpj.exe".encode(), False, 7, 0),
    ),
    False,
)
HUGE = Folder(tuple(Entry(b"f%d" % n, False, n, n) for n in range(25)), True)
BY_NAME = ["archive", "docs", "<b>.html", "file2.txt", "file10.txt", "\u202egpj.exe"]
BY_SIZE = ["archive", "docs", "\u202egpj.exe", "<b>.html", "file10.txt", "file2.txt"]


class Handler(http.server.BaseHTTPRequestHandler):
    """/top/list/ and /huge/ are listings; whatever else is asked for is an empty page."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        folder = {"/top/list/": FOLDER, "/huge/": HUGE}.get(path)
        asked = parse_query(query.encode())
        body = b"<title>other</title>"
        if folder:
            body = listingpage.html(folder, at=path[1:].encode(), query=asked, per_page=10)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", listingpage.POLICY.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox refuses to run as root, as CI does. The page is our own.
        browser = playwright.chromium.launch(executable_path=find("chromium"), chromium_sandbox=False)
        yield browser
        browser.close()


class Look:
    """A page in a fresh context; what its console says is kept."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __enter__(self) -> "Look":
        self.page.goto(self.address)
        return self

    def __exit__(self, *unused: object) -> None:
        self.context.close()
        assert self.complaints == []

    def names(self) -> list[str]:
        return self.page.locator("#list tr:visible bdi").all_text_contents()

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.textContent"))

    def sorted_by(self) -> list[str | None]:
        return [head.get_attribute("aria-sort") for head in self.page.locator("thead th").all()]


def test_the_page_is_small() -> None:
    assert len(listingtemplate.STYLE) + len(listingtemplate.SCRIPT) < 12_000


@pytest.mark.parametrize("script", [True, False])
def test_sorting(browser: Browser, address: str, script: bool) -> None:
    with Look(browser, f"{address}/top/list/", java_script_enabled=script) as look:
        loads: list[str] = []
        look.page.on("request", lambda request: loads.append(request.url))
        assert look.names() == BY_NAME
        look.page.get_by_role("link", name="Size", exact=True).click()
        assert look.names() == BY_SIZE
        assert look.sorted_by() == [None, "ascending", None]
        look.page.get_by_role("link", name="Size", exact=True).click()
        assert look.names() == [*BY_SIZE[:2], *BY_SIZE[:1:-1]]
        assert look.sorted_by() == [None, "descending", None]
        assert look.page.url.endswith("/top/list/?sort=size&order=desc")
        assert bool(loads) is not script
        shown = look.names()
        look.page.reload()  # the server's order and the script's are one
        assert look.names() == shown


def test_pages_are_links_and_sort_the_whole_folder(browser: Browser, address: str) -> None:
    with Look(browser, f"{address}/huge/?sort=size&order=desc") as look:
        assert look.names() == [f"f{n}" for n in range(24, 14, -1)]
        look.page.get_by_role("link", name="Next").click()
        assert look.names() == [f"f{n}" for n in range(14, 4, -1)]
        look.page.get_by_role("link", name="Name", exact=True).click()
        assert look.names() == [f"f{n}" for n in range(10)]
        assert "only 25 of its entries" in look.page.inner_text("main")


def test_filter(browser: Browser, address: str) -> None:
    with Look(browser, f"{address}/top/list/") as look:
        box, said = look.page.get_by_role("searchbox"), look.page.locator("#said")
        before = said.inner_text()
        box.fill("FILE")
        assert look.names() == ["file2.txt", "file10.txt"]
        assert said.inner_text() == "2 of 6 shown"
        box.fill("nothing such")
        assert look.names() == []
        assert said.inner_text() == "No name matches"
        box.press("Escape")
        assert look.names() == BY_NAME
        assert said.inner_text() == before


def test_keys(browser: Browser, address: str) -> None:
    with Look(browser, f"{address}/top/list/") as look:
        press = look.page.keyboard.press
        press("j")
        assert look.focused() == "Parent folder"
        press("ArrowDown")
        press("j")
        assert look.focused() == "docs"
        press("k")
        assert look.focused() == "archive"
        press("/")
        look.page.keyboard.type("uj2")  # letters are text here
        assert look.page.get_by_role("searchbox").input_value() == "uj2"
        look.page.get_by_role("searchbox").fill("file10")
        press("Enter")
        look.page.wait_for_url("**/top/list/file10.txt")
        look.page.go_back()
        press("u")
        look.page.wait_for_url("**/top/")
        look.page.go_back()
        press("Backspace")
        look.page.wait_for_url("**/top/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_it_fits_and_is_legible(browser: Browser, address: str, tmp_path: Path, scheme: Any, width: int) -> None:
    viewport = {"width": width, "height": 800}
    with Look(browser, f"{address}/top/list/", color_scheme=scheme, viewport=viewport) as look:
        assert look.page.evaluate("document.documentElement.scrollWidth") <= width
        pairs = look.page.evaluate(
            """() => [...document.querySelectorAll('h1 a, #said, thead a, bdi, .s, time')].map(
                one => [getComputedStyle(one).color, getComputedStyle(document.body).backgroundColor])"""
        )
        assert min(contrast(*pair) for pair in pairs) >= 4.5  # WCAG 2.2, 1.4.3
        assert (luminance(pairs[0][1]) < 0.05) is (scheme == "dark")
        assert len(look.page.screenshot(path=tmp_path / "page.png", full_page=True)) > 10_000


def test_nothing_jumps_when_the_script_starts(browser: Browser, address: str) -> None:
    boxes = []
    for script in (True, False):
        with Look(browser, f"{address}/top/list/", java_script_enabled=script) as look:
            boxes.append([one.bounding_box() for one in look.page.locator("h1, thead a, #list a, footer").all()])
    assert boxes[0] == boxes[1]


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
