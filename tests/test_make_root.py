"""loadtests/make_root.py: values and files; no server."""

import gzip
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import make_root


def a_trace(folder: Path, files: list[tuple[str, int]], requests: list[str]) -> Path:
    folder.mkdir()
    sized = "".join(f"{path}\t{size}\n" for path, size in files)
    (folder / "files.tsv.gz").write_bytes(gzip.compress(sized.encode()))
    asked = "".join(f"{path}\n" for path in requests)
    (folder / "requests.txt.gz").write_bytes(gzip.compress(asked.encode()))
    return folder


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_a_range_is_a_slice_of_the_whole(start: int, stop: int) -> None:
    whole = make_root.content("/a", 0, 70_000)
    assert make_root.content("/a", start, stop) == whole[start:stop]
    assert make_root.digest("/a", start, stop) == hashlib.sha256(whole[start:stop]).digest()


def test_no_two_documents_and_no_two_blocks_are_alike() -> None:
    blocks = [make_root.content(path, n * 512, n * 512 + 512) for path in "abc" for n in range(200)]
    assert len(set(blocks)) == 600


def test_a_folder_has_the_content_of_its_index() -> None:
    assert make_root.content("/a/", 0, 99) == make_root.content("/a/index.html", 0, 99)
    assert make_root.mtime_ns("/a/") == make_root.mtime_ns("/a/index.html")


def test_a_root_is_made_once_and_repaired(tmp_path: Path) -> None:
    trace = make_root.load(a_trace(tmp_path / "t", [("/a", 5), ("/b/c", 40_000)], ["/a"]))
    root = tmp_path / "root"
    assert make_root.make(trace, root) == 2
    assert (root / "b/c").read_bytes() == make_root.content("/b/c", 0, 40_000)
    assert make_root.make(trace, root) == 0
    (root / "a").write_bytes(b"wrong")
    assert make_root.make(trace, root) == 1
    assert (root / "a").read_bytes() == make_root.content("/a", 0, 5)
    assert sorted(file.name for file in root.rglob("*")) == ["a", "b", "c"]


def test_paths_that_cannot_be_files_are_given_a_place(tmp_path: Path) -> None:
    long = "/" + "x" * 300 + ".gif"
    files = [("/a", 1), ("/a/b", 2), ("/d/", 3), ("/d/index.html", 4), (long, 5)]
    trace = make_root.load(a_trace(tmp_path / "t", files, ["/a", "/d/", long, long]))
    assert trace.requests[:2] == ["/a/", "/d/"]
    assert trace.requests[2] == trace.requests[3]
    assert len(trace.requests[2]) < 256
    assert list(trace.sizes.items())[:3] == [
        ("/a/index.html", 1),
        ("/a/b", 2),
        ("/d/index.html", 3),
    ]
    assert make_root.make(trace, tmp_path / "root") == 4


@pytest.mark.parametrize("path", ["a", "", "/a//b", "/../b", "/a/./b", "/a\0b", "//"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        make_root.load(a_trace(tmp_path / "t", [(path, 1)], []))


def test_targets_hold_only_what_a_url_may() -> None:
    assert make_root.target("/~a/b c?d#e%20.html") == "/~a/b%20c%3Fd%23e%2520.html"
    assert make_root.target("/a\xe9") == "/a%C3%A9"


@pytest.mark.parametrize(("name", "files", "requests"), [("epa", 4126, 40488), ("nasa", 1729, 30286)])
def test_the_traces_are_whole(name: str, files: int, requests: int) -> None:
    trace = make_root.load(name)
    assert (len(trace.sizes), len(trace.requests)) == (files, requests)
    assert {make_root.document(path) for path in trace.requests} == set(trace.sizes)
