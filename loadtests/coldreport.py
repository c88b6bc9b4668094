"""Entries and tables of the benchmark of slow disks. Pure: values in, values and text out."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from loadtests import openloop, report

MIB = 1 << 20
KEPT_ERRORS = 5


def storm_entry(outcome: openloop.Outcome, schedule: openloop.Schedule) -> dict[str, Any]:
    """What the client saw of one server under the storm; times in ms."""
    return {
        "hot_ms": openloop.in_milliseconds(outcome.latencies),
        "hot_requests": len(outcome.latencies),
        "cold_ms": openloop.in_milliseconds(outcome.cold_latencies),
        "cold_per_second": round(outcome.cold_done / schedule.seconds, 1),
        "cold_bytes": outcome.cold_done * schedule.cold_size,
        "client_lag_ms": openloop.in_milliseconds(outcome.lags),
        "unanswered": outcome.unanswered,
        "errors": outcome.errors[:KEPT_ERRORS],
        "failed": len(outcome.errors),
    }


def large_sample(size: int, seconds: float, read: int, spent_ns: int) -> dict[str, float]:
    """One transfer of the large file."""
    return {
        "mib_per_second": round(size / MIB / seconds, 1),
        "seconds": round(seconds, 3),
        "disk_read_bytes": read,
        "cpu_seconds": round(spent_ns / 1e9, 3),
    }


def large_entries(samples: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Medians and samples of each server."""
    return {
        name: {
            "mib_per_second": median(row["mib_per_second"] for row in rows),
            "cpu_seconds": median(row["cpu_seconds"] for row in rows),
            "samples": list(rows),
        }
        for name, rows in samples.items()
    }


def idle_entry(
    outcome: openloop.Outcome, before: Mapping[int, int], after: Mapping[int, int], count: int
) -> dict[str, Any]:
    """Private memory for each idle connection: of the process that grew most, and of all."""
    growth = [now - before.get(pid, 0) for pid, now in after.items()]
    return {
        "worker_bytes_per_connection": round(max(growth) / count),
        "tree_bytes_per_connection": round(sum(growth) / count),
        "hot_ms": openloop.in_milliseconds(outcome.latencies),
        "client_lag_ms": openloop.in_milliseconds(outcome.lags),
        "unanswered": outcome.unanswered,
        "errors": outcome.errors[:KEPT_ERRORS],
        "failed": len(outcome.errors),
    }


def markdown(results: Mapping[str, Any]) -> str:
    """All experiments that there are, as tables."""
    makers: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "storm": _storm,
        "large": _large,
        "idle": _idle,
    }
    return "\n".join(makers[name](entry) for name, entry in results.items() if name in makers)


def _storm(result: Mapping[str, Any]) -> str:
    head = ["storm", "hot p50 ms", "p99", "p99.9", "max", "cold req/s", "cold p50 ms"]
    head += ["disk read / cold bytes", "disk reads/s", "client lag p99 ms", "failed"]
    rows = []
    for name, entry in result["servers"].items():
        cold_bytes = entry["cold_bytes"] or 1
        rows.append(
            [
                name,
                *(f"{value:.2f}" for value in entry["hot_ms"].values()),
                f"{entry['cold_per_second']:.0f}",
                f"{entry['cold_ms'].get('p50', 0):.0f}",
                f"{entry['disk_read_bytes'] / cold_bytes:.2f}",
                f"{entry['disk_reads'] / result['seconds']:.0f}",
                f"{entry['client_lag_ms']['p99']:.2f}",
                str(entry["failed"] + entry["unanswered"]),
            ]
        )
    return report.table(head, rows)


def _large(result: Mapping[str, Any]) -> str:
    servers = result["servers"]
    head = ["one cold file", "MiB/s", "CPU s", "disk read / size", "flashpy's throughput to it"]
    ours = servers.get(report.FLASHPY, {}).get("mib_per_second")
    rows = []
    for name, entry in servers.items():
        read = min(sample["disk_read_bytes"] for sample in entry["samples"]) / result["size"]
        ratio = f"{ours / entry['mib_per_second']:.2f}" if ours and name != report.FLASHPY else ""
        speed, cpu = f"{entry['mib_per_second']:.0f}", f"{entry['cpu_seconds']:.2f}"
        rows.append([name, speed, cpu, f"{read:.2f}", ratio])
    return report.table(head, rows)


def _idle(result: Mapping[str, Any]) -> str:
    head = [
        f"{result['connections']} idle connections",
        "worker's bytes for each",
        "all processes'",
    ]
    head += ["hot p50 ms", "p99", "p99.9", "max", "client lag p99 ms", "failed"]
    rows = [
        [
            name,
            str(entry["worker_bytes_per_connection"]),
            str(entry["tree_bytes_per_connection"]),
            *(f"{value:.2f}" for value in entry["hot_ms"].values()),
            f"{entry['client_lag_ms']['p99']:.2f}",
            str(entry["failed"] + entry["unanswered"]),
        ]
        for name, entry in result["servers"].items()
    ]
    return report.table(head, rows)
