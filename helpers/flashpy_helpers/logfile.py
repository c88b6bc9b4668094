"""The log helper: writes the records of master and workers to the log files.

It may wait for the disk, so that nobody else has to: a sender whose channel is full keeps its
lines for a while and then drops and counts them. What cannot be written here (disk full, a pipe
that nobody reads any more) is dropped and counted too, and told in the error log: the first loss at
once, then once a minute, the rest as soon as writing works again. It ends at the end of file, with
everything written.
"""

import json
import os
import select
import socket
import time

from flashpy_helpers import channel

_BATCH_BYTES = 1 << 20
_BUSY_BYTES = 1 << 18
_NAP = 0.02  # seconds for lines to gather: a write for each record would cost more than the lines
_FULL_WAIT = 1.0  # seconds for a descriptor that somebody made non-blocking
_REMIND = 60.0  # seconds between two lines about a log that still cannot be written


class Stream:
    """One log file: its descriptor (-1 = off), and the lines that it has lost."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.lost = 0
        self.reason = ""
        self.failing = False
        self.torn = False

    def write(self, lines: bytes) -> None:
        """Write whole lines; count those that could not be written."""
        if self.fd < 0 or not lines:
            return
        mended = self.torn
        written, error = self._put(lines)
        self.failing = error is not None
        if error is not None:
            # The newline that mends a torn line is no line of its own.
            self.lost += lines.count(b"\n", max(0, written - mended))
            self.reason = error.strerror or str(error)

    def tell(self, line: bytes) -> bool:
        """Write a line of the log helper's own, which is not counted; whether it worked."""
        return self.fd >= 0 and self._put(line)[1] is None

    def _put(self, lines: bytes) -> tuple[int, OSError | None]:
        data = b"\n" + lines if self.torn else lines
        done = 0
        try:
            while done < len(data):
                done += self._write(memoryview(data)[done:])
        except OSError as error:
            if done:
                self.torn = data[done - 1] != ord("\n")
            return done, error
        self.torn = False
        return done, None

    def _write(self, rest: memoryview) -> int:
        try:
            return os.write(self.fd, rest)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            if not poll.poll(_FULL_WAIT * 1000):
                raise
            return 0


def run(records: socket.socket, access: int, error: int, as_json: bool = False) -> None:
    """Write what arrives on ``records`` until its end; ``as_json`` is how the error log is written."""
    streams = {b"A": Stream("access", access), b"E": Stream("error", error)}
    told = float("-inf")
    ended = False
    while not ended:
        batch, ended = _gather(records)
        for kind, stream in streams.items():
            stream.write(b"".join(lines for tag, lines in batch if tag == kind))
        now = time.monotonic()
        for stream in streams.values():
            if stream.lost and (not stream.failing or ended or now - told > _REMIND):
                _report_loss(stream, streams[b"E"], as_json)
                told = now
        if not ended and sum(len(lines) for _, lines in batch) < _BUSY_BYTES:
            time.sleep(_NAP)


def _gather(records: socket.socket) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Wait for a record; return it with those queued behind it, and whether the end came."""
    batch: list[tuple[bytes, bytes]] = []
    size, flags = 0, 0
    while size < _BATCH_BYTES:
        try:
            got = channel.receive(records, flags)
        except EOFError:
            return batch, True
        except ValueError:
            continue
        if got is None:
            break
        record, fds = got
        channel.close(fds)
        batch.append((record[:1], record[1:]))
        size += len(record)
        flags = socket.MSG_DONTWAIT
    return batch, False


def _report_loss(stream: Stream, log: Stream, as_json: bool) -> None:
    """Say in the error log how much was lost."""
    text = f"{stream.name} log: {stream.lost} lines lost: {stream.reason}"
    if log.tell(json_line("warning", text) if as_json else error_line("warning", text)):
        stream.lost = 0


def error_line(level: str, text: str) -> bytes:
    """A line of the error log about this process, in the format that all processes use."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"{stamp} [{os.getpid()}] [{level}] {text}\n".encode()


def json_line(level: str, text: str) -> bytes:
    """The same as JSON."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"time": stamp, "pid": os.getpid(), "level": level, "message": text}
    return json.dumps(told).encode() + b"\n"
