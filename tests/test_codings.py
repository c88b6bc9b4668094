"""The content codings: the same bytes each time, for Python's own decoders too, and what is corrupt is told."""

import gzip
import os
import subprocess
import sys
import zlib
from pathlib import Path

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy_helpers import wire
from flashpy_helpers.codings import (
    CODINGS,
    SUFFIXES,
    Coding,
    CorruptError,
    Level,
    compress,
    decompress_length,
    matches,
    verify,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

REPOSITORY = Path(__file__).parent.parent
DECODERS = {"br": brotli.decompress, "zstd": zstd.decompress, "gzip": gzip.decompress}
LEVELS: tuple[Level, ...] = ("fast", "best")
TEXT = b"".join(b"line %d of a text that shrinks\n" % number for number in range(20_000))

each_coding = pytest.mark.parametrize("coding", CODINGS)
each_level = pytest.mark.parametrize("level", LEVELS)


def test_every_coding_has_its_suffix() -> None:
    assert SUFFIXES == {"br": b".br", "zstd": b".zst", "gzip": b".gz"}
    assert [CODINGS[number] for number in (wire.BR, wire.ZSTD, wire.GZIP)] == ["br", "zstd", "gzip"]


@given(st.binary(), st.integers(1, 300), st.sampled_from(CODINGS), st.sampled_from(LEVELS))
@settings(deadline=None)
def test_any_data_comes_back(part: bytes, times: int, coding: Coding, level: Level) -> None:
    data = part * times
    body = compress(coding, data, level)
    assert DECODERS[coding](body) == data
    assert compress(coding, memoryview(data), level) == body
    assert decompress_length(coding, body, len(data)) == len(data)


@each_coding
@each_level
def test_large_data_come_back(coding: Coding, level: Level) -> None:
    data = TEXT + os.urandom(200_000)
    assert DECODERS[coding](compress(coding, data, level)) == data
    assert verify(coding, compress(coding, data, level), len(data))


@each_coding
@each_level
def test_another_process_makes_the_same_bytes(coding: Coding, level: Level) -> None:
    code = (
        "import sys; from flashpy_helpers.codings import compress; "
        "sys.stdout.buffer.write(compress(sys.argv[1], sys.stdin.buffer.read(), sys.argv[2]))"
    )
    words = [sys.executable, "-c", code, coding, level]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, input=TEXT, stdout=subprocess.PIPE, env=environment, check=True, timeout=60)
    assert done.stdout == compress(coding, TEXT, level)


@each_coding
def test_best_is_smaller_than_fast(coding: Coding) -> None:
    # A real text: one that only counts is a case of its own, which the quick levels may win.
    text = (REPOSITORY / "tests" / "test_arbiter.py").read_bytes()
    assert len(compress(coding, text, "best")) < len(compress(coding, text, "fast")) < len(text) // 3


def test_gzip_names_no_time_no_file_and_no_system() -> None:
    assert compress("gzip", TEXT, "best")[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    assert compress("gzip", TEXT, "fast")[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x00\xff"


@each_coding
def test_what_is_cut_or_has_a_rest_or_another_size_is_refused(coding: Coding) -> None:
    body = compress(coding, TEXT, "fast")
    assert verify(coding, body, len(TEXT))
    assert not verify(coding, body, len(TEXT) + 1)
    assert not verify(coding, body, len(TEXT) - 1)
    assert not verify(coding, body[:-1], len(TEXT))
    assert not verify(coding, body + b"rest", len(TEXT))
    assert not verify(coding, b"", 0)
    assert not verify(coding, TEXT, len(TEXT))


@each_coding
def test_a_body_matches_its_original_and_nothing_else(coding: Coding) -> None:
    body = compress(coding, TEXT, "fast")
    assert matches(coding, body, TEXT)
    assert matches(coding, memoryview(body), memoryview(TEXT))
    assert not matches(coding, body, TEXT[:-1])
    assert not matches(coding, body, TEXT + b"x")
    assert not matches(coding, body, b"x" + TEXT[1:])
    assert not matches(coding, body, TEXT[:-1] + b"x")
    assert not matches(coding, body[:-1], TEXT)
    assert not matches(coding, b"", b"")
    assert matches(coding, compress(coding, b"", "best"), b"")


@each_coding
@pytest.mark.parametrize("rest", [b"rest", bytes(100_000)])
def test_a_rest_behind_a_body_of_several_pieces_is_refused(coding: Coding, rest: bytes) -> None:
    data = os.urandom(300_000)
    body = compress(coding, data, "fast")
    assert matches(coding, body, data)
    assert not matches(coding, body + rest, data)
    assert not verify(coding, body + rest, len(data))


@given(st.binary(), st.sampled_from(CODINGS))
@settings(deadline=None)
def test_garbage_is_no_exception_of_a_library(data: bytes, coding: Coding) -> None:
    try:
        length = decompress_length(coding, data, 1 << 20)
    except CorruptError:
        return
    assert length == len(DECODERS[coding](data))


@each_coding
def test_a_bomb_is_left_after_the_most_that_was_said(coding: Coding) -> None:
    body = compress(coding, bytes(50_000_000), "fast")
    with pytest.raises(CorruptError, match="more than 1000 bytes"):
        decompress_length(coding, body, 1000)


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_frames_and_members_are_joined(coding: Coding) -> None:
    body = compress(coding, TEXT, "fast") + compress(coding, b"more", "best")
    assert DECODERS[coding](body) == TEXT + b"more"
    assert verify(coding, body, len(TEXT) + 4)


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_a_body_of_very_many_empty_frames_is_refused(coding: Coding) -> None:
    """What is decoded takes a processor, and nobody could stop it."""
    body = compress(coding, b"", "fast") * 70_000
    with pytest.raises(CorruptError, match="more than 65536"):
        decompress_length(coding, body, 1000)
    few = body[: len(body) // 70_000 * 1000] + compress(coding, TEXT, "fast")
    assert verify(coding, few, len(TEXT))


def test_a_zstd_window_that_browsers_refuse_counts_as_corrupt() -> None:
    parameter = zstd.CompressionParameter
    for window_log, is_fine in ((23, True), (25, False)):
        compressor = zstd.ZstdCompressor(options={parameter.window_log: window_log})
        # Its size unknown, a frame has the whole window.
        body = compressor.compress(TEXT) + compressor.flush()
        assert verify("zstd", body, len(TEXT)) is is_fine


def test_a_checksum_that_is_wrong_is_told() -> None:
    body = bytearray(compress("gzip", TEXT, "fast"))
    body[-8] ^= 1
    with pytest.raises(zlib.error):
        zlib.decompress(body, 16 + zlib.MAX_WBITS)
    assert not verify("gzip", bytes(body), len(TEXT))
