"""Sizes and times, and what "auto" finds on a machine."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.config import units
from flashpy.config.machine import cache_memory, control_groups, usable_cores, usable_memory
from flashpy.config.units import format_size, format_time, parse_size, parse_time

MIB = 1 << 20


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (512, 512),
        ("512", 512),
        ("512B", 512),
        ("10KB", 10_000),
        ("64KiB", 65_536),
        ("64kib", 65_536),
        ("64 MiB", 64 * MIB),
        ("3GB", 3_000_000_000),
        ("2TiB", 2 << 40),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_sizes_are_bytes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "KiB",
        "-1",
        -1,
        "1.5GiB",
        1.0,
        True,
        None,
        [],
        "64k",
        "64M",
        "10s",
        "1e3",
        "1_000",
        "٣",
        "9" * 20,
        "9000000000TiB",
        2**63,
        "1KiB\n2",
        "0x10",
        math.nan,
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (10, 10.0),
        (0.25, 0.25),
        ("10", 10.0),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("1ms", 0.001),
        ("250us", 0.00025),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1 h", 3600.0),
    ],
)
def test_times_are_seconds(value: object, seconds: float) -> None:
    parsed = parse_time(value)
    assert (parsed, type(parsed)) == (seconds, float)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "-1s",
        -0.1,
        "10S",
        "10sec",
        "1d",
        "1h30m",
        ".5s",
        "5.s",
        "1e3s",
        "inf",
        "nan",
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        "9" * 19,
        True,
        False,
        None,
        {},
        "64KiB",
    ],
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(value)


def test_a_negative_zero_is_zero() -> None:
    assert math.copysign(1, parse_time(-0.0)) == 1


@given(st.integers(0, units.LARGEST_SIZE))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.floats(0, units.LONGEST_TIME) | st.integers(0, 10**6).map(lambda n: n / 1000))
def test_a_written_time_is_read_back(seconds: float) -> None:
    text = format_time(seconds)
    assert parse_time(text if text[-1].isalpha() else float(text)) == seconds


@pytest.mark.parametrize(("text", "shown"), [("65536", "64KiB"), ("1000", "1000"), ("1536KiB", "1536KiB"), ("0", "0")])
def test_sizes_are_shown_in_the_largest_whole_unit(text: str, shown: str) -> None:
    assert format_size(parse_size(text)) == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("120", "2m"), ("90s", "90s"), ("0.5s", "500ms"), ("0", "0s"), ("2h", "2h")]
)
def test_times_are_shown_in_the_shortest_exact_unit(text: str, shown: str) -> None:
    assert format_time(parse_time(text)) == shown


class Machine:
    """A folder that looks like the parts of / that "auto" reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", "MemFree: 5 kB\nMemTotal:       8388608 kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def version_2(self, group: str, mount_root: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{group}\n")
        line = f"30 23 0:27 {mount_root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
        self.write("proc/self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + line)

    def version_1(self, group: str, mount_root: str = "/") -> None:
        self.write("proc/self/cgroup", f"5:memory:{group}\n4:cpu,cpuacct:{group}\n0::/\n")
        lines = [
            f"31 23 0:28 {mount_root} /sys/fs/cgroup/{names} rw shared:5 - cgroup cgroup rw,{names}"
            for names in ("memory", "cpu,cpuacct")
        ]
        self.write("proc/self/mountinfo", "\n".join(lines) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_the_memory_is_the_machines(machine: Machine) -> None:
    assert usable_memory(machine.root) == 8 << 30


def test_the_tightest_limit_on_the_way_up_holds_in_version_2(machine: Machine) -> None:
    machine.version_2("/a/b/c")
    machine.write("sys/fs/cgroup/a/b/c/memory.max", "max\n")
    machine.write("sys/fs/cgroup/a/b/memory.max", f"{512 * MIB}\n")
    machine.write("sys/fs/cgroup/a/memory.max", f"{1024 * MIB}\n")
    assert usable_memory(machine.root) == 512 * MIB


def test_the_soft_limit_counts_too(machine: Machine) -> None:
    machine.version_2("/a")
    machine.write("sys/fs/cgroup/a/memory.max", "max\n")
    machine.write("sys/fs/cgroup/a/memory.high", f"{256 * MIB}\n")
    assert usable_memory(machine.root) == 256 * MIB


def test_the_tightest_limit_on_the_way_up_holds_in_version_1(machine: Machine) -> None:
    machine.version_1("/jobs/one")
    machine.write("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", f"{300 * MIB}\n")
    assert usable_memory(machine.root) == 300 * MIB


def test_a_group_that_is_mounted_as_the_root_is_found_there(machine: Machine) -> None:
    machine.version_1("/docker/abc/inner", mount_root="/docker/abc")
    machine.write("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", f"{200 * MIB}\n")
    assert usable_memory(machine.root) == 200 * MIB


def test_a_group_outside_the_mount_is_looked_for_at_its_top(machine: Machine) -> None:
    machine.version_2("/../other", mount_root="/docker/abc")
    machine.write("sys/fs/cgroup/memory.max", f"{100 * MIB}\n")
    assert usable_memory(machine.root) == 100 * MIB


def test_a_limit_above_the_machines_memory_is_none(machine: Machine) -> None:
    machine.version_2("/")
    machine.write("sys/fs/cgroup/memory.max", f"{1 << 50}\n")
    assert usable_memory(machine.root) == 8 << 30


def test_a_mount_point_with_a_space_is_found(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/x\n")
    mount = "30 23 0:27 / /sys/my\\040groups rw - cgroup2 cgroup2 rw\n"
    machine.write("proc/self/mountinfo", mount)
    folders = [group.folder for group in control_groups("memory", machine.root)]
    assert folders == [machine.root / "sys/my groups/x", machine.root / "sys/my groups"]


def test_unreadable_or_odd_files_limit_nothing(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "nonsense\n0::/a\n")
    machine.write("proc/self/mountinfo", "short\n30 23 0:27 / /sys/c rw - cgroup2 cgroup2 rw\n")
    machine.write("sys/c/a/memory.max", "a lot\n")
    machine.write("sys/c/a/cpu.max", "100000 0\n")
    assert usable_memory(machine.root) == 8 << 30
    assert usable_cores(machine.root) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (100_000, 1), (150_000, 2)])
def test_a_quota_cuts_the_cores(machine: Machine, version: int, quota: int, cores: int) -> None:
    if version == 2:
        machine.version_2("/a/b")
        machine.write("sys/fs/cgroup/a/cpu.max", f"{quota} 100000\n")
    else:
        machine.version_1("/a/b")
        machine.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", f"{quota}\n")
        machine.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert usable_cores(machine.root) == min(cores, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("words", ["max 100000", "-1 100000", "10000000000 100000"])
def test_no_quota_leaves_the_cores_of_the_affinity(machine: Machine, words: str) -> None:
    machine.version_2("/a")
    machine.write("sys/fs/cgroup/a/cpu.max", words)
    assert usable_cores(machine.root) == len(os.sched_getaffinity(0))


def test_the_cache_is_a_quarter_shared_by_the_workers_in_whole_chunks(machine: Machine) -> None:
    chunk = 256 << 10
    assert cache_memory(1, chunk, 8, machine.root) == 2 << 30
    third = cache_memory(3, chunk, 8, machine.root)
    assert third % chunk == 0
    assert 0 <= (2 << 30) - 3 * third < 3 * chunk


def test_the_cache_never_has_fewer_chunks_than_it_must(machine: Machine) -> None:
    machine.version_2("/a")
    machine.write("sys/fs/cgroup/a/memory.max", f"{MIB}\n")
    assert cache_memory(4, 256 << 10, 18, machine.root) == 18 * (256 << 10)


def test_this_machine_has_cores_and_memory() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert usable_memory() > MIB
