"""The pid file, with real processes in it."""

import os
import subprocess
from pathlib import Path

import pytest

from flashpy.pidfile import Pidfile, read


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_it_names_us_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "flashpy.pid"
    pidfile = Pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_living_holder_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "flashpy.pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(FileExistsError, match=f"process {os.getppid()}"):
        Pidfile(str(path))
    assert path.read_text() == f"{os.getppid()}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_holder_that_ended_and_was_not_reaped_is_none(tmp_path: Path) -> None:
    path = tmp_path / "flashpy.pid"
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        path.write_text(f"{process.pid}\n")
        Pidfile(str(path))
    assert read(str(path)) == os.getpid()


@pytest.mark.parametrize("text", ["", "junk", "-1", "0", "99999999999999999999", "{dead}"])
def test_a_stale_file_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flashpy.pid"
    path.write_text(text.format(dead=dead_process()))
    Pidfile(str(path))
    assert read(str(path)) == os.getpid()


def test_a_file_that_names_another_is_left(tmp_path: Path) -> None:
    path = tmp_path / "flashpy.pid"
    pidfile = Pidfile(str(path))
    path.write_text("1\n")
    pidfile.remove()
    assert path.read_text() == "1\n"


def test_a_file_that_was_removed_is_no_error(tmp_path: Path) -> None:
    pidfile = Pidfile(str(tmp_path / "flashpy.pid"))
    (tmp_path / "flashpy.pid").unlink()
    pidfile.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "flashpy.pid")
    with pytest.raises(FileNotFoundError, match="the pid file cannot be written") as caught:
        Pidfile(path)
    assert caught.value.filename == path
