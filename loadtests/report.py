"""Medians, ratios and tables of the benchmark. Pure: values in, values and text out."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

FLASHPY = "flashpy"
DEBIAN = "nginx-debian"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run of one server."""

    round: int
    requests: int
    seconds: float
    rate: float
    """Requests per second."""
    cpu_ns: int
    """CPU time of the whole process tree."""

    @property
    def cpu_us(self) -> float:
        """CPU time per request, in microseconds."""
        return self.cpu_ns / self.requests / 1000


def as_dict(sample: Sample) -> dict[str, float]:
    """A sample as it stands in the JSON file."""
    return {
        "round": sample.round,
        "requests": sample.requests,
        "seconds": sample.seconds,
        "rate": sample.rate,
        "cpu_ns": sample.cpu_ns,
        "cpu_us": round(sample.cpu_us, 3),
    }


def summary(samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Medians of each server and flashpy's ratios to Debian's nginx and to the best nginx."""
    servers = {
        name: {
            "cpu_us": round(median(sample.cpu_us for sample in rows), 2),
            "rate": round(median(sample.rate for sample in rows)),
            "samples": [as_dict(sample) for sample in rows],
        }
        for name, rows in samples.items()
        if rows
    }
    costs = {name: entry["cpu_us"] for name, entry in servers.items()}
    return {"servers": servers, "ratios": ratios(costs)}


def ratios(costs: Mapping[str, Any]) -> dict[str, Any]:
    """flashpy's CPU per request against each nginx that counts; empty when one is missing."""
    rivals = {name: cost for name, cost in costs.items() if name != FLASHPY}
    if FLASHPY not in costs or not rivals:
        return {}
    best = min(rivals, key=lambda name: float(rivals[name]))
    found = {"best": round(costs[FLASHPY] / rivals[best], 3), "best_is": best}
    if DEBIAN in rivals:
        found["debian"] = round(costs[FLASHPY] / rivals[DEBIAN], 3)
    return found


def markdown(workloads: Mapping[str, Any]) -> str:
    """The results as a table: CPU per request, both ratios with their goals, requests/s."""
    names = list(dict.fromkeys(name for entry in workloads.values() for name in entry["servers"]))
    head = ["workload", *(f"{name} µs" for name in names)]
    head += ["to Debian's (goal)", "to the best (goal)", *(f"{name} req/s" for name in names)]
    rows = [_row(entry, names) for entry in workloads.values()]
    text = [table(head, rows)]
    for entry in workloads.values():
        if "memo_hits" in entry:
            hits, requests = entry["memo_hits"], entry["counted_requests"]
            text.append(f"{entry['title']}: {hits} memo hits in {requests} requests.")
    return "\n".join(text) + "\n"


def _row(entry: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    servers, found = entry["servers"], entry["ratios"]
    costs = [f"{servers[name]['cpu_us']:.1f}" if name in servers else "" for name in names]
    rates = [f"{servers[name]['rate']:,}" if name in servers else "" for name in names]
    goals = [f"{found[key]:.2f} ({entry['goals'][key]:.2f})" if key in found else "" for key in ("debian", "best")]
    return [entry["title"], *costs, *goals, *rates]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table: the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def environment(python: str, nginx: str) -> dict[str, str]:
    """Kernel, CPU and versions; a program that is not there gives an empty text."""
    return {
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "python": _said([python, "--version"]),
        "nginx": _said([nginx, "-v"]).removeprefix("nginx version: "),
        "wrk": _said(["wrk", "-v"]).split(" Copyright")[0],
        "commit": _said(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(line: Sequence[str]) -> str:
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    text = (done.stdout + done.stderr).strip()  # nginx and wrk tell their version on either.
    return text.splitlines()[0] if text and not text.startswith("fatal:") else ""
