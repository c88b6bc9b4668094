"""Records to the log helper: never waiting, bounded, counted, one line each. The test is the log helper."""

import json
import os
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.logs import KEPT, LEVELS, RECORD, Log, _records, describe, escape
from flashpy_helpers import channel


class Reader:
    """The far end of a log's channel."""

    def __init__(self) -> None:
        self.near, self.far = channel.pair()

    def records(self) -> list[bytes]:
        found = []
        while (got := channel.receive(self.far)) is not None:
            assert len(got[0]) <= RECORD + 1
            found.append(got[0])
        return found

    def lines(self, kind: bytes) -> list[bytes]:
        records = self.records()
        assert all(record.endswith(b"\n") for record in records)
        return b"".join(record[1:] for record in records if record[:1] == kind).splitlines()

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def fill(log: Log, size: int) -> int:
    """Log lines of access until about `size` bytes are on their way; how many lines."""
    count = size // 1000
    for n in range(count):
        log.access(b"%06d " % n + b"x" * 992 + b"\n")
    return count


def test_access_lines_come_in_order_and_in_batches(reader: Reader) -> None:
    log = Log(reader.near)
    assert not log.pending
    for n in range(1000):
        log.access(b"line %d\n" % n)
    assert log.pending
    assert reader.records() == []
    log.flush()
    assert not log.pending
    assert reader.lines(b"A") == [b"line %d" % n for n in range(1000)]


def test_error_lines_go_at_once_and_say_who_and_when(reader: Reader) -> None:
    log = Log(reader.near)
    log.error("it broke")
    (line,) = reader.lines(b"E")
    assert line.endswith(b"] [error] it broke")
    assert line[4:5] == line[7:8] == b"-"
    assert log.errors == 1


@pytest.mark.parametrize("level", LEVELS)
def test_levels(reader: Reader, level: str) -> None:
    log = Log(reader.near, level)
    for name in LEVELS:
        getattr(log, name)("text")
    found = [line.split(b"[")[2].split(b"]")[0].decode() for line in reader.lines(b"E")]
    assert found == [name for name in LEVELS if LEVELS[name] >= LEVELS[level]]
    assert log.errors == 1


def test_nobody_can_forge_a_line(reader: Reader) -> None:
    log = Log(reader.near)
    log.info("a\n2026-01-01 [1] [error] forged\r\x1b[31m\x00\u2028\U0001f600")
    (line,) = reader.lines(b"E")
    assert line.endswith(b"a\\x0a2026-01-01 [1] [error] forged\\x0d\\x1b[31m\\x00\\x2028\\x1f600")


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    escaped = escape(text)
    assert escaped.isascii()
    assert escaped.isprintable() or not escaped
    assert escape("plain text, with [all] of it") == "plain text, with [all] of it"


def test_a_line_that_is_too_long_for_a_record_is_cut(reader: Reader) -> None:
    log = Log(reader.near)
    log.error("x" * 100_000)
    log.error("next")
    records = reader.records()
    assert len(records) == 2
    assert records[1].endswith(b"next\n")
    assert records[0].endswith(b"\n"), "or the next line would be glued to it"


def test_what_a_full_channel_does_not_take_is_kept_then_dropped_and_counted(reader: Reader) -> None:
    log = Log(reader.near)
    count = fill(log, 4 * KEPT)
    log.flush()
    assert 0 < log.dropped < count
    assert log._waiting_bytes <= KEPT
    got: list[bytes] = []
    while log.pending:
        got += reader.lines(b"A")
        log.flush()
    got += reader.lines(b"A")
    assert len(got) + log.dropped == count
    numbers = [int(line[:6]) for line in got]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0, "the first are kept, the last dropped"
    dropped = log.dropped
    assert fill(log, 20_000) == 20
    log.flush()
    assert len(reader.lines(b"A")) == 20
    assert log.dropped == dropped


def test_a_dead_log_helper_is_waited_for_and_the_new_one_gets_what_was_kept(reader: Reader) -> None:
    log = Log(reader.near)
    reader.far.close()
    fill(log, 100_000)
    log.error("text")
    log.flush()
    assert log.pending
    fresh = Reader()
    log.rebind(fresh.near)
    assert reader.near.fileno() == -1, "the old channel is closed"
    records = fresh.records()
    assert sum(record.count(b"\n") for record in records if record[:1] == b"A") == 100
    assert sum(record.count(b"\n") for record in records if record[:1] == b"E") == 1
    assert not log.pending
    assert log.dropped == 0
    fresh.close()


def test_a_dead_log_helper_does_not_take_all_the_memory(reader: Reader) -> None:
    log = Log(reader.near)
    reader.far.close()
    count = fill(log, 3 * KEPT)
    for n in range(1000):
        log.error(f"error {n}")
    assert log._waiting_bytes + log._access_bytes <= KEPT + RECORD
    assert log.dropped > count // 2
    assert log.errors == 1000


def test_before_there_is_a_channel_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Log(None).error("early\n")
    assert capsys.readouterr().err.endswith("[error] early\\x0a\n")


@given(st.lists(st.integers(0, 3 * RECORD), max_size=6), st.booleans())
def test_records_are_cut_at_line_ends(lengths: list[int], ended: bool) -> None:
    lines = b"".join(b"x" * length + b"\n" for length in lengths) + (b"" if ended else b"rest")
    pieces = [lines[start:stop] for start, stop in _records(lines)]
    assert b"".join(pieces) == lines
    assert all(len(piece) <= RECORD for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith(b"\n") or b"\n" not in piece


def test_a_traceback_is_one_line_without_source() -> None:
    def broken() -> None:
        raise ValueError("secret\nsecond line")

    with pytest.raises(ValueError, match="secret") as caught:
        broken()
    text = describe(caught.value)
    assert text.startswith("ValueError: secret\nsecond line (test_logs.py:")
    assert text.endswith(" broken)")
    assert 'raise ValueError("secret' not in text


def test_a_bug_is_an_error_of_one_line(reader: Reader) -> None:
    log = Log(reader.near)
    log.bug("while testing", ValueError("a\nb"))
    (line,) = reader.lines(b"E")
    assert line.endswith(b"[error] while testing: ValueError: a\\x0ab ()")
    assert log.errors == 1


def test_an_interrupted_channel_is_no_error() -> None:
    reader = Reader()
    log = Log(reader.near)
    reader.far.shutdown(socket.SHUT_RDWR)
    log.error("text")
    log.access(b"line\n")
    log.flush()
    assert log.pending
    reader.close()


@given(st.text(max_size=60))
def test_json_is_one_line_and_holds_the_message(text: str) -> None:
    reader = Reader()
    try:
        Log(reader.near, form="json").error(text)
        lines = reader.lines(b"E")
    finally:
        reader.close()
    assert len(lines) == 1
    assert lines[0].isascii()
    assert lines[0].decode().isprintable()
    record = json.loads(lines[0])
    assert list(record) == ["time", "pid", "level", "message"]
    assert (record["pid"], record["level"], record["message"]) == (os.getpid(), "error", text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["time"])


@pytest.mark.parametrize("character", ["a", "\n", "é", "\U0001f600"])
def test_a_long_message_stays_an_object(reader: Reader, character: str) -> None:
    Log(reader.near, form="json").error(character * 2 * RECORD)
    (line,) = reader.lines(b"E")
    assert set(json.loads(line)["message"]) == {character}
