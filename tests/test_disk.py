"""Reading a range of a file: one version or none."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from flashpy_helpers import disk

SIZE = 200_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_range_and_version_are_given(file: Path) -> None:
    room = bytearray(1000)
    with file.open("rb") as opened:
        version = disk.read_version(opened.fileno(), memoryview(room), 500, None)
        assert version == disk.identity(os.fstat(opened.fileno()))
    assert bytes(room) == file.read_bytes()[500:1500]
    assert version.size == SIZE


def test_only_the_wanted_version_is_read(file: Path) -> None:
    room = memoryview(bytearray(10))
    with file.open("r+b") as opened:
        version = disk.read_version(opened.fileno(), room, 0, None)
        assert disk.read_version(opened.fileno(), room, 0, version) == version
        opened.truncate(SIZE - 1)
        with pytest.raises(disk.MovingError):
            disk.read_version(opened.fileno(), room, 0, version)


def test_range_beyond_the_end_is_no_version(file: Path) -> None:
    with file.open("rb") as opened, pytest.raises(disk.MovingError):
        disk.read_version(opened.fileno(), memoryview(bytearray(10)), SIZE - 9, None)


def test_nothing_is_read_into_no_room(file: Path) -> None:
    with file.open("rb") as opened:
        version = disk.read_version(opened.fileno(), memoryview(b""), 0, None)
    assert version == disk.identity(file.stat())


def test_file_changed_just_now_is_read_when_it_has_rested(file: Path) -> None:
    file.write_bytes(b"new")
    with file.open("rb") as opened:
        version = disk.read_version(opened.fileno(), memoryview(bytearray(3)), 0, None)
    assert time.time_ns() - version.ctime_ns >= disk.RESTED_NS


def test_time_far_in_the_future_is_kept_exactly(file: Path) -> None:
    os.utime(file, ns=(0, 4_000_000_000 * 10**9 + 7))
    with file.open("rb") as opened:
        version = disk.read_version(opened.fileno(), memoryview(bytearray(3)), 0, None)
    assert version.mtime_ns == file.stat().st_mtime_ns


def test_file_rewritten_in_place_during_reads_is_never_mixed(file: Path) -> None:
    """A writer puts two contents of one size into the file, again and again.

    Each write changes the times: at once on kernels with fine-grained ones (6.13), else by the
    tick, and always when it begins. This is why a file that was just changed is left to rest.
    """
    size = 16 << 20  # large, so that reads and writes meet
    contents = [bytes([letter]) * size for letter in b"ab"]
    file.write_bytes(contents[0])
    pid = os.fork()
    if not pid:
        fd = os.open(file, os.O_WRONLY)
        for n in range(2000):
            os.pwrite(fd, contents[n % 2], 0)
            time.sleep(0.03 + n % 7 * 0.005)
        os._exit(0)
    room = bytearray(size)
    view = memoryview(room)
    whole = moving = 0
    try:
        end = time.monotonic() + 1.5
        with file.open("rb") as opened:
            while time.monotonic() < end or not whole:
                try:
                    disk.read_version(opened.fileno(), view, 0, None)
                except disk.MovingError:
                    moving += 1
                else:
                    whole += 1
                    mixed = room not in contents
                    assert not mixed  # the contents are too long to be shown
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert whole


def test_reading_ahead_brings_what_follows(tmp_path: Path) -> None:
    size = 4 * disk.STEP_BYTES
    large = tmp_path / "large"
    large.write_bytes(bytes(size))
    with large.open("r+b") as opened:
        fd = opened.fileno()
        for start, last in ((0, 2), (1 << 18, 2), (disk.STEP_BYTES, 3), (3 * disk.STEP_BYTES, 4)):
            os.fsync(fd)
            os.posix_fadvise(fd, 0, size, os.POSIX_FADV_DONTNEED)
            disk.read_ahead(fd, start, 1 << 18, size)
            _until_resident(fd, last * disk.STEP_BYTES - 4096)


def _until_resident(fd: int, offset: int) -> None:
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    resident = ctypes.create_string_buffer(1)
    end = time.monotonic() + 20
    with mmap.mmap(fd, 4096, offset=offset) as page:
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        while mincore(address, 4096, resident) or not resident.raw[0] & 1:
            assert time.monotonic() < end, "it was never read"
            time.sleep(0.002)


def test_reading_ahead_where_it_cannot_be_done_is_no_error() -> None:
    read_end, write_end = os.pipe()
    disk.read_ahead(read_end, 0, 10, 20)
    with pytest.raises(OSError, match="Illegal seek"):
        os.posix_fadvise(read_end, 0, 10, os.POSIX_FADV_WILLNEED)
    os.close(read_end)
    os.close(write_end)
