"""Contents in which every page of 4 KiB says whose it is: which file, which version, which page.

So a reply that mixes two versions, moves a block, or fills with zeros is seen, and where.
"""

PAGE = 4096


def content(name: str, version: int, size: int) -> bytes:
    """``size`` bytes of one version of a file."""
    pages = [_page(name, version, number) for number in range(-(-size // PAGE))]
    return b"".join(pages)[:size]


def _page(name: str, version: int, number: int) -> bytes:
    mark = f"{name} version {version} page {number};".encode()
    return (mark * (PAGE // len(mark) + 1))[:PAGE]


def version_of(name: str, body: bytes) -> int:
    """The version whose beginning (or whole) ``body`` is. Raises AssertionError when it is none."""
    start = f"{name} version ".encode()
    assert body.startswith(start), body[:80]
    version = int(body[len(start) :].split(b" ", 1)[0])
    expected = content(name, version, len(body))
    assert body == expected, where(body, expected)
    return version


def where(body: bytes, expected: bytes) -> str:
    """In words, the first page in which two contents of equal length differ."""
    for start in range(0, max(len(body), len(expected)), PAGE):
        if body[start : start + PAGE] != expected[start : start + PAGE]:
            return f"at {start}: {body[start : start + 60]!r}, not {expected[start : start + 60]!r}"
    return f"{len(body)} bytes, not {len(expected)}"
