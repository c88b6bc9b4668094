"""The content codings br, zstd and gzip: bytes to bytes, no I/O. The command `precompress` and heavy helpers run this.

Only they load the libraries: no other module here but `heavy` may need more than the standard library.

The same data and level give the same bytes each time, and on each machine with the same versions of the
libraries: no time, no name and no operating system is written into them, and one thread works on one
whole. Libraries are imported when they are used, so who compresses nothing does not load them.

What is made can be decoded by any browser: brotli's window is at most 16 MiB, zstd's at most 8 MiB
(RFC 9659). A body with a larger zstd window counts as corrupt here, as it does to a browser.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from flashpy_helpers import wire

if TYPE_CHECKING:
    from types import ModuleType

Coding = Literal["br", "zstd", "gzip"]
Level = Literal["fast", "best"]

CODINGS: Final[tuple[Coding, ...]] = ("br", "zstd", "gzip")
"""As Accept-Encoding names them (RFC 9110, section 8.4.1; RFC 7932; RFC 8878), by the numbers of `wire`."""
SUFFIXES: Final[dict[Coding, bytes]] = dict(zip(CODINGS, wire.SUFFIXES, strict=True))
"""What a precompressed sibling's name adds to its original's."""

# "fast" is for a reply that waits. Measured on scripts, style sheets and texts (MB/s, ratio): brotli 5 has 92 and 5.4,
# zstd 6 150 and 5.3, gzip 6 56 and 4.7. It is kept and sent many times, so its size counts: brotli 4 and zstd 3 make 8
# and 12 % more, and the next levels gain 2 % for a fifth of the speed or more. zstd's levels above 19 want larger
# windows, and within the same one level 22 gained nothing on source text.
_LEVELS: Final[dict[Coding, dict[Level, int]]] = {
    "br": {"fast": 5, "best": 11},
    "zstd": {"fast": 6, "best": 19},
    "gzip": {"fast": 6, "best": 9},
}
_BR_WINDOWS: Final = (10, 24)
_ZSTD_WINDOWS: Final = (10, 23)
# Magic, deflate, no flags, time 0, then what zlib says of its level (2: its best) and system 255, unknown (RFC 1952).
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00%b\xff"
_PIECE: Final = 1 << 16
# Frames or members of one body. Nobody makes more of what a browser is sent; millions of empty ones take minutes.
_FRAMES: Final = 1 << 16


class CorruptError(ValueError):
    """Not a whole body in that coding."""


def compress(coding: Coding, data: bytes | memoryview, level: Level) -> bytes:
    """`data` (any buffer) in a content coding; the same bytes each time.

    `level` is "fast" for what a client waits for, "best" for what is kept. It may take seconds for each MB, and beside
    the data up to 200 MB of memory. No signal handler of Python runs meanwhile.
    """
    effort = _LEVELS[coding][level]
    match coding:
        case "br":
            return _brotli(data, effort)
        case "zstd":
            return _zstd_frame(data, effort)
        case "gzip":
            return _gzip(data, effort)


def decoded(coding: Coding, data: bytes | memoryview) -> Iterator[bytes]:
    """What `data` (any buffer) decodes to, in pieces of some 64 KiB. Raises CorruptError, also for a rest behind it."""
    match coding:
        case "br":
            return _from_brotli(data)
        case "zstd":
            return _from_zstd(data)
        case "gzip":
            return _from_gzip(data)


def decompress_length(coding: Coding, data: bytes | memoryview, most: int) -> int:
    """How many bytes `data` decodes to, without keeping them. Raises CorruptError, and for more than `most` bytes."""
    length = 0
    for piece in decoded(coding, data):
        length += len(piece)
        if length > most:
            raise CorruptError(f"more than {most} bytes")
    return length


def verify(coding: Coding, data: bytes | memoryview, size: int) -> bool:
    """Whether `data` really decodes to `size` bytes. Decodes all of it, and no more than `size` bytes."""
    try:
        return decompress_length(coding, data, size) == size
    except CorruptError:
        return False


def matches(coding: Coding, data: bytes | memoryview, original: bytes | memoryview) -> bool:
    """Whether `data` decodes to `original`, byte for byte. Ends at the first piece that differs."""
    rest = memoryview(original)
    try:
        for piece in decoded(coding, data):
            if rest[: len(piece)] != piece:
                return False
            rest = rest[len(piece) :]
    except CorruptError:
        return False
    return not rest


def missing() -> tuple[str, ...]:
    """The libraries that are not installed; the others are loaded then."""
    names = []
    for name, load in (("brotli", _load_brotli), ("zstd", _zstd)):
        try:
            load()
        except ImportError:
            names.append(name)
    return tuple(names)


def _window(size: int, bounds: tuple[int, int], reserved: int = 0) -> int:
    """The binary logarithm of the smallest window that holds `size` bytes; a decoder needs that much memory."""
    least, most = bounds
    return min(max((size + reserved - 1).bit_length(), least), most)


def _brotli(data: bytes | memoryview, effort: int) -> bytes:
    import brotli

    # 16 bytes of a brotli window are not for data (RFC 7932, section 9.1).
    compressed: bytes = brotli.compress(data, quality=effort, lgwin=_window(len(data), _BR_WINDOWS, 16))
    return compressed


def _zstd_frame(data: bytes | memoryview, effort: int) -> bytes:
    zstd = _zstd()
    parameter = zstd.CompressionParameter
    options = {parameter.compression_level: effort, parameter.window_log: _window(len(data), _ZSTD_WINDOWS)}
    frame: bytes = zstd.compress(data, options=options)
    return frame


def _gzip(data: bytes | memoryview, effort: int) -> bytes:
    # zlib's own head names the system that it was built for.
    deflate = zlib.compressobj(effort, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1)
    head = _GZIP_HEAD % (b"\x02" if effort == zlib.Z_BEST_COMPRESSION else b"\x00")
    tail = struct.pack("<LL", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"".join((head, deflate.compress(data), deflate.flush(), tail))


def _from_brotli(data: bytes | memoryview) -> Iterator[bytes]:
    import brotli

    decoder = brotli.Decompressor()
    view = memoryview(data)
    try:
        # In pieces: of what it is given whole, it copies the rest again for each piece that comes out.
        for start in range(0, len(view), _PIECE):
            if decoder.is_finished():
                raise CorruptError("something comes behind its end")
            piece = decoder.process(view[start : start + _PIECE], output_buffer_limit=_PIECE)
            while piece:
                yield piece
                piece = b"" if decoder.is_finished() else decoder.process(b"", output_buffer_limit=_PIECE)
    except brotli.error as error:
        raise CorruptError(str(error)) from None
    if not decoder.is_finished():
        raise CorruptError("it ends too early")


def _from_zstd(data: bytes | memoryview) -> Iterator[bytes]:
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOWS[1]}
    view = memoryview(data)
    end = 0
    try:
        for _ in range(_FRAMES):
            decoder = zstd.ZstdDecompressor(options=options)
            # In pieces, as above: of what it is given whole, each frame would copy all that comes behind it.
            while not decoder.eof:
                given = view[end : end + _PIECE] if decoder.needs_input else b""
                if decoder.needs_input and not given:
                    raise CorruptError("it ends too early")
                end += len(given)
                yield decoder.decompress(given, _PIECE)
            end -= len(decoder.unused_data)
            if end == len(view):
                return
    except zstd.ZstdError as error:
        raise CorruptError(str(error)) from None
    raise CorruptError(f"more than {_FRAMES} frames")


def _from_gzip(data: bytes | memoryview) -> Iterator[bytes]:
    view = memoryview(data)
    end = 0
    try:
        for _ in range(_FRAMES):  # member by member
            decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
            while not decoder.eof:
                given = decoder.unconsumed_tail or view[end : end + _PIECE]
                end += 0 if decoder.unconsumed_tail else len(given)
                piece = decoder.decompress(given, _PIECE)
                if not piece and not given:
                    raise CorruptError("it ends too early")
                yield piece
            end -= len(decoder.unused_data)
            if end == len(view):
                return
    except zlib.error as error:
        raise CorruptError(str(error)) from None
    raise CorruptError(f"more than {_FRAMES} members")


def _load_brotli() -> None:
    import brotli  # noqa: F401


def _zstd() -> "ModuleType | Any":
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
