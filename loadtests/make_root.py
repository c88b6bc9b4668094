"""Document roots for the load tests, and the bytes that a server must send of them.

Runs in the process of a test or load client, never in the server. A document holds a stream of
SHAKE-128 blocks keyed by its path, so no two documents are alike, and the bytes of any range are
computed from the path alone: a client that checks a reply never opens the root, and a server that
mixes up two files, two offsets or two clients cannot be right by accident. A document's mtime is
made from its path too, so a root that is made twice, or on two hosts, has the same ETags.

How the paths of a trace become files (the two traces here need none of the last five rules; other
logs do):

- `/a/b.html` is the file `a/b.html`.
- Bytes that a URL may not hold stay as they are in the file's name; `target()` quotes them.
- `/a/` is the file `a/index.html`, and is asked for as `/a/`.
- `/a`, when there is also `/a/b`, cannot be a file: it becomes `/a/`.
- A component of more than 255 bytes is cut to its first 200 bytes and given a hash of the whole,
  in the file's name and in the request.
- Two paths that come to the same file: the first size holds.
- A path without a leading slash, with an empty, `.` or `..` component or with a NUL is refused
  (ValueError).
"""

import argparse
import gzip
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

TRACES = Path(__file__).resolve().parent / "traces"
BLOCK = 16384
"""Bytes of one block of a stream: SHAKE runs at full speed, and a range wastes little."""
LONGEST_NAME = 255
FIRST_MTIME = 804_556_800
"""1 July 1995, in seconds: documents are as old as the requests for them."""
MTIME_SPAN = 28 * 86400


@dataclass(frozen=True, slots=True)
class Trace:
    """A document root and the requests for it, by paths as they are asked for but not quoted."""

    name: str
    sizes: dict[str, int]
    requests: list[str]


def document(path: str) -> str:
    """The document that answers for a path: the index file for a folder, else the path itself."""
    return path + "index.html" if path.endswith("/") else path


def target(path: str) -> str:
    """The path as it stands in a request line (RFC 9112 section 3.2.1)."""
    return quote(os.fsencode(path), safe="/~!$&'()*+,;=:@-._")


def content(path: str, start: int, stop: int) -> bytes:
    """The bytes of a path's document from start up to stop, as if it had no end."""
    key = os.fsencode(document(path)) + b"\0"
    blocks = [
        hashlib.shake_128(key + number.to_bytes(8, "big")).digest(min(BLOCK, stop - number * BLOCK))
        for number in range(start // BLOCK, -(-stop // BLOCK))
    ]
    return b"".join(blocks)[start % BLOCK :] if start < stop else b""


@lru_cache(maxsize=16384)
def digest(path: str, start: int, stop: int) -> bytes:
    """SHA-256 of `content(path, start, stop)`."""
    return hashlib.sha256(content(path, start, stop)).digest()


def mtime_ns(path: str) -> int:
    """The modification time that the path's document is given, in nanoseconds since 1970."""
    stream = hashlib.shake_128(os.fsencode(document(path))).digest(8)
    return FIRST_MTIME * 10**9 + int.from_bytes(stream, "big") % (MTIME_SPAN * 10**9)


def load(trace: str | Path) -> Trace:
    """Read a trace by its name in `traces/` or by its folder; raises OSError and ValueError."""
    folder = Path(trace) if os.sep in str(trace) else TRACES / trace
    listed = dict(_sized(_lines(folder / "files.tsv.gz")))
    folders = {path[:end] for path in listed for end in _slashes(path)}
    places = {path: _place(path, folders) for path in listed}
    sizes: dict[str, int] = {}
    for path, size in listed.items():
        sizes.setdefault(document(places[path]), size)
    asked = [places[path] for path in _lines(folder / "requests.txt.gz")]
    return Trace(folder.name, sizes, asked)


def make(trace: Trace, root: str | Path) -> int:
    """Write the documents that the root lacks or has otherwise; return how many were written."""
    written = 0
    for path, size in trace.sizes.items():
        written += write(path, size, Path(root) / path.lstrip("/"))
    return written


def write(path: str, size: int, file: Path) -> bool:
    """Write one document, whole or not at all, unless it is there; True when it was written."""
    mtime = mtime_ns(path)
    try:
        found = file.stat()
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
    else:
        if (found.st_size, found.st_mtime_ns) == (size, mtime):
            return False
    partial = file.with_name(f".partial-{os.getpid()}")
    with partial.open("wb") as stream:
        for start in range(0, size, 64 * BLOCK):
            stream.write(content(path, start, min(size, start + 64 * BLOCK)))
    os.utime(partial, ns=(mtime, mtime))
    partial.replace(file)
    return True


def _lines(file: Path) -> Iterator[str]:
    with gzip.open(file, "rb") as stream:
        for line in stream:
            yield os.fsdecode(line.rstrip(b"\n"))


def _sized(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        path, _, size = line.rpartition("\t")
        parts = path.split("/")
        inner = parts[1:-1] if path.endswith("/") else parts[1:]
        if parts[0] or not {"", ".", ".."}.isdisjoint(inner) or "\0" in path or path == "":
            raise ValueError(f"not a path that can be made a file: {path!r}")
        yield path, int(size)


def _slashes(path: str) -> Iterator[int]:
    end = path.find("/", 1)
    while end != -1:
        yield end
        end = path.find("/", end + 1)


def _place(path: str, folders: set[str]) -> str:
    whole = path + "/" if path in folders else path
    return "/".join(_shortened(part) for part in whole.split("/"))


def _shortened(part: str) -> str:
    name = os.fsencode(part)
    if len(name) <= LONGEST_NAME:
        return part
    return os.fsdecode(name[:200]) + "~" + hashlib.sha256(name).hexdigest()[:16]


def main(arguments: list[str]) -> int:
    """Command line: make the root of one trace."""
    parser = argparse.ArgumentParser(prog="make_root.py", description="Make the document root of a trace.")
    parser.add_argument("trace", help="name of a folder in loadtests/traces, or the path of one")
    parser.add_argument("root", type=Path, help="folder to fill; what is there and right is left alone")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    trace = load(options.trace)
    written = make(trace, options.root)
    total = sum(trace.sizes.values())
    print(
        f"{trace.name}: {len(trace.sizes)} documents, {total} bytes,"
        f" {written} written in {time.monotonic() - began:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
