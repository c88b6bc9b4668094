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
    fields: tuple[tuple[str, str], ...] = ()
    """Of each request, beside Host."""
    status: int = 200
    sibling: str = ""
    """The suffix of the precompressed sibling that is to be sent."""


MTIME = 1_700_000_000
"""Of every file, in seconds: so a condition on it holds for all rivals alike."""
RULES = 50
"""For the paths below /ruled/; the last one matches."""
RANGE_START, RANGE_STOP = 1000, 2024

BROWSER_GZIP = (("Accept-Encoding", "gzip, deflate"),)
BROWSER_BR = (("Accept-Encoding", "gzip, deflate, br"),)
UNCHANGED = (("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT"),)
RANGE = (("Range", f"bytes={RANGE_START}-{RANGE_STOP - 1}"),)

WORKLOADS = (
    Workload("1k", "1 KiB, keep-alive", "/1k.html", 1024, 0.75, 0.90),
    Workload("10k", "10 KiB, keep-alive", "/10k.html", 10240, 0.80, 0.90),
    Workload("100k", "100 KiB, keep-alive", "/100k.html", 102400, 0.90, 1.30),
    Workload("unique", "1 KiB, every head different", "/1k.html", 1024, 1.0, 1.2, "unique.lua", True),
    Workload("close", "1 KiB, one connection a request", "/1k.html", 1024, 0.8, 0.9, "close.lua"),
    Workload("gzip", "3 KiB, gzip sibling", "/text.css", 3072, 0.8, 0.8, fields=BROWSER_GZIP, sibling=".gz"),
    Workload("br", "3 KiB, brotli sibling", "/text.css", 3072, 0.8, 0.8, fields=BROWSER_BR, sibling=".br"),
    Workload("304", "not modified", "/10k.html", 10240, 0.8, 0.8, fields=UNCHANGED, status=304),
    Workload("range", "1 KiB of 100 KiB", "/100k.html", 102400, 0.8, 0.8, fields=RANGE, status=206),
    Workload("rules", "1 KiB, a site of 50 rules", f"/ruled/{RULES - 1}/1k.html", 1024, 0.8, 0.8),
    Workload("404", "nothing there", "/none.html", 0, 0.8, 0.8, status=404),
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
    for name, value in workload.fields:
        line += ["-H", f"{name}: {value}"]
    line.append(url + workload.path)
    return [*line, "--", tag] if workload.script else line


def parse(output: str, status: int = 200) -> Load:
    """Read wrk's report; raises WrkError when a reply was missing, or was an error and not to be one."""
    bad = re.search(r"Socket errors: .*|Non-2xx or 3xx responses: (\d+)", output)
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", output)
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    if total is None or rate is None or int(total[1]) == 0:
        raise WrkError(f"not a report of wrk: {output[:200]!r}")
    wrong = bad[1] != total[1] if bad and bad[1] and status >= 400 else bad or status >= 400
    if wrong:
        raise WrkError(bad[0] if bad else "no errors, where there should be nothing else")
    return Load(int(total[1]), float(total[2]) * UNITS[total[3]], float(rate[1]))


def run(line: Sequence[str], seconds: float, status: int = 200) -> Load:
    """Run wrk to its end; `status` is what the replies shall have. Raises WrkError."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode != 0:
        raise WrkError(done.stdout + done.stderr)
    return parse(done.stdout, status)
