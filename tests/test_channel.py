"""Channels: records with boundaries, descriptors, and the end of a peer."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from flashpy_helpers import channel

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    near, far = channel.pair()
    with near, far:
        yield near, far


def test_records_keep_their_boundaries(ends: Pair) -> None:
    near, far = ends
    for record in (b"one", b"two" * 1000, b"3"):
        assert channel.send(near, record)
    assert [channel.receive(far) for _ in range(4)] == [
        (b"one", []),
        (b"two" * 1000, []),
        (b"3", []),
        None,
    ]


def test_longest_record_passes_whole(ends: Pair) -> None:
    near, far = ends
    record = os.urandom(channel.RECORD_BYTES)
    assert channel.send(near, record)
    assert channel.receive(far) == (record, [])


def test_longer_record_is_dropped_with_its_descriptors(ends: Pair) -> None:
    near, far = ends
    before = len(os.listdir("/proc/self/fd"))
    assert channel.send(near, b"x" * (channel.RECORD_BYTES + 1), [near.fileno()])
    assert channel.send(near, b"next")
    with pytest.raises(ValueError, match="longer"):
        channel.receive(far)
    assert len(os.listdir("/proc/self/fd")) == before
    assert channel.receive(far) == (b"next", [])


def test_empty_record_is_refused(ends: Pair) -> None:
    with pytest.raises(ValueError, match="empty"):
        channel.send(ends[0], b"")


def test_full_channel_says_so_and_empties_again(ends: Pair) -> None:
    near, far = ends
    count = 0
    while channel.send(near, b"x" * 4096):
        count += 1
    assert count >= 32  # at least a record of 64 KiB and as much again
    for _ in range(count):
        assert channel.receive(far) == (b"x" * 4096, [])
    assert channel.receive(far) is None
    assert channel.send(near, b"room again")


def test_descriptors_arrive_closed_on_exec_and_open_files_unchanged(ends: Pair) -> None:
    near, far = ends
    memory = os.memfd_create("test")
    other, third = channel.pair()
    assert channel.send(near, b"take", [memory, other.fileno()])
    got = channel.receive(far)
    assert got is not None
    record, fds = got
    try:
        assert record == b"take"
        assert [os.fstat(fd).st_ino for fd in fds] == [
            os.fstat(memory).st_ino,
            os.fstat(other.fileno()).st_ino,
        ]
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
        # No call here may make the shared open file description non-blocking.
        assert not fcntl.fcntl(near, fcntl.F_GETFL) & os.O_NONBLOCK
    finally:
        channel.close(fds)
        os.close(memory)
        other.close()
        third.close()


def test_more_descriptors_than_agreed_are_refused_without_a_leak(ends: Pair) -> None:
    near, far = ends
    before = len(os.listdir("/proc/self/fd"))
    assert channel.send(near, b"many", [near.fileno()] * 9)
    with pytest.raises(ValueError, match="descriptors"):
        channel.receive(far)
    assert len(os.listdir("/proc/self/fd")) == before


def test_end_of_file_comes_after_all_records(ends: Pair) -> None:
    near, far = ends
    channel.send(near, b"last words")
    near.close()
    assert channel.receive(far) == (b"last words", [])
    for _ in range(2):
        with pytest.raises(EOFError):
            channel.receive(far)
    with pytest.raises(BrokenPipeError):
        channel.send(far, b"anyone there?")


def test_killed_peer_with_unread_records_hides_none_of_its_own(ends: Pair) -> None:
    near, far = ends
    done, tell = os.pipe()
    pid = os.fork()
    if not pid:
        near.close()
        channel.send(far, b"answer 1")
        channel.send(far, b"answer 2")
        os.write(tell, b"!")
        signal.pause()
        os._exit(1)
    assert os.read(done, 1) == b"!"
    os.close(done)
    os.close(tell)
    assert channel.receive(near, 0) == (b"answer 1", [])
    channel.send(near, b"a job that nobody reads")
    far.close()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The kernel says ECONNRESET first; the finished answer must still be found.
    assert channel.receive(near) == (b"answer 2", [])
    with pytest.raises(EOFError):
        channel.receive(near)


def test_receive_can_wait(ends: Pair) -> None:
    near, far = ends
    pid = os.fork()
    if not pid:
        channel.send(far, b"later")
        os._exit(0)
    assert channel.receive(near, 0) == (b"later", [])
    os.waitpid(pid, 0)
