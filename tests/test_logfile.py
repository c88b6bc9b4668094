"""The log helper as a process, on real files and full devices."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flashpy_helpers
from flashpy_helpers import channel, logfile

FOLDER = str(Path(flashpy_helpers.__file__).parent.parent)
START = "import sys; sys.path.append(sys.argv[1]); from flashpy_helpers.__main__ import main; main()"
PATIENCE = 20.0
LOST = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[%d\] \[warning\] %s log: (\d+) lines lost: %s\n"


class LogHelper:
    """A log helper process and the sending end of its channel."""

    def __init__(self, access: int, error: int, *, as_json: bool = False) -> None:
        self.records, far = channel.pair()
        numbers = [far.fileno(), *{fd for fd in (access, error) if fd >= 0}]
        arguments = map(str, [far.fileno(), access, error, int(as_json), -1, -1])
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", START, FOLDER, "log", *arguments, ""],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        for fd in set(numbers[1:]):
            os.close(fd)

    def send(self, record: bytes) -> None:
        poll = select.poll()
        poll.register(self.records, select.POLLOUT)
        while not channel.send(self.records, record):
            assert poll.poll(PATIENCE * 1000)

    def end(self) -> None:
        """Close the channel: the log helper ends by itself, in silence."""
        self.records.close()
        assert self.process.communicate(timeout=PATIENCE)[1] == b""
        assert self.process.returncode == 0


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_lines_reach_their_files_in_order(tmp_path: Path) -> None:
    access, error = tmp_path / "access", tmp_path / "error"
    log = LogHelper(_open(access), _open(error))
    for n in range(5000):
        log.send(b"Aline %d\n" % n)
        if not n % 1000:
            log.send(b"Eerror %d\n" % n)
    log.end()
    assert access.read_bytes() == b"".join(b"line %d\n" % n for n in range(5000))
    assert error.read_bytes() == b"".join(b"error %d\n" % n for n in range(0, 5000, 1000))


def test_lines_do_not_wait_for_the_end(tmp_path: Path) -> None:
    access = tmp_path / "access"
    log = LogHelper(_open(access), _open(tmp_path / "error"))
    log.send(b"Aone\n")
    _until(lambda: access.read_bytes() == b"one\n")
    log.send(b"Atwo\nthree\n")
    _until(lambda: access.read_bytes() == b"one\ntwo\nthree\n")
    log.end()


def test_access_log_can_be_off_and_one_file_can_be_both(tmp_path: Path) -> None:
    both = tmp_path / "both"
    log = LogHelper(-1, _open(both))
    log.send(b"Anot wanted\n")
    log.send(b"Ewanted\n")
    log.end()
    assert both.read_bytes() == b"wanted\n"
    fd = _open(both)
    log = LogHelper(fd, fd)  # which closes its copy
    log.send(b"Aaccess\n")
    log.send(b"Eerror\n")
    log.end()
    assert both.read_bytes() == b"wanted\naccess\nerror\n"


def test_many_long_records_are_written_whole(tmp_path: Path) -> None:
    access = tmp_path / "access"
    log = LogHelper(_open(access), _open(tmp_path / "error"))
    record = b"A" + (b"x" * 1022 + b"\n") * 64
    for _ in range(200):
        log.send(record)
    log.end()
    assert access.read_bytes() == record[1:] * 200


def test_records_of_several_senders_are_all_written(tmp_path: Path) -> None:
    access = tmp_path / "access"
    log = LogHelper(_open(access), _open(tmp_path / "error"))
    pids = []
    for sender in range(4):
        pid = os.fork()
        if not pid:
            for n in range(500):
                log.send(b"A%d %d\n" % (sender, n))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    log.end()
    lines = access.read_bytes().splitlines()
    for sender in range(4):
        own = [line for line in lines if line.startswith(b"%d " % sender)]
        assert own == [b"%d %d" % (sender, n) for n in range(500)]


def test_lines_for_a_full_disk_are_counted_and_told(tmp_path: Path) -> None:
    error = tmp_path / "error"
    log = LogHelper(os.open("/dev/full", os.O_WRONLY), _open(error))
    log.send(b"Aone\ntwo\n")
    log.send(b"Athree\n")
    log.send(b"Eall is well\n")
    log.end()
    text = error.read_text()
    lost = [int(found) for found in re.findall(_lost(log, "access", "No space left.*"), text)]
    assert sum(lost) == 3
    assert "all is well\n" in text


def _lost(log: LogHelper, name: str, reason: str) -> str:
    return LOST % (log.process.pid, name, reason)


def test_reader_that_goes_and_a_log_that_works_again(tmp_path: Path) -> None:
    """A FIFO without reader fails with EPIPE; with a reader again, writing works again."""
    fifo, error = tmp_path / "fifo", tmp_path / "error"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = LogHelper(os.open(fifo, os.O_WRONLY), _open(error))
    log.send(b"Aheard\n")
    _until(lambda: bool(select.select([reader], [], [], 0)[0]))
    assert os.read(reader, 100) == b"heard\n"
    os.close(reader)
    log.send(b"Alost\nlost too\n")
    _until(lambda: b"lost" in error.read_bytes())  # the first loss is told at once
    log.send(b"Athird\n")
    log.send(b"Eseen\n")
    _until(lambda: error.read_bytes().endswith(b"seen\n"))  # the next one not
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log.send(b"Aheard again\n")
    _until(lambda: error.read_bytes().count(b"lost") == 2)  # but when it works again
    assert os.read(reader, 100) == b"heard again\n"
    os.close(reader)
    log.end()
    line = _lost(log, "access", "Broken pipe")
    found = re.fullmatch(f"{line}seen\n{line}", error.read_text())
    assert found is not None
    assert found.groups() == ("2", "1")


def test_line_cut_by_a_full_disk_does_not_run_into_the_next(tmp_path: Path) -> None:
    """A pipe that takes a part and then no more, as a disk does that becomes full."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    stream = logfile.Stream("access", write_end)
    stream.write(b"first\n" + b"x" * 70_000 + b"\nlast\n")
    assert stream.failing
    assert stream.lost == 2
    head = os.read(read_end, 1 << 20)
    assert head == b"first\n" + b"x" * (len(head) - 6)
    stream.write(b"next\n")
    assert not stream.failing
    assert stream.lost == 2
    assert os.read(read_end, 100) == b"\nnext\n"
    stream.write(b"and on\n")
    assert os.read(read_end, 100) == b"and on\n"
    os.close(read_end)
    os.close(write_end)


def test_torn_line_is_not_counted_twice(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    stream = logfile.Stream("access", write_end)
    stream.torn = True
    os.close(read_end)
    stream.write(b"one\ntwo\n")
    assert (stream.lost, stream.reason) == (2, "Broken pipe")
    assert stream.torn
    os.close(write_end)


def test_records_without_sense_are_passed_over(tmp_path: Path) -> None:
    access, error = tmp_path / "access", tmp_path / "error"
    log = LogHelper(_open(access), _open(error))
    log.send(b"Zwhat?\n")
    log.send(b"x" * (channel.RECORD_BYTES + 1))
    assert channel.send(log.records, b"Awith a descriptor\n", [log.records.fileno()])
    log.send(b"Aafter\n")
    # The log helper must not keep the descriptor: it would be its own lifeline.
    log.end()
    assert access.read_bytes() == b"with a descriptor\nafter\n"
    assert error.read_bytes() == b""


def test_stuck_writer_does_not_block_the_senders() -> None:
    read_end, write_end = os.pipe()
    log = LogHelper(write_end, write_end)
    record = b"A" + b"y" * 60_000 + b"\n"
    end = time.monotonic() + PATIENCE
    while channel.send(log.records, record):  # until the channel is full: never a wait
        assert time.monotonic() < end
    while log.process.poll() is None:
        log.records.close()
        if not os.read(read_end, 1 << 20):
            break
    os.close(read_end)
    assert log.process.wait(PATIENCE) == 0
    assert log.process.stderr is not None
    log.process.stderr.close()


def test_own_lines_have_the_form_of_the_error_log(tmp_path: Path) -> None:
    error = tmp_path / "error"
    log = LogHelper(os.open("/dev/full", os.O_WRONLY), _open(error))
    log.send(b"Aline\n")
    log.end()
    assert re.fullmatch(_lost(log, "access", "No space left on device"), error.read_text())


def test_losses_are_told_as_json(tmp_path: Path) -> None:
    error = tmp_path / "error"
    log = LogHelper(os.open("/dev/full", os.O_WRONLY), _open(error), as_json=True)
    log.send(b"Aone\ntwo\n")
    log.end()
    (record,) = [json.loads(line) for line in error.read_text().splitlines()]
    assert (record["pid"], record["level"]) == (log.process.pid, "warning")
    assert record["message"].startswith("access log: 2 lines lost: No space left")
