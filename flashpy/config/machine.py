"""What "auto" means: the cores and the memory that this server may use. Runs in the master.

A container sees the cores and the memory of the whole host, so the limits of its control groups
count too: in both versions, and in every group from ours up to the root, since the tightest one
holds. Both answers depend on limits only, never on what is free just now: a restart finds the same.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Without /proc/meminfo (never so on Linux) a small machine is assumed.
_FALLBACK_MEMORY = 1 << 30
# Part of the machine's memory for all content caches together. The page cache needs the rest: a
# file that is not hot enough for us should still be warm there. (PostgreSQL advises the same.)
_CACHE_PART = 4
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Group(NamedTuple):
    """One control group folder to look into, and which version's file names it has."""

    folder: Path
    version: int


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity, cut by the CPU quota of its control groups.

    A part of a core counts as one (1.5 gives 2), as in Go and the JVM. `root` is for tests.
    """
    cores = len(os.sched_getaffinity(0))
    for group in control_groups("cpu", root):
        quota = _cpu_quota(group)
        if quota is not None:
            cores = min(cores, max(1, -int(-quota // 1)))
    return cores


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or its control groups' limit."""
    limits = [_physical_memory(root)]
    for group in control_groups("memory", root):
        limits.extend(_memory_limits(group))
    return min(limits)


def cache_memory(workers: int, chunk: int, least_chunks: int, root: Path = Path("/")) -> int:
    """`cache.memory = "auto"`: each worker's share of a quarter of the memory, in whole chunks."""
    share = usable_memory(root) // _CACHE_PART // workers
    return max(share // chunk, least_chunks) * chunk


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Group]:
    """Every control group that limits `controller` for us, from our own up to the topmost."""
    own = dict(_own_groups(controller, root))
    for version, mount_root, mount_point in _mounts(controller, root):
        if version in own:
            yield from _upwards(own[version], mount_root, mount_point, version)


def _own_groups(controller: str, root: Path) -> Iterator[tuple[int, str]]:
    """(version, path) from /proc/self/cgroup: lines such as `0::/a/b` and `4:memory:/a/b`."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif controller in controllers.split(","):
            yield 1, path


def _mounts(controller: str, root: Path) -> Iterator[tuple[int, str, Path]]:
    """(version, root of the mount, mount point) of each mounted hierarchy with `controller`."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        point = root / _unescape(fields[4]).lstrip("/")
        if kinds[0] == "cgroup2":
            yield 2, _unescape(fields[3]), point
        elif kinds[0] == "cgroup" and controller in kinds[2].split(","):
            yield 1, _unescape(fields[3]), point


def _upwards(path: str, mount_root: str, point: Path, version: int) -> Iterator[Group]:
    """The group at `path` and those above it, as folders under the mount point."""
    inside = path.removeprefix(mount_root.rstrip("/")) if _is_under(path, mount_root) else "/"
    parts = [part for part in inside.split("/") if part not in ("", ".", "..")]
    for count in range(len(parts), -1, -1):
        yield Group(point.joinpath(*parts[:count]), version)


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _cpu_quota(group: Group) -> float | None:
    """Cores' worth of time per period, or None without a limit."""
    if group.version == 2:
        words = _word_list(group.folder / "cpu.max")
    else:
        words = _word_list(group.folder / "cpu.cfs_quota_us")
        words += _word_list(group.folder / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdecimal() for word in words) or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _memory_limits(group: Group) -> Iterator[int]:
    names = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
    for name in names:
        words = _word_list(group.folder / name)
        if len(words) == 1 and words[0].isdecimal():
            yield int(words[0])


def _physical_memory(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    return _FALLBACK_MEMORY


def _word_list(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """The lines of a small kernel file; none when it is not there or may not be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _unescape(field: str) -> str:
    """mountinfo writes spaces and such as octal: `\\040`."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
