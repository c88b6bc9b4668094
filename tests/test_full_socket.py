"""A reply that begins while the socket is full: its chunks stay where they are until they are sent."""

import socket
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.outgoing import DONE, FULL, Outgoing
from tests.web import CHUNK, stream

COUNT = 4
Part = bytes | tuple[int, int]


class File:
    """A file whose chunks are all in memory, as far as they were not thrown out: what Outgoing asks of Content."""

    def __init__(self, chunks: Chunks, content: bytes) -> None:
        self._chunks = chunks
        self.content = content
        for number in range(COUNT):
            self.load(number)

    def load(self, number: int) -> Chunk:
        """Read a chunk again."""
        offset = self._chunks.reserve(CHUNK)
        assert offset is not None
        self._chunks.memory[offset : offset + CHUNK] = self.content[number * CHUNK : (number + 1) * CHUNK]
        chunk = self._chunks.commit(number, offset, CHUNK)
        self._chunks.unpin(chunk)
        return chunk

    def chunk_at(self, _entry: object, position: int) -> Chunk:
        number = position // CHUNK
        return self._chunks.get(number) or self.load(number)


@pytest.mark.parametrize("parts", [((0, COUNT * CHUNK),), (b"one", (0, CHUNK), b"two", (2 * CHUNK, COUNT * CHUNK))])
def test_no_memory_is_taken_from_under_a_reply(parts: tuple[Part, ...]) -> None:
    chunks = Chunks(memoryview(bytearray(8 * CHUNK)), CHUNK)
    file = File(chunks, stream("file", COUNT * CHUNK))
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        theirs.settimeout(30)
        skip = fill(ours)
        absent: Any = SimpleNamespace()
        outgoing = Outgoing(chunks, file, absent, absent)  # type: ignore[arg-type]
        outgoing.add(b"head")
        outgoing.follow(parts)
        for _ in range(3):
            assert outgoing.pump(ours.sendmsg, never) == FULL
        assert outgoing.sent == 0
        use_up(chunks)
        received = bytearray()
        outcome = FULL
        while outcome != DONE:
            received += theirs.recv(1 << 20)
            outcome = outgoing.pump(ours.sendmsg, never)
        ours.close()
        while data := theirs.recv(1 << 20):
            received += data
        outgoing.close()
    assert received[skip:] == b"head" + b"".join(
        part if isinstance(part, bytes) else file.content[slice(*part)] for part in parts
    )
    assert chunks.pinned == 0


def use_up(chunks: Chunks) -> None:
    """Others take all the memory that is free or may be made so, write to it, and let it go."""
    taken = []
    while (offset := chunks.reserve(CHUNK)) is not None:
        chunks.memory[offset : offset + CHUNK] = b"\xee" * CHUNK
        taken.append(offset)
    for offset in taken:
        chunks.abandon(offset)


def fill(sock: socket.socket) -> int:
    """Send until not even a byte goes; how many went."""
    count = 0
    try:
        while True:
            count += sock.send(b"x" * 65536)
    except BlockingIOError:
        return count


def never() -> None:
    raise AssertionError("everything is in memory")
