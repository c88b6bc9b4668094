"""Heavy jobs: each kind by a function call, and what their processes are by a real spawner and helper."""

import gzip
import hashlib
import os
import random
import resource
import select
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy_helpers import channel, codings, disk, heavy, records, wire
from flashpy_helpers.disk import identity
from flashpy_helpers.wire import Compress, Digest, Failure, Judged, Made, Password, Root, Verify
from tests.workbench import FOLDER, PATIENCE, Spawner, ended, heavy_spawner

zstd: Any = codings._zstd()
ROOM = 1 << 20
CODINGS = (wire.BR, wire.ZSTD, wire.GZIP)
NAMES = {wire.BR: "br", wire.ZSTD: "zstd", wire.GZIP: "gzip"}
TEXT = b"".join(b"%d: the quick brown fox jumps over the lazy dog\n" % n for n in range(4000))

each_coding = pytest.mark.parametrize("coding", CODINGS, ids=NAMES.get)


def decoded(coding: int, data: bytes) -> bytes:
    """By the libraries' own short way."""
    way = {wire.BR: brotli.decompress, wire.ZSTD: zstd.decompress, wire.GZIP: gzip.decompress}
    result: bytes = way[coding](data)
    return result


def encoded(coding: int, data: bytes) -> bytes:
    """As a tool would have made a sibling."""
    way = {wire.BR: brotli.compress, wire.ZSTD: zstd.compress, wire.GZIP: gzip.compress}
    result: bytes = way[coding](data)
    return result


class Room:
    """A folder and memory: files are written, jobs are done on them."""

    def __init__(self, root: Path) -> None:
        self.path = root
        self.memory = memoryview(bytearray(ROOM))
        self.roots = {0: Root(bytes(root), (), wire.INSIDE)}

    def write(self, name: str, data: bytes) -> wire.Identity:
        (self.path / name).write_bytes(data)
        return identity((self.path / name).stat())

    def do(self, job: wire.Job) -> wire.Answer:
        return heavy.do(job, self.roots, self.memory)

    def compress(self, data: bytes, coding: int, room: int = ROOM - 100) -> wire.Answer:
        return self.do(Compress(1, 0, b"f", self.write("f", data), coding, 100, room))

    def verify(self, data: bytes, coding: int, size: int) -> wire.Answer:
        return self.do(Verify(1, 0, b"f", self.write("f", data), coding, size))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("room"))


# Compress


@each_coding
def test_a_file_is_compressed_to_its_place_and_nowhere_else(room: Room, coding: int) -> None:
    answer = room.compress(TEXT, coding)
    assert isinstance(answer, Made)
    assert 0 < answer.filled < len(TEXT) // 4
    assert decoded(coding, bytes(room.memory[100 : 100 + answer.filled])) == TEXT
    assert not any(room.memory[:100])
    assert not any(room.memory[100 + answer.filled :])


@each_coding
def test_a_file_of_several_pieces(room: Room, coding: int) -> None:
    text = TEXT * 12
    assert len(text) > 2 * heavy._PIECE
    answer = room.compress(text, coding)
    assert isinstance(answer, Made)
    assert decoded(coding, bytes(room.memory[100 : 100 + answer.filled])) == text


@each_coding
def test_the_same_input_gives_the_same_bytes(room: Room, coding: int) -> None:
    made = []
    for when in (1_000_000_000, 1_700_000_000):
        room.write("f", TEXT)
        os.utime(room.path / "f", (when, when))
        answer = room.do(Compress(1, 0, b"f", identity((room.path / "f").stat()), coding, 0, ROOM))
        assert isinstance(answer, Made)
        made.append(bytes(room.memory[: answer.filled]))
    assert made[0] == made[1]


def test_gzip_tells_neither_time_nor_name(room: Room) -> None:
    room.compress(TEXT, wire.GZIP)
    assert bytes(room.memory[100:108]) == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_a_zstd_client_needs_no_more_than_8_mib(room: Room) -> None:
    answer = room.compress(bytes(wire.COMPRESS_MOST // 2) + TEXT, wire.ZSTD)
    assert isinstance(answer, Made)
    data = bytes(room.memory[100 : 100 + answer.filled])
    assert zstd.get_frame_info(data).decompressed_size == wire.COMPRESS_MOST // 2 + len(TEXT)
    limited = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    assert len(limited.decompress(data)) == wire.COMPRESS_MOST // 2 + len(TEXT)


@each_coding
@pytest.mark.parametrize("data", [b"", b"a", b"short", random.Random(1).randbytes(50_000)], ids=len)
def test_what_does_not_shrink_is_not_made(room: Room, coding: int, data: bytes) -> None:
    assert room.compress(data, coding) == Failure(1, wire.TOO_LARGE, 0)


@each_coding
def test_what_does_not_fit_is_not_made(room: Room, coding: int) -> None:
    answer = room.compress(TEXT, coding)
    assert isinstance(answer, Made)
    room.memory[:] = bytes(ROOM)
    assert room.compress(TEXT, coding, answer.filled) == answer
    assert room.compress(TEXT, coding, answer.filled - 1) == Failure(1, wire.TOO_LARGE, 0)
    assert not any(room.memory[100 + answer.filled :])


@each_coding
def test_a_file_that_takes_too_long_is_not_compressed(room: Room, coding: int) -> None:
    assert isinstance(room.compress(bytes(wire.COMPRESS_MOST), coding), Made)
    assert room.compress(bytes(wire.COMPRESS_MOST + 1), coding) == Failure(1, wire.TOO_LARGE, 0)


@given(st.binary(max_size=2000) | st.binary(max_size=50).map(lambda data: data * 100), st.sampled_from(CODINGS))
def test_compressed_it_decodes_to_the_same_or_was_not_worth_it(lasting: Room, data: bytes, coding: int) -> None:
    answer = lasting.compress(data, coding)
    if isinstance(answer, Made):
        made = bytes(lasting.memory[100 : 100 + answer.filled])
        assert len(made) < len(data)
        assert decoded(coding, made) == data
        assert lasting.verify(made, coding, len(data)) == Judged(1, True)
    else:
        assert answer == Failure(1, wire.TOO_LARGE, 0)
        assert len(encoded(coding, data)) > len(data) - 12


def test_another_version_is_not_compressed(room: Room) -> None:
    old = room.write("f", TEXT)
    room.write("f", TEXT + b"more")
    for job in (Compress(1, 0, b"f", old, wire.BR, 0, ROOM), Digest(1, 0, b"f", old), Verify(1, 0, b"f", old, 0, 1)):
        assert room.do(job) == Failure(1, wire.MOVING, 0)
    (room.path / "f").unlink()
    assert room.do(Digest(1, 0, b"f", old)) == Failure(1, wire.MISSING, 2)


def test_a_file_that_changes_in_the_middle_is_given_up(room: Room) -> None:
    """Between two pieces of one read: what is said of the version before it holds no longer."""
    version = room.write("f", random.Random(1).randbytes(3 * heavy._PIECE))
    with (room.path / "f").open("r+b") as file:
        pieces = heavy._pieces(file.fileno(), version, heavy._PIECE)
        next(pieces)
        file.write(b"changed")
        file.flush()
        with pytest.raises(disk.MovingError):
            next(pieces)


# Verify


@each_coding
def test_a_good_sibling_is_known_by_its_length(room: Room, coding: int) -> None:
    data = encoded(coding, TEXT)
    assert room.verify(data, coding, len(TEXT)) == Judged(1, True)
    for other in (0, len(TEXT) - 1, len(TEXT) + 1):
        assert room.verify(data, coding, other) == Judged(1, False)


@each_coding
def test_an_empty_original_has_a_sibling_too(room: Room, coding: int) -> None:
    assert room.verify(encoded(coding, b""), coding, 0) == Judged(1, True)
    assert room.verify(b"", coding, 0) == Judged(1, False)


@each_coding
@pytest.mark.parametrize("length", [1, 5, 100, -5, -1])
def test_a_sibling_cut_short_is_corrupt(room: Room, coding: int, length: int) -> None:
    assert room.verify(encoded(coding, TEXT)[:length], coding, len(TEXT)) == Judged(1, False)


@each_coding
def test_garbage_is_corrupt(room: Room, coding: int) -> None:
    rest = random.Random(coding)
    for n in range(50):
        assert room.verify(rest.randbytes(n * 40), coding, 1 << 30) == Judged(1, False)
    for other in set(CODINGS) - {coding}:
        assert room.verify(encoded(other, TEXT), coding, len(TEXT)) == Judged(1, False)


@each_coding
def test_garbage_behind_the_end_is_corrupt(room: Room, coding: int) -> None:
    data = encoded(coding, TEXT)
    for rest in (b"\0", b"rest", b"x" * 200_000):
        assert room.verify(data + rest, coding, len(TEXT)) == Judged(1, False)


def test_a_flipped_bit_is_seen_where_the_coding_has_a_checksum(room: Room) -> None:
    data = bytearray(encoded(wire.GZIP, TEXT))
    data[-6] ^= 1
    assert room.verify(bytes(data), wire.GZIP, len(TEXT)) == Judged(1, False)


def bomb(coding: int, size: int) -> bytes:
    """So many zeros, made piece by piece."""
    block = bytes(1 << 20)
    if coding == wire.BR:
        encoder = brotli.Compressor(quality=1)
        parts = [encoder.process(block) for _ in range(size >> 20)]
        return b"".join((*parts, encoder.finish()))
    other = zstd.ZstdCompressor() if coding == wire.ZSTD else zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join((*(other.compress(block) for _ in range(size >> 20)), other.flush()))


@each_coding
def test_a_bomb_is_stopped_just_beyond_the_size(room: Room, coding: int) -> None:
    data = bomb(coding, 256 << 20)
    assert len(data) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert room.verify(data, coding, 100_000) == Judged(1, False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 50 << 10  # KiB
    assert room.verify(data, coding, 256 << 20) == Judged(1, True)


def test_a_zstd_window_that_no_browser_has_is_corrupt(room: Room) -> None:
    parameter = zstd.CompressionParameter
    text = TEXT * 40
    for log, good in ((23, True), (24, False)):
        encoder = zstd.ZstdCompressor(options={parameter.window_log: log, parameter.content_size_flag: 0})
        data = encoder.compress(text) + encoder.flush()
        assert room.verify(data, wire.ZSTD, len(text)) == Judged(1, good)


# Digest


@pytest.mark.parametrize("size", [0, 1, heavy._PIECE, 3 * heavy._PIECE + 7])
def test_a_digest_is_of_the_bytes_alone(room: Room, size: int) -> None:
    data = random.Random(size).randbytes(size)
    expected = hashlib.blake2b(data, digest_size=16).digest()
    for name in ("f", "g"):
        job = Digest(7, 0, name.encode(), room.write(name, data))
        assert room.do(job) == wire.Digested(7, expected)


def test_a_very_large_file_is_not_digested(room: Room) -> None:
    identity = room.write("f", b"x")._replace(size=wire.DIGEST_MOST + 1)
    assert room.do(Digest(7, 0, b"f", identity)) == wire.Failure(7, wire.TOO_LARGE, 0)


# Password


def password(hash: bytes, word: bytes) -> Password:
    return Password(3, 0, hash, word)


def test_a_password_is_right_or_wrong(room: Room) -> None:
    for word in (b"secret", b"", "grün".encode(), b"a\0b"):
        hash = bcrypt.hashpw(word, bcrypt.gensalt(4))
        assert room.do(password(hash, word)) == Judged(3, True)
        assert room.do(password(hash, word + b"x")) == Judged(3, False)
        assert room.do(password(hash.replace(b"$2b$", b"$2y$"), word)) == Judged(3, True)  # as htpasswd writes it


def test_only_the_first_72_bytes_of_a_password_count(room: Room) -> None:
    """So does htpasswd hash them, and every version of the library shall agree."""
    hash = bcrypt.hashpw(b"p" * 72, bcrypt.gensalt(4))
    assert room.do(password(hash, b"p" * 80)) == Judged(3, True)
    assert room.do(password(hash, b"p" * 71)) == Judged(3, False)


@pytest.mark.parametrize("hash", [b"", b"secret", b"$apr1$x$y", b"$2b$31$" + b"a" * 53, b"$2b$04$" + b"a" * 52])
def test_a_hash_that_is_none_or_costs_days_is_refused_and_not_shown(room: Room, hash: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a bcrypt hash, or one that costs too much$"):
        room.do(password(hash, b"secret"))


# What is no heavy job, and what is missing


def test_a_job_that_is_none_of_these_is_an_error(room: Room) -> None:
    version = room.write("f", TEXT)
    with pytest.raises(ValueError, match="not a heavy job"):
        room.do(wire.Load(1, 0, b"f", version, 0, 10, 0))
    with pytest.raises(KeyError):
        room.do(Digest(1, 9, b"f", version))
    with pytest.raises(ValueError, match="outside the cache"):
        room.do(Compress(1, 0, b"f", version, wire.BR, ROOM - 10, 11))


class Press:
    """A heavy spawner and one helper of it, as a worker sees them."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self.memory = os.memfd_create("content", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, ROOM)
        self.end = self.ask()
        hello = self.answer()
        assert isinstance(hello, wire.Hello)
        assert hello.version == wire.VERSION
        self.pid = hello.pid

    def ask(self) -> Any:
        near, far = channel.pair()
        with far:
            assert channel.send(self.spawner.requests, b"H", (far.fileno(), self.memory))
        return near

    def do(self, job: wire.Job) -> wire.Answer:
        assert channel.send(self.end, records.pack_job(job))
        return self.answer()

    def answer(self) -> wire.Answer:
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "nothing came"
        got = channel.receive(self.end)
        assert got is not None
        return records.unpack_answer(got[0])

    def close(self) -> str:
        """End it by the end of its channels; what it said."""
        self.end.close()
        os.close(self.memory)
        said = self.spawner.close().decode()
        assert ended(self.pid)
        assert self.spawner.process.returncode == 0
        return said


@pytest.fixture
def press(tmp_path: Path) -> Iterator[Press]:
    press = Press(heavy_spawner(tmp_path))
    yield press
    assert press.close() == ""


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_every_kind_of_job_by_a_real_helper(press: Press, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "a.txt.br").write_bytes(encoded(wire.BR, TEXT))
    version, sibling = (identity((tmp_path / name).stat()) for name in ("a.txt", "a.txt.br"))
    for coding in CODINGS:
        made = press.do(Compress(1, 0, b"a.txt", version, coding, 4096, ROOM - 4096))
        assert isinstance(made, Made)
        assert decoded(coding, os.pread(press.memory, made.filled, 4096)) == TEXT
    assert press.do(Verify(2, 0, b"a.txt.br", sibling, wire.BR, len(TEXT))) == Judged(2, True)
    assert press.do(Verify(3, 0, b"a.txt.br", sibling, wire.ZSTD, len(TEXT))) == Judged(3, False)
    digest = hashlib.blake2b(TEXT, digest_size=16).digest()
    assert press.do(Digest(4, 0, b"a.txt", version)) == wire.Digested(4, digest)
    hash = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
    assert press.do(Password(5, 0, hash, b"secret")) == Judged(5, True)
    assert press.do(Password(6, 0, hash, b"Secret")) == Judged(6, False)


def test_heavy_processes_have_names_and_stand_back(press: Press) -> None:
    spawner = press.spawner.process.pid
    assert status_of(spawner)["Name"] == "flashpy-heavy"
    assert status_of(press.pid)["Name"] == "flashpy-press"
    assert os.getpriority(os.PRIO_PROCESS, press.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert os.sched_getscheduler(press.pid) == os.SCHED_BATCH
    for pid in (spawner, press.pid):
        assert status_of(pid)["NoNewPrivs"] == "1"
        assert os.getsid(pid) == spawner
    links = [os.readlink(link) for link in Path(f"/proc/{press.pid}/fd").iterdir()]
    assert sum("memfd:content" in link for link in links) == 1
    assert len(links) == 5


def test_a_job_pays_for_no_import(press: Press, tmp_path: Path) -> None:
    """All libraries are mapped in the spawner already, before there is a helper."""
    maps = Path(f"/proc/{press.spawner.process.pid}/maps").read_text()
    assert all(name in maps for name in ("_brotli", "_zstd", "_bcrypt"))


def test_a_job_of_the_other_helpers_is_broken_and_told(tmp_path: Path) -> None:
    press = Press(heavy_spawner(tmp_path))
    assert press.do(wire.Lookup(5, 0, b"a", 0, 10, None)) == Failure(5, wire.BROKEN, 0)
    assert press.do(Password(6, 0, b"$2b$99$secrethash", b"secret")) == Failure(6, wire.BROKEN, 0)
    said = press.close()
    assert "not a heavy job: Lookup" in said
    assert "not a bcrypt hash" in said
    assert "secret" not in said


def test_without_its_library_a_job_fails_in_words_and_the_others_are_done(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    version = identity((tmp_path / "a.txt").stat())
    press = Press(Spawner(tmp_path, program="heavy-spawner", places=[FOLDER]))
    for coding in (wire.BR, wire.ZSTD):
        assert press.do(Compress(1, 0, b"a.txt", version, coding, 0, ROOM)) == Failure(1, wire.UNABLE, 0)
        assert press.do(Verify(2, 0, b"a.txt", version, coding, 5)) == Failure(2, wire.UNABLE, 0)
    assert press.do(Password(3, 0, bcrypt.hashpw(b"a", bcrypt.gensalt(4)), b"a")) == Failure(3, wire.UNABLE, 0)
    assert isinstance(press.do(Compress(4, 0, b"a.txt", version, wire.GZIP, 0, ROOM)), Made)
    assert isinstance(press.do(Digest(5, 0, b"a.txt", version)), wire.Digested)
    press.ask().close()  # another helper says it no second time
    lines = press.close().splitlines()
    assert [line.partition("[warning] ")[2] for line in lines] == [
        f"{name} is not installed: what needs it is not done" for name in ("brotli", "zstd", "bcrypt")
    ]
