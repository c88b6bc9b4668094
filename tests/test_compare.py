"""The pure parts of the load tests and the benchmark: what they read, count and report."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests import (
    coldreport,
    compare,
    openloop,
    proctree,
    replay,
    report,
    run,
    servers,
    throttle,
    workloads,
)

WRK = """Running 2s test @ http://127.0.0.1:8080/1k.html
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   405.02us   75.40us   2.65ms   88.91%
  241136 requests in 2.00s, 294.78MB read
{extra}Requests/sec: 120568.00
Transfer/sec:    147.39MB
"""


def samples(*costs_us: float) -> list[report.Sample]:
    return [
        report.Sample(number, 1000, 1.0, 1000.0 * number, round(cost * 1e6)) for number, cost in enumerate(costs_us, 1)
    ]


def test_a_report_of_wrk_is_read() -> None:
    assert workloads.parse(WRK.format(extra="")) == workloads.Load(241136, 2.0, 120568.0)


@pytest.mark.parametrize(
    "extra",
    [
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 241136\n",
    ],
)
def test_a_run_with_errors_measures_nothing(extra: str) -> None:
    with pytest.raises(workloads.WrkError, match=r"Socket errors|Non-2xx"):
        workloads.parse(WRK.format(extra=extra))


def test_errors_that_are_wanted_are_all_there_is() -> None:
    line = "  Non-2xx or 3xx responses: {}\n"
    assert workloads.parse(WRK.format(extra=line.format(241136)), 404).requests == 241136
    for extra in (line.format(241135), "", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"):
        with pytest.raises(workloads.WrkError):
            workloads.parse(WRK.format(extra=extra), 404)


def test_what_is_not_a_report_is_refused() -> None:
    with pytest.raises(workloads.WrkError, match="not a report"):
        workloads.parse("unable to connect")


def test_unique_heads_are_tagged_and_their_script_exists() -> None:
    for workload in workloads.WORKLOADS:
        line = workloads.command(workload, "http://h:1", 2.5, "tag")
        assert line[:4] == ["wrk", "-t1", "-c50", "-d2.5s"]
        assert line[-1] == ("tag" if workload.script else f"http://h:1{workload.path}")
        assert workload.script == "" or Path(line[line.index("-s") + 1]).is_file()


def test_ratios_are_to_debian_and_to_the_best() -> None:
    found = report.summary(
        {
            "flashpy": samples(6.0, 90.0, 5.0),
            "nginx-debian": samples(8.0, 8.0, 8.0),
            "nginx-plain": samples(5.0, 5.0, 100.0),
        }
    )
    assert found["servers"]["flashpy"]["cpu_us"] == 6.0
    assert found["ratios"] == {"best": 1.2, "best_is": "nginx-plain", "debian": 0.75}


def test_without_flashpy_or_rival_there_is_no_ratio() -> None:
    assert report.ratios({"nginx-debian": 8.0}) == {}
    assert report.ratios({"flashpy": 8.0}) == {}


def test_the_table_names_costs_goals_and_memo_hits() -> None:
    entry = report.summary({"flashpy": samples(6.0), "nginx-debian": samples(8.0)})
    entry |= {"title": "T", "goals": {"debian": 0.75, "best": 0.9}}
    entry |= {"memo_hits": 0, "counted_requests": 1000}
    text = report.markdown({"t": entry})
    assert "| T | 6.0 | 8.0 | 0.75 (0.75) | 0.75 (0.90) | 1,000 | 1,000 |" in text
    assert "T: 0 memo hits in 1000 requests." in text


def test_results_of_other_workloads_are_kept(tmp_path: Path) -> None:
    compare.save(tmp_path, "compare", {"b": {"n": 1}, "a": {"n": 1}}, ["a", "b"])
    whole = compare.save(tmp_path, "compare", {"b": {"n": 2}}, ["a", "b"])
    assert list(whole.items()) == [("a", {"n": 1}), ("b", {"n": 2})]
    assert json.loads((tmp_path / "compare.json").read_text()) == whole


def test_options_have_sound_defaults() -> None:
    options = compare.options_from(["--rival", "/usr/sbin/nginx", "--only", "1k"])
    assert isinstance(options, argparse.Namespace)
    assert options.rounds >= 3
    assert options.server_cpu != options.client_cpu
    with pytest.raises(SystemExit):
        compare.options_from(["--only", "nothing"])


def test_a_stat_line_with_blanks_and_brackets_is_read() -> None:
    line = "42 (a ) (b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 5 20 0 1 0 99 0 0\n"
    stat = proctree.parse_stat(line)
    assert (stat.pid, stat.parent) == (42, 7)
    assert (stat.own_ns, stat.reaped_ns) == (120 * proctree.TICK_NS, 35 * proctree.TICK_NS)


def test_a_tree_holds_grandchildren_and_no_strangers() -> None:
    family = [proctree.Stat(pid, parent, 0, 0) for pid, parent in ((5, 3), (3, 1), (2, 9), (1, 0))]
    assert proctree.descendants(1, family) == [1, 3, 5]


def test_time_of_a_reaped_child_is_counted_once() -> None:
    before = {1: proctree.Usage(10, 0), 2: proctree.Usage(100, 0)}
    after = {1: proctree.Usage(15, 130), 3: proctree.Usage(7, 0)}
    assert proctree.used_ns(before, after) == 5 + 7 + 30
    assert proctree.used_ns(before, {1: proctree.Usage(15, 0)}) == 5


def test_this_process_uses_time_and_memory() -> None:
    before = proctree.usage(os.getpid())
    child = subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert child.returncode == 0
    assert proctree.used_ns(before, proctree.usage(os.getpid())) > 10_000_000
    assert proctree.private_bytes(os.getpid())[os.getpid()] > 1_000_000


def test_the_last_counters_line_is_read() -> None:
    log = (
        '2026-11-23 10:11:12 [7] [info] counters {"requests": 1}\n'
        '2026-11-23 10:11:13 [7] [info] counters {"requests": 2, "memo_hits": 0}\n'
        "2026-11-23 10:11:13 [7] [info] stopped\n"
    )
    assert servers.parse_counters(log) == {"requests": 2, "memo_hits": 0}
    assert servers.parse_counters("nothing\n") == {}


def test_no_word_of_the_nginx_template_is_left_open(tmp_path: Path) -> None:
    rival = servers.Rival("nginx", "nginx", nopush=False, threads=True, workers=8)
    text = servers.nginx_config(rival, tmp_path, tmp_path / "root", 8080)
    assert "@" not in text.partition("daemon off")[2]
    for line in ("aio threads;", "tcp_nopush off;", "sendfile on;", "worker_processes 8;"):
        assert line in text


def test_a_short_or_failed_load_run_is_reported() -> None:
    expected = {"replay epa": 10, "visit page": 5}
    good = {"replay epa": {"requests": 10, "failures": 0}}
    good["visit page"] = {"requests": 50, "failures": 0}
    assert run.complaints({"kinds": good, "errors": []}, expected) == []
    bad = {"replay epa": {"requests": 11, "failures": 1}}
    found = run.complaints({"kinds": bad, "errors": ["1 x a"]}, expected)
    assert found == [
        "1 x a",
        "replay epa: 1 of 11 requests failed",
        "replay epa: 11 requests, not 10",
        "visit page: 0 requests, not 5",
    ]


def test_a_reply_head_is_read() -> None:
    head = replay.parse_head(b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"')
    assert head == replay.Head(200, 5, b'"x"', close=False)
    assert replay.parse_head(b"HTTP/1.1 404 No\r\nConnection: close").close
    with pytest.raises(replay.WrongReply):
        replay.parse_head(b"SSH-2.0")


def test_percentiles_are_values_that_were_measured() -> None:
    assert openloop.in_milliseconds([]) == {}
    times = [number / 1000 for number in range(1000, 0, -1)]
    found = openloop.in_milliseconds(times)
    assert found == {"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 1000.0}
    assert openloop.percentile([7.0], 0.5) == 7.0


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("cgroup /c/blkio cgroup rw,relatime,blkio 0 0\n", ("/c/blkio", 1)),
        ("cgroup2 /u cgroup2 rw 0 0\nx /b cgroup rw,blkio 0 0\n", ("/b", 1)),
    ],
)
def test_the_control_group_controller_is_found(mounts: str, found: tuple[str, int]) -> None:
    assert throttle.controller(mounts) == (Path(found[0]), found[1])


def test_version_2_counts_only_with_its_io_controller(tmp_path: Path) -> None:
    mounts = f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    with pytest.raises(throttle.ThrottleError, match="no control group"):
        throttle.controller(mounts)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
    assert throttle.controller(mounts) == (tmp_path, 2)


def test_what_the_disk_did_is_read_in_both_versions() -> None:
    first = "254:16 Read 9\n254:0 Read 7\n254:0 Write 1\nTotal 8\n"
    assert throttle.parse_v1(first, "254:0") == 7
    second = "254:0 rbytes=8192 wbytes=0 rios=2 wios=0 dbytes=0 dios=0\n"
    assert throttle.parse_v2(second, "254:0") == (2, 8192)
    assert (throttle.parse_v1("Total 0\n", "1:0"), throttle.parse_v2("", "1:0")) == (0, (0, 0))


def test_the_limit_is_written_as_each_version_wants_it(tmp_path: Path) -> None:
    throttle.Throttle(tmp_path, 1, "254:0").hold(200)
    assert (tmp_path / "blkio.throttle.read_iops_device").read_text() == "254:0 200"
    throttle.Throttle(tmp_path, 2, "254:0").hold(0)
    assert (tmp_path / "io.max").read_text() == "254:0 riops=max"


def test_a_folder_in_memory_is_on_no_disk() -> None:
    with pytest.raises(throttle.ThrottleError, match="no disk"):
        throttle.disk_of(Path("/proc"))


def test_the_tables_of_slow_disks_name_what_was_measured() -> None:
    outcome = openloop.Outcome([0.001, 0.002], [0.0001], [0.1], cold_done=1, errors=["a: b"])
    schedule = openloop.Schedule(["/a"], 8192, 1000.0, 2.0, cold=["/b"], cold_size=100)
    storm = coldreport.storm_entry(outcome, schedule)
    storm |= {"disk_reads": 400, "disk_read_bytes": 150}
    large = {
        name: [coldreport.large_sample(1 << 30, seconds, 1 << 30, 10**9)]
        for name, seconds in (("flashpy", 2.0), ("nginx-debian", 1.0))
    }
    idle = coldreport.idle_entry(outcome, {1: 100}, {1: 300, 2: 4100}, 2)
    text = coldreport.markdown(
        {
            "storm": {"servers": {"flashpy": storm}, "seconds": 2.0},
            "large": {"servers": coldreport.large_entries(large), "size": 1 << 30},
            "idle": {"servers": {"flashpy": idle}, "connections": 2},
        }
    )
    assert "| flashpy | 1.00 | 2.00 | 2.00 | 2.00 | 0 | 100 | 1.50 | 200 | 0.10 | 1 |" in text
    assert "| nginx-debian | 1024 | 1.00 | 1.00 | 0.50 |" in text
    assert "| flashpy | 2050 | 2150 | 1.00 | 2.00 | 2.00 | 2.00 | 0.10 | 1 |" in text
