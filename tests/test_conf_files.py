"""The files in conf/: every one loads, and site.toml is a true list of all keys and defaults."""

import itertools
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec import Struct

from flashpy.config import Mount, Settings, Site, check_roots, load
from flashpy.config.explain import fields_of

CONF = Path(__file__).parent.parent / "conf"
WWW = CONF / "www"
SITE = CONF / "site.toml"


@pytest.mark.parametrize("file", sorted(CONF.glob("**/*.toml")), ids=lambda file: str(file.name))
def test_every_configuration_loads_and_has_its_roots(file: Path) -> None:
    settings = load(file)
    check_roots(settings, file)
    assert settings.site


def test_the_site_has_the_defaults() -> None:
    settings = load(SITE)
    assert settings == Settings(site=(Site(root=str(WWW)),))
    assert [listen.address for listen in settings.server.listen] == ["127.0.0.1:8080"]


def test_the_site_shows_every_key() -> None:
    tables = tomllib.loads(SITE.read_text())
    assert missing_keys(tables, Settings) == set()
    assert all(f"{key} =" in SITE.read_text() for key in fields_of(Mount))


def missing_keys(table: dict[str, Any], struct: type[Struct], place: str = "") -> set[str]:
    """The keys of the schema that the file does not show; of an array, in its first table."""
    missing = set()
    for key, kind in fields_of(struct).items():
        inner = kind.table or (kind.element.table if kind.element else None)
        shown = table.get(key)
        first = shown[0] if isinstance(shown, list) and shown else shown
        if key not in table:
            missing.add(place + key)
        elif inner is not None and isinstance(first, dict):
            missing |= missing_keys(first, inner, f"{place}{key}.")
    return missing


def test_every_key_has_one_line_of_comment_above_it() -> None:
    lines = SITE.read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if line and line[0] not in "#[" and line.strip():
            assert above.startswith("# "), line
            assert len(above) <= 100


class Links(HTMLParser):
    """Collects what a page refers to, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.add(value)


def read_page(file: Path) -> Links:
    links = Links()
    links.feed(file.read_text(encoding="utf-8"))
    return links


@pytest.mark.parametrize("page", sorted(WWW.glob("**/*.html")), ids=lambda page: str(page.parent))
def test_every_link_of_the_site_leads_somewhere(page: Path) -> None:
    links = read_page(page).links
    assert links
    for link in links:
        path, _, fragment = link.partition("#")
        assert path.startswith("/") or not path, f"{link} leaves the site or is relative"
        target = WWW / path.lstrip("/") if path else page
        target = target / "index.html" if target.is_dir() else target
        assert target.is_file(), link
        if fragment:
            assert fragment in read_page(target).ids, link


def test_the_pictures_are_well_formed() -> None:
    pictures = sorted(WWW.glob("**/*.svg"))
    assert len(pictures) >= 3
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().tag.endswith("}svg"), picture
