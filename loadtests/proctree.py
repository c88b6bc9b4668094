"""What a server's whole process tree has used: CPU time, bytes read from disks, private memory.

Runs in the benchmark, reads /proc only. CPU time is taken from /proc/PID/task/*/schedstat, which
counts nanoseconds, where the kernel has it; utime and stime are 10 ms ticks. A child that ends
between two samples is found again in its parent's cutime and cstime (in ticks), unless the parent
ignores SIGCHLD; then what it used after the first sample is not counted.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here; times in nanoseconds."""

    pid: int
    parent: int
    own_ns: int
    reaped_ns: int


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of one process and of the children that it has reaped, in nanoseconds."""

    own_ns: int
    reaped_ns: int


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat; a command's name may hold blanks and brackets (proc(5))."""
    pid, _, _ = text.partition(" ")
    fields = text[text.rindex(")") + 2 :].split()
    utime, stime, cutime, cstime = (int(value) for value in fields[11:15])
    return Stat(int(pid), int(fields[1]), (utime + stime) * TICK_NS, (cutime + cstime) * TICK_NS)


def stats() -> dict[int, Stat]:
    """All processes of the machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = _read(Path("/proc", name, "stat"))
            if text:
                found[int(name)] = parse_stat(text)
    return found


def descendants(root: int, processes: Iterable[Stat]) -> list[int]:
    """The process and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    order = [root]
    for pid in order:
        order.extend(children.get(pid, ()))
    return order


def tree(root: int) -> list[int]:
    """The living processes of a server whose first process is root."""
    return descendants(root, stats().values())


def usage(root: int) -> dict[int, Usage]:
    """CPU time of each process of the tree, so far."""
    processes = stats()
    sample = {}
    for pid in descendants(root, processes.values()):
        if pid in processes:
            stat = processes[pid]
            sample[pid] = Usage(_scheduled_ns(pid) or stat.own_ns, stat.reaped_ns)
    return sample


def used_ns(before: dict[int, Usage], after: dict[int, Usage]) -> int:
    """CPU time between two samples of one tree, in nanoseconds.

    What a process used that was reaped in between was its parent's gain, less what it had used
    before the first sample.
    """
    nothing = Usage(0, 0)
    own = sum(now.own_ns - before.get(pid, nothing).own_ns for pid, now in after.items())
    reaped = sum(now.reaped_ns - before.get(pid, nothing).reaped_ns for pid, now in after.items())
    gone = sum(then.own_ns + then.reaped_ns for pid, then in before.items() if pid not in after)
    return own + max(0, reaped - gone)


def read_bytes(root: int) -> int:
    """Bytes that the living processes of the tree made the disks read (needs their rights)."""
    return sum(_field(Path("/proc", str(pid), "io"), "read_bytes:") for pid in tree(root))


def private_bytes(root: int) -> dict[int, int]:
    """Private dirty memory of each process of the tree, in bytes."""
    found = {}
    for pid in tree(root):
        kib = _field(Path("/proc", str(pid), "smaps_rollup"), "Private_Dirty:")
        found[pid] = kib * 1024
    return found


def _scheduled_ns(pid: int) -> int:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return 0
    texts = (_read(Path("/proc", str(pid), "task", task, "schedstat")) for task in tasks)
    return sum(int(text.split()[0]) for text in texts if text)


def _field(file: Path, name: str) -> int:
    for line in _read(file).splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # The process has ended since it was listed.
        return ""
