"""What a folder holds, read from real folders, and said as HTML and as JSON whatever the names are."""

import contextlib
import json
import os
import resource
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy_helpers import beneath, listing, listingpage, wire
from flashpy_helpers.listing import Entry, Folder, scan
from flashpy_helpers.query import Query, parse_query

HOSTILE = [
    b"a:b", b"javascript:x", b"?x", b"#y", b"%2f", b"<script>alert(1)</script>", b"a\nb\rc", b"\xff\xfe", b"&amp;",
    b"\"'><img src=x>", "\u202egpj.exe".encode(), b"...", b"-->", b"</bdi></table>", b"%s %(rows)s {0}", b"//h", b"\\",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(HOSTILE).map(lambda name: name.replace(b"/", b"")),
    st.binary(min_size=1, max_size=30).map(lambda name: name.translate(None, b"\0/")),
    st.text(min_size=1, max_size=30).map(lambda name: name.encode("utf-8", "replace").translate(None, b"\0/")),
).filter(lambda name: name not in (b"", b".", b".."))
ENTRIES = st.builds(Entry, NAMES, st.booleans(), st.integers(0, 2**63), st.integers(-(2**62), 2**62))
FOLDERS = st.builds(
    Folder, st.lists(ENTRIES, max_size=8).map(lambda entries: tuple(sorted(entries, key=is_file))), st.booleans()
)
QUERIES = st.builds(Query, st.sampled_from(("name", "size", "time")), st.booleans(), st.integers(1, 9))
PLACES = st.lists(NAMES, max_size=3).map(lambda names: b"".join(name + b"/" for name in names))


def is_file(entry: Entry) -> bool:
    return not entry.is_folder


class Markup(HTMLParser):
    """All tags with their attributes, the links of rows, and the text of each <bdi>."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.names: list[str] = []
        self.crumbs = 0
        self.in_list = self.in_name = False
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.in_list |= ("id", "list") in attrs
        if self.in_list and tag == "a":
            self.links.append(dict(attrs)["href"] or "")
        if self.in_list and tag == "bdi":
            self.in_name = True
            self.names.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_list &= tag != "tbody"
        self.in_name &= tag != "bdi"

    def handle_data(self, data: str) -> None:
        if self.in_name:
            self.names[-1] += data


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "root"
    (folder / "docs").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    yield folder
    assert len(os.listdir("/proc/self/fd")) == before


def read(root: Path, path: str = "", *, dotfiles: bool = False, symlinks: int = wire.INSIDE, most: int = 100) -> Folder:
    top = beneath.open_root(os.fsencode(root))
    fd = os.open(root / path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return scan(fd, top, path.encode(), dotfiles=dotfiles, symlinks=symlinks, most=most)
    finally:
        os.close(fd)
        os.close(top)


def names(folder: Folder) -> list[bytes]:
    return [entry.name for entry in folder.entries]


def test_files_and_folders_with_their_facts(root: Path) -> None:
    (root / "a.txt").write_bytes(b"12345")
    os.utime(root / "a.txt", (7, 1_700_000_000))
    os.utime(root / "docs", ns=(7, -1))
    assert read(root).entries == (Entry(b"docs", True, 0, -1), Entry(b"a.txt", False, 5, 1_700_000_000))


def test_folders_first_then_names_as_people_order_them(root: Path) -> None:
    for name in ("file10", "File2", "file1", "file01", "b", "A", "10", "9", b"\xff", "é"):
        (root / os.fsdecode(name)).touch()
    (root / "zoo").mkdir()
    expected = [
        b"docs",
        b"zoo",
        b"9",
        b"10",
        b"A",
        b"b",
        b"file01",
        b"file1",
        b"File2",
        b"file10",
        "é".encode(),
        b"\xff",
    ]
    assert names(read(root)) == expected


def test_what_is_neither_file_nor_folder_is_left_out(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(root / "socket"))
        (root / "file").touch()
        assert names(read(root)) == [b"docs", b"file"]


def test_dotfiles_only_when_wanted(root: Path) -> None:
    (root / ".git").mkdir()
    assert names(read(root)) == [b"docs"]
    assert names(read(root, dotfiles=True)) == [b".git", b"docs"]


def test_links_are_listed_as_they_would_be_served(root: Path) -> None:
    (root / "a.txt").write_bytes(b"123")
    (root.parent / "secret").touch()
    os.symlink("../a.txt", root / "docs/up")  # leaves the folder, not the root
    os.symlink(root, root / "docs/top")  # absolute, into the root
    os.symlink("../../secret", root / "docs/out")
    os.symlink("nowhere", root / "docs/dangling")
    os.symlink("loop", root / "docs/loop")
    assert names(read(root, "docs/")) == [b"top", b"up"]
    assert read(root, "docs/").entries[1].size == 3
    assert names(read(root, "docs/", symlinks=wire.DENY)) == []
    assert names(read(root, "docs/", symlinks=wire.FOLLOW)) == [b"top", b"out", b"up"]


def test_a_huge_folder_is_cut_and_says_so(root: Path) -> None:
    for number in range(4):
        (root / f"f{number}").touch()
    whole = read(root, most=5)
    assert (len(whole.entries), whole.more) == (5, False)
    cut = read(root, most=4)
    assert (len(cut.entries), cut.more) == (4, True)
    assert set(cut.entries) < set(whole.entries)
    os.symlink("nowhere", root / "link")  # what is not listed does not count
    assert not read(root, most=5).more


def test_a_missing_descriptor_does_not_shorten_a_listing(root: Path) -> None:
    os.symlink("docs", root / "link")
    top = beneath.open_root(os.fsencode(root))
    fd = os.open(root, os.O_RDONLY)
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 4, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(top))
        os.close(taken.pop())  # one is left, for reading the folder
        with pytest.raises(OSError, match="Too many open files"):
            scan(fd, top, b"", dotfiles=False, symlinks=wire.INSIDE, most=9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in (*taken, fd, top):
            os.close(one)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (None, Query()),
        (b"", Query()),
        (b"sort=size&order=desc&page=2", Query("size", True, 2)),
        (b"page=007&sort=time", Query("time", False, 7)),
        (b"sort=time&sort=size", Query("time")),
        (b"sort=mtime&order=up&page=-1&=&x", Query()),
        (b"page=0", Query()),
        (b"page=1234567", Query()),
        (b"page=1%31&sort=\xff", Query()),
    ],
)
def test_query(query: bytes | None, expected: Query) -> None:
    assert parse_query(query) == expected


@given(st.binary(max_size=60))
def test_any_query_is_understood(query: bytes) -> None:
    asked = parse_query(query)
    assert asked.sort in ("name", "size", "time")
    assert 1 <= asked.page < 10**6


def test_orders_and_pages() -> None:
    entries = (
        Entry(b"d1", True, 0, 9),
        Entry(b"d2", True, 0, 8),
        *(Entry(b"f%d" % n, False, n % 3, -n) for n in range(5)),
    )
    folder = Folder(entries, False)

    def order(query: Query, per_page: int = 100) -> list[bytes]:
        return [entry.name for _, entry in listing.page_of(folder, query, per_page).ranked]

    assert order(Query("name", True)) == [b"d2", b"d1", b"f4", b"f3", b"f2", b"f1", b"f0"]
    assert order(Query("size")) == [b"d1", b"d2", b"f0", b"f3", b"f1", b"f4", b"f2"]
    assert order(Query("size", True)) == [b"d1", b"d2", b"f2", b"f1", b"f4", b"f0", b"f3"]
    assert order(Query("time")) == [b"d2", b"d1", b"f4", b"f3", b"f2", b"f1", b"f0"]
    pages = [order(Query("size", True, page), 3) for page in (1, 2, 3, 4)]
    assert pages == [[b"d1", b"d2", b"f2"], [b"f1", b"f4", b"f0"], [b"f3"], [b"f3"]]


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9949, "9.9 kB"), (9950, "10 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (8_123_456_789, "8.1 GB"), (2**63, "9.2 EB"), (10**22, "10 ZB")],
)  # fmt: skip
def test_human_sizes(size: int, shown: str) -> None:
    assert listingpage.human_size(size) == shown


@given(FOLDERS, PLACES, QUERIES, st.integers(1, 5))
def test_links_lead_back_to_the_names_and_nothing_else_is_markup(
    folder: Folder, at: bytes, query: Query, many: int
) -> None:
    page = listingpage.html(folder, at=at, query=query, per_page=many)
    assert page == listingpage.html(folder, at=at, query=query, per_page=many)
    found = Markup(page)
    entries = [entry for _, entry in listing.page_of(folder, query, many).ranked]
    for link, entry in zip(found.links, entries, strict=True):
        reached = urlsplit(urljoin("http://host/some/folder/", link))
        assert (reached.netloc, reached.query, reached.fragment) == ("host", "", "")
        assert unquote_to_bytes(reached.path) == b"/some/folder/" + entry.name + b"/" * entry.is_folder
    assert [len(name) for name in found.names] == [len(entry.name.decode("utf-8", "replace")) for entry in entries]
    assert not set("".join(found.names)) & {*map(chr, range(32)), "\x7f", "\u2028", "\u2029"}
    tame = Folder(tuple(entry._replace(name=b"a") for entry in folder.entries), folder.more)
    place = b"a/" * at.count(b"/")
    assert found.tags == Markup(listingpage.html(tame, at=place, query=query, per_page=many)).tags


@given(FOLDERS, PLACES, QUERIES)
def test_json_holds_every_name_exactly(folder: Folder, at: bytes, query: Query) -> None:
    told = json.loads(listing.json(folder, at=at, query=query))
    entries = [entry for _, entry in listing.page_of(folder, query).ranked]
    assert told["path"] == "/" + at.decode("utf-8", "replace")
    assert (told["total"], told["truncated"]) == (len(folder.entries), folder.more)
    for one, entry in zip(told["entries"], entries, strict=True):
        assert unquote_to_bytes(one["href"].removesuffix("/")) == entry.name
        assert one["name"] == entry.name.decode("utf-8", "replace")
        assert (one["type"], one["size"]) == (("directory", None) if entry.is_folder else ("file", entry.size))


def test_json_as_documented() -> None:
    folder = Folder((Entry(b"old", True, 0, 0), Entry(b"a \xff", False, 1234, 1_700_000_000)), True)
    assert json.loads(listing.json(folder, at=b"docs/", query=Query("time", True, 9), per_page=1)) == {
        "path": "/docs/", "sort": "time", "order": "desc", "page": 2, "pages": 2, "total": 2, "truncated": True,
        "entries": [
            {"name": "a \ufffd", "type": "file", "href": "a%20%FF", "size": 1234, "mtime": "2023-11-14T22:13:20Z"}
        ],
    }  # fmt: skip


def test_control_characters_are_seen() -> None:
    page = listingpage.html(Folder((Entry(b"a\nb\x7f\xc2\x85", False, 1, 0),), False), at=b"")
    assert "<bdi>a\u240ab\u2421\ufffd</bdi>" in page.decode()


def test_breadcrumbs_lead_up_by_relative_steps() -> None:
    page = listingpage.html(Folder((), False), at=b"a&b/c/").decode()
    assert '<a href="../../">Home</a>' in page
    assert '<a href="../"><bdi>a&amp;b</bdi></a>' in page
    assert '<span aria-current="page"><bdi>c</bdi></span>' in page
    assert "This folder is empty." in page
    assert "Parent folder" not in listingpage.html(Folder((), False), at=b"").decode()


@pytest.mark.parametrize("name", [b"a", b"&" * 255, b"\xff" * 255, b"report-2024.pdf", b'"\n'])
@pytest.mark.parametrize("room", [64 << 10, 512 << 10])
def test_a_page_fits_its_room(name: bytes, room: int) -> None:
    entries = [Entry(name, number % 2 == 0, 10**15 + number, 1_700_000_000 + number) for number in range(3000)]
    folder = Folder(tuple(entries), True)
    at = b"/".join([b"&" * 250] * 10) + b"/"
    most = listing.that_fit(folder, b"", room)
    assert 0 < len(listingpage.html(folder, at=b"", query=Query("size"), per_page=most)) <= room
    assert 0 < len(listing.json(folder, at=b"", per_page=most)) <= room
    most = listing.that_fit(folder, at, room)
    assert len(listingpage.html(folder, at=at, per_page=most)) <= room
    if name == b"report-2024.pdf" and room > 64 << 10:
        assert listing.that_fit(folder, b"", room) == listing.PER_PAGE
