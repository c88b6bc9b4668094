"""The workloads of the benchmark and how wrk makes them. Values and one wrk process at a time."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent / "wrk"
CONNECTIONS = 50
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class WrkError(Exception):
    """A run of wrk failed, or replies were missing or wrong, so it measures nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests for one document; the goals are flashpy's CPU per request against nginx's."""

    name: str
    title: str
    path: str
    size: int
    """Of the document, in bytes."""
    goal_debian: float
    goal_best: float
    script: str = ""
    no_memo: bool = False
    """No request may be answered from the memo of heads."""


WORKLOADS = (
    Workload("1k", "1 KiB, keep-alive", "/1k.html", 1024, 0.75, 0.90),
    Workload("10k", "10 KiB, keep-alive", "/10k.html", 10240, 0.80, 0.90),
    Workload("100k", "100 KiB, keep-alive", "/100k.html", 102400, 0.90, 1.30),
    Workload("unique", "1 KiB, every head different", "/1k.html", 1024, 1.0, 1.2, "unique.lua", True),
    Workload("close", "1 KiB, one connection a request", "/1k.html", 1024, 0.8, 0.9, "close.lua"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk sent and received."""

    requests: int
    seconds: float
    rate: float
    """Requests per second."""


def command(workload: Workload, url: str, seconds: float, tag: str) -> list[str]:
    """The wrk command of a workload; the tag keeps unique heads of several runs apart."""
    line = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s"]
    if workload.script:
        line += ["-s", str(SCRIPTS / workload.script)]
    line.append(url + workload.path)
    return [*line, "--", tag] if workload.script else line


def parse(output: str) -> Load:
    """Read wrk's report; raises WrkError when a reply was missing or not 2xx or 3xx."""
    bad = re.search(r"Socket errors: .*|Non-2xx or 3xx responses: .*", output)
    if bad:
        raise WrkError(bad[0])
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", output)
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    if total is None or rate is None or int(total[1]) == 0:
        raise WrkError(f"not a report of wrk: {output[:200]!r}")
    return Load(int(total[1]), float(total[2]) * UNITS[total[3]], float(rate[1]))


def run(line: Sequence[str], seconds: float) -> Load:
    """Run wrk to its end; raises WrkError."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode != 0:
        raise WrkError(done.stdout + done.stderr)
    return parse(done.stdout)
