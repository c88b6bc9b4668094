"""Channels between the processes: the pipe that keeps message boundaries. Every process runs this.

A channel is a pair of AF_UNIX SOCK_SEQPACKET sockets: one send is one record, a record may carry
descriptors, and the end of a process is an end of file for its peer (the lifeline). Nobody sets
O_NONBLOCK: the flag belongs to the open file description, which processes share, so one side would
change what the other sees. MSG_DONTWAIT belongs to the one call.
"""

import errno
import os
import socket
from array import array
from collections.abc import Sequence

RECORD_BYTES = 65536
"""The longest record that ``receive`` takes."""

_SEND_BUFFER = 1 << 20
_DESCRIPTORS = 4
_SCARCE = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_ROOM = socket.CMSG_SPACE(_DESCRIPTORS * array("i").itemsize)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel, both closed on exec.

    Raises OSError (EMFILE, ENFILE) when there are no descriptors left.
    """
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        # Cut down by the kernel to wmem_max without an error; its default holds 200 KB.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    return ends


def send(
    sock: socket.socket,
    record: bytes,
    fds: Sequence[int] = (),
    flags: int = socket.MSG_DONTWAIT,
) -> bool:
    """Send one record with its descriptors, which stay open here as well.

    Returns False when the channel is full (only with MSG_DONTWAIT) or the kernel is short of
    memory: nothing was sent. Raises BrokenPipeError or ConnectionResetError when the peer is gone,
    ValueError for an empty record, which would look like an end of file.
    """
    if not record:
        raise ValueError("an empty record would look like an end of file")
    try:
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))
            sock.sendmsg((record,), (rights,), flags | socket.MSG_NOSIGNAL)
        else:
            sock.send(record, flags | socket.MSG_NOSIGNAL)
    except OSError as error:
        if error.errno in _SCARCE:
            return False
        raise
    return True


def receive(sock: socket.socket, flags: int = socket.MSG_DONTWAIT) -> tuple[bytes, list[int]] | None:
    """Return the next record and its descriptors (closed on exec; the caller closes them).

    None means that nothing is there now; with ``flags=0`` the call waits instead. Raises EOFError
    at the end, after everything that a dead peer had sent, and ValueError for a record longer than
    RECORD_BYTES or one whose descriptors could not be taken (it is dropped, they are closed).
    """
    try:
        data, ancillary, seen, _ = _read(sock, flags | socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    fds = _descriptors(ancillary) if ancillary else []
    if data and not seen & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        return data, fds
    close(fds)
    if not data:
        raise EOFError("the peer has closed the channel")
    raise ValueError("a record longer than agreed, or with descriptors that could not be taken")


def close(fds: Sequence[int]) -> None:
    """Close descriptors that came with a record and are not wanted."""
    for fd in fds:
        os.close(fd)


def _read(sock: socket.socket, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
    # A peer that died with unread records gives ECONNRESET once, then what it sent before.
    for _ in range(3):
        try:
            return sock.recvmsg(RECORD_BYTES, _ROOM, flags)
        except ConnectionResetError:
            continue
    raise EOFError("the peer has reset the channel")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
