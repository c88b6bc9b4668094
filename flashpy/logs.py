"""WORKER and MASTER: records to the log helper, which alone writes files.

A disk that is full or slow must not stop a worker, so nothing here waits: lines are collected, sent as records of up
to 48 KiB, kept up to 1 MiB while the channel is full, then dropped and counted. Every write of a log file is the
log helper's (`flashpy_helpers.logfile`). Tracebacks are written without source lines, since formatting those
would open the source file.
"""

import json
import os
import socket
import sys
import time
import traceback
from collections import deque

from flashpy_helpers import channel

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
RECORD = 48 * 1024
KEPT = 1 << 20
_ROOM = 32  # for what stands before the message, in twelves


def escape(text: str) -> str:
    """`text` as one line: control characters and non-ASCII as backslash escapes, so that nobody can forge a line."""
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text)


def describe(problem: BaseException) -> str:
    """A traceback in one line, without source text: `ValueError: x (a.py:12 f; b.py:3 g)`."""
    frames = []
    at = problem.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        frames.append(f"{os.path.basename(code.co_filename)}:{at.tb_lineno} {code.co_name}")
        at = at.tb_next
    what = "".join(traceback.format_exception_only(problem)).strip()
    return f"{what} ({'; '.join(frames)})"


class Log:
    """The sending end of the log helper's channel. `level` is the least severe level that is written, `form` is "text"
    or "json".
    """

    def __init__(self, sock: socket.socket | None, level: str = "info", form: str = "text") -> None:
        self.dropped = 0
        self.errors = 0
        self._socket = sock
        self._pid = os.getpid()  # each process makes its own
        self._least = LEVELS[level]
        self._form = form
        self._access: list[bytes] = []
        self._access_bytes = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0

    def access(self, lines: bytes) -> None:
        """Append whole access lines (each ends with a newline)."""
        self._access.append(lines)
        self._access_bytes += len(lines)
        if self._access_bytes >= RECORD:
            self.flush()

    def debug(self, text: str) -> None:
        """For whoever looks into a problem."""
        self._write("debug", text)

    def info(self, text: str) -> None:
        """What an operator may want to know."""
        self._write("info", text)

    def warning(self, text: str) -> None:
        """What an operator should look at."""
        self._write("warning", text)

    def error(self, text: str) -> None:
        """What cost somebody something."""
        self.errors += 1
        self._write("error", text)

    def bug(self, where: str, problem: BaseException) -> None:
        """An exception that nobody expected: an error line with its traceback."""
        self.error(f"{where}: {describe(problem)}")

    def _write(self, level: str, text: str) -> None:
        if LEVELS[level] < self._least:
            return
        line = self._line(level, text)
        if self._socket is None:
            sys.stderr.write(line)
            return
        self._keep(b"E" + line.encode("ascii"))
        self.flush()

    def _line(self, level: str, text: str) -> str:
        """A line in ASCII that fits a record; as JSON no character is longer than six or, beyond 16 bits, twelve."""
        now = time.gmtime()
        if self._form == "json":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
            told = {"time": stamp, "pid": self._pid, "level": level, "message": text[: RECORD // 12 - _ROOM]}
            return json.dumps(told).replace("\x7f", "\\u007f") + "\n"
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", now)
        line = f"{stamp} [{self._pid}] [{level}] {escape(text)}"
        return line[: RECORD - 2] + "\n"

    def flush(self) -> None:
        """Send what there is; what does not go now is kept (bounded) for the next flush."""
        if self._access:
            lines = b"".join(self._access)
            self._access.clear()
            self._access_bytes = 0
            for start, stop in _records(lines):
                self._keep(b"A" + lines[start:stop])
        while self._waiting and self._send(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft())

    def _keep(self, record: bytes) -> None:
        if self._waiting_bytes + len(record) > KEPT:
            self.dropped += record.count(b"\n")
            return
        self._waiting.append(record)
        self._waiting_bytes += len(record)

    def _send(self, record: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            return channel.send(self._socket, record)
        except OSError:
            return False  # the log helper is gone; the master will send a new channel

    @property
    def pending(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._access or self._waiting)

    def rebind(self, sock: socket.socket) -> None:
        """Go on with a new log helper (reopened files, or the old one died); the old channel is closed."""
        if self._socket is not None:
            self._socket.close()
        self._socket = sock
        self.flush()


def _records(lines: bytes) -> list[tuple[int, int]]:
    """Where to cut `lines` into records of at most RECORD bytes, at line ends where there are any."""
    cuts, start = [], 0
    while len(lines) - start > RECORD:
        stop = lines.rfind(b"\n", start, start + RECORD) + 1 or start + RECORD
        cuts.append((start, stop))
        start = stop
    cuts.append((start, len(lines)))
    return cuts
