"""A slow disk made from a fast one: a control group whose reads are held to so many a second.

Runs in the benchmark, as root. Version 1 (blkio.throttle.read_iops_device) and version 2 (io.max)
of control groups are both known; whichever has the controller is used. The group is made under the
hierarchy's own root and removed again, with whatever is still in it. Only processes started
through `wrapper()` are.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REMOVE_SECONDS = 10


class ThrottleError(Exception):
    """This machine cannot hold a disk to a rate; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """A control group and the one disk that it limits."""

    group: Path
    version: int
    device: str
    """MAJOR:MINOR of the whole disk."""

    def wrapper(self) -> list[str]:
        """What is put before a command to run it in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs")]

    def hold(self, reads_per_second: int) -> None:
        """Limit the reads from now on; 0 lifts the limit."""
        if self.version == 1:
            file, rule = "blkio.throttle.read_iops_device", str(reads_per_second)
        else:
            file, rule = "io.max", f"riops={reads_per_second or 'max'}"
        (self.group / file).write_text(f"{self.device} {rule}")

    def served(self) -> tuple[int, int]:
        """Reads and bytes that the disk has done for the group, ended processes included."""
        if self.version == 1:
            texts = [
                (self.group / f"blkio.throttle.{name}").read_text() for name in ("io_serviced", "io_service_bytes")
            ]
            return parse_v1(texts[0], self.device), parse_v1(texts[1], self.device)
        return parse_v2((self.group / "io.stat").read_text(), self.device)


@contextmanager
def throttle(folder: Path, name: str) -> Iterator[Throttle]:
    """A group for the disk under the folder, without a limit yet; raises ThrottleError.

    Its processes must have ended when the with block does.
    """
    device = disk_of(folder)
    root, version = controller(Path("/proc/mounts").read_text())
    group = root / name
    try:
        if version == 2:
            (root / "cgroup.subtree_control").write_text("+io")
        group.mkdir()
    except OSError as error:
        raise ThrottleError(f"cannot make the control group {group}: {error}") from error
    try:
        yield Throttle(group, version, device)
    finally:
        _remove(group)


def controller(mounts: str) -> tuple[Path, int]:
    """Where reads can be limited, and the version; raises ThrottleError."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "blkio" in options.split(","):
            return Path(place), 1
        if kind == "cgroup2" and "io" in _words(Path(place, "cgroup.controllers")):
            return Path(place), 2
    raise ThrottleError("no control group controller for disks (blkio or io) is mounted")


def disk_of(folder: Path) -> str:
    """MAJOR:MINOR of the disk that holds a folder; raises ThrottleError when there is none."""
    device = folder.stat().st_dev
    major, minor = os.major(device), os.minor(device)
    entry = Path(f"/sys/dev/block/{major}:{minor}")
    if major == 0 or not entry.exists():
        raise ThrottleError(f"{folder} lies on no disk (tmpfs, overlay ...): name another --dir")
    if (entry / "partition").exists():
        return (entry.resolve().parent / "dev").read_text().strip()
    return f"{major}:{minor}"


def drop_caches() -> None:
    """Forget all clean pages, names and inodes that the kernel has cached."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def parse_v1(text: str, device: str) -> int:
    """The Read line of a device in a statistics file of version 1."""
    lines = (line.split() for line in text.splitlines())
    return next((int(line[2]) for line in lines if line[:2] == [device, "Read"]), 0)


def parse_v2(text: str, device: str) -> tuple[int, int]:
    """Reads and bytes read of a device in io.stat of version 2."""
    for line in text.splitlines():
        name, *pairs = line.split()
        if name == device:
            values = dict(pair.split("=") for pair in pairs)
            return int(values["rios"]), int(values["rbytes"])
    return 0, 0


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def _remove(group: Path) -> None:
    began = time.monotonic()
    while True:
        try:
            group.rmdir()
        except OSError:  # A process that has just been reaped may still be counted.
            waited = time.monotonic() - began
            if waited > REMOVE_SECONDS:
                raise
            if waited > REMOVE_SECONDS / 2:
                _kill_members(group)
            time.sleep(0.05)
        else:
            return


def _kill_members(group: Path) -> None:
    # What a server that was killed has left behind; nothing else is ever in the group.
    for pid in _words(group / "cgroup.procs"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
