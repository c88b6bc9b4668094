"""A slow disk made from a fast one: a control group whose reads are held to so many a second.

Runs in the benchmark, as root. Version 1 (blkio.throttle.read_iops_device) and version 2 (io.max)
of control groups are both known; whichever has the controller is used. The group is made under the
hierarchy's own root and removed again. Only processes started through `wrapper()` are in it.
"""

import os
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


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def _remove(group: Path) -> None:
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            group.rmdir()
        except OSError:  # A process that has just been reaped may still be counted.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
