"""Refusal and the HTML bodies of errors."""

from html.parser import HTMLParser

import pytest

from flashpy.http.pages import page
from flashpy.http.status import REASONS, Refusal

_VOID = ("meta", "link", "br")
_REPLIES = [status for status in REASONS if status >= 300 and status != 304]


class _Nesting(HTMLParser):
    """Collects text by element and checks that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts[tag] = self.texts.get(tag, "") + data


@pytest.mark.parametrize("status", _REPLIES)
def test_page_is_small_well_formed_html_that_names_the_status(status: int) -> None:
    body = page(status)
    parser = _Nesting()
    parser.feed(body.decode("ascii"))
    parser.close()
    assert parser.open == []
    assert body.startswith(b"<!DOCTYPE html>\n<html lang=")
    assert parser.texts["title"].split(maxsplit=1) == [str(status), REASONS[status]]
    assert str(status) in parser.texts["h1"]
    assert parser.texts["p"].strip()
    assert len(body) < 1024


@pytest.mark.parametrize("status", _REPLIES)
def test_page_loads_nothing_and_follows_the_colour_scheme(status: int) -> None:
    body = page(status)
    assert b"://" not in body
    assert b"src=" not in body
    assert b"url(" not in body
    assert b'name="color-scheme" content="light dark"' in body


def test_page_is_made_once() -> None:
    assert page(404) is page(404)


@pytest.mark.parametrize("status", [200, 204, 304, 999])
def test_statuses_without_an_error_body_have_no_page(status: int) -> None:
    with pytest.raises(KeyError):
        page(status)


def test_every_status_of_the_server_has_a_reason() -> None:
    needed = {100, 200, 206, 301, 304, 308, 400, 403, 404, 405, 408, 412, 413, 414, 416, 417}
    needed |= {429, 431, 500, 501, 503, 504, 505}
    assert needed <= REASONS.keys()
    assert all(reason.isascii() and reason for reason in REASONS.values())


def test_refusal_closes_unless_told_otherwise() -> None:
    refusal = Refusal(400)
    assert (refusal.status, refusal.close, refusal.headers) == (400, True, ())
    assert str(refusal) == "400 Bad Request"


def test_refusal_carries_headers_and_a_reason_for_the_log() -> None:
    allow = ((b"Allow", b"GET, HEAD, OPTIONS"),)
    refusal = Refusal(405, close=False, headers=allow, reason="method POST")
    assert not refusal.close
    assert refusal.headers == allow
    assert str(refusal) == "405 method POST"
