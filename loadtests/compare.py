"""`make bench`: CPU time per request and requests per second of flashpy and nginx, side by side.

Runs in a process of its own. For each workload all rivals are started, pinned to one core with
everything they fork, and warmed up; then wrk on another core loads them in turn, A B C D, A B C D,
so that a machine that grows slower does so for all. CPU time is that of the whole process tree:
helpers, log helper and master are paid for too. Results go to docs/bench/compare.json (all samples)
and compare.md (the table); with `--only` the other workloads' results are kept.

    python loadtests/compare.py --only 1k --rounds 5 --seconds 3 --servers flashpy,nginx-plain
"""

import argparse
import contextlib
import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flashpy_helpers import codings
from loadtests import make_root, proctree, report, servers, workloads

_CODINGS: dict[str, codings.Coding] = {".br": "br", ".gz": "gzip"}
OUT = Path(__file__).resolve().parents[1] / "docs" / "bench"
WARM_SECONDS = 1.0


def rivals(python: str, nginx: str) -> dict[str, servers.Rival]:
    """flashpy and the three settings of nginx: as Debian ships it, and what else may be best."""
    found = [
        servers.Rival(report.FLASHPY, python),
        servers.Rival(report.DEBIAN, nginx),
        servers.Rival("nginx-sendfile", nginx, nopush=False),
        servers.Rival("nginx-plain", nginx, sendfile=False, nopush=False),
    ]
    return {rival.name: rival for rival in found}


def sent(workload: workloads.Workload) -> bytes:
    """All of the file whose bytes are the reply: the document, or a sibling that decodes to it."""
    document = make_root.content(workload.path, 0, workload.size)
    coding = _CODINGS.get(workload.sibling)
    return document if coding is None else codings.compress(coding, document, "best")


def check(server: servers.Server, workload: workloads.Workload) -> None:
    """Refuse to measure a server that does not send the right bytes; raises ServerError."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", workload.path, headers=dict(workload.fields))
            reply = connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            log = server.errors()[-1000:]
            raise servers.ServerError(f"{server.rival.name}: {error}\n{log}") from error
    if reply.status != workload.status:
        raise servers.ServerError(f"{server.rival.name}: {reply.status} for {workload.path}, not {workload.status}")
    span = slice(workloads.RANGE_START, workloads.RANGE_STOP) if reply.status == 206 else slice(None)
    if reply.status in (200, 206) and body != sent(workload)[span]:
        raise servers.ServerError(f"{server.rival.name}: wrong bytes for {workload.path}")


class Bench:
    """One benchmark: where its files are, which cores it uses, how long it measures."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.root = folder, folder / "root"
        self.rounds: int = options.rounds
        self.seconds: float = options.seconds
        self.on_server_core = ["taskset", "-c", str(options.server_cpu)]
        self.on_client_core = ["taskset", "-c", str(options.client_cpu)]
        for workload in workloads.WORKLOADS:
            if workload.size:
                self._plant(workload)

    def _plant(self, workload: workloads.Workload) -> None:
        file = self.root / workload.path.lstrip("/")
        make_root.write(workload.path, workload.size, file)
        sibling = file.with_name(file.name + workload.sibling)
        if sibling != file:
            sibling.write_bytes(sent(workload))
        for each in (file, sibling):
            os.utime(each, (workloads.MTIME, workloads.MTIME))

    def load(self, server: servers.Server, workload: workloads.Workload, number: int, seconds: float) -> report.Sample:
        """Load one server once; raises WrkError."""
        url = f"http://127.0.0.1:{server.port}"
        line = workloads.command(workload, url, seconds, f"{os.getpid()}-{number}")
        before = proctree.usage(server.pid)
        done = workloads.run([*self.on_client_core, *line], seconds, workload.status)
        spent = proctree.used_ns(before, proctree.usage(server.pid))
        return report.Sample(number, done.requests, done.seconds, done.rate, spent)

    @contextlib.contextmanager
    def started(self, workload: workloads.Workload, entered: Sequence[servers.Rival]) -> Iterator[list[servers.Server]]:
        """All servers of one workload, checked and warm."""
        with contextlib.ExitStack() as stack:
            running = []
            for rival in entered:
                place = self.folder / workload.name / rival.name
                context = servers.running(rival, self.root, place, wrapper=self.on_server_core)
                running.append(stack.enter_context(context))
                check(running[-1], workload)
                self.load(running[-1], workload, 0, WARM_SECONDS)
            yield running

    def measure(self, workload: workloads.Workload, entered: Sequence[servers.Rival]) -> dict[str, Any]:
        """All rounds of one workload; raises ServerError and WrkError."""
        samples: dict[str, list[report.Sample]] = {rival.name: [] for rival in entered}
        with self.started(workload, entered) as running:
            for number in range(1, self.rounds + 1):
                for server in running:
                    sample = self.load(server, workload, number, self.seconds)
                    samples[server.rival.name].append(sample)
                    tell(workload, server, sample)
            for server in running:
                server.stop()
        result = {"title": workload.title, "path": workload.path} | report.summary(samples)
        result["goals"] = {"debian": workload.goal_debian, "best": workload.goal_best}
        return result | self._counted(workload, running)

    def _counted(self, workload: workloads.Workload, running: Sequence[servers.Server]) -> dict[str, Any]:
        counters = next((server.counters() for server in running if server.rival.is_flashpy), None)
        if counters is None:
            return {}
        if workload.no_memo and counters.get("memo_hits") != 0:
            raise servers.ServerError(f"heads repeat: {counters.get('memo_hits')} memo hits")
        return {
            "memo_hits": counters.get("memo_hits"),
            "counted_requests": counters.get("requests"),
            "counters": counters,
        }


def tell(workload: workloads.Workload, server: servers.Server, sample: report.Sample) -> None:
    """Say how it goes."""
    busy = sample.cpu_ns / 1e7 / sample.seconds
    print(
        f"{workload.name:7} {sample.round} {server.rival.name:15} {sample.cpu_us:6.2f} us"
        f" {sample.rate:8.0f}/s {busy:4.0f} % of the core",
        file=sys.stderr,
        flush=True,
    )


def save(out: Path, name: str, results: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Merge results into OUT/NAME.json, in the given order, and return all that it holds."""
    file = out / f"{name}.json"
    held = json.loads(file.read_text()) if file.exists() else {}
    merged = held | dict(results)
    whole = {key: merged[key] for key in [*order, *sorted(set(merged) - set(order))] if key in merged}
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def options_from(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    names = [workload.name for workload in workloads.WORKLOADS]
    parser = argparse.ArgumentParser(prog="compare.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=names, help="a workload; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk, which knows whole ones only")
    parser.add_argument("--servers", help="names by commas; all four when not given")
    parser.add_argument("--rival", metavar="PATH", default=servers.nginx_path(), help="the nginx")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs flashpy")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    options = parser.parse_args(arguments)
    if options.rival is None:
        parser.error("nginx is not installed; on Debian: apt install nginx-light")
    return options


def main(arguments: Sequence[str]) -> int:
    """Command line: exit status 1 when something could not be measured."""
    servers.clean_up_on_term()
    options = options_from(arguments)
    available = rivals(options.python, options.rival)
    entered = [available[name] for name in (options.servers or ",".join(available)).split(",")]
    wanted = [w for w in workloads.WORKLOADS if not options.only or w.name in options.only]
    conditions = report.environment(options.python, options.rival) | {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="flashpy-bench-") as name:
        os.chmod(name, 0o755)  # The workers of nginx have other rights than we have.
        bench = Bench(Path(name), options)
        for workload in wanted:
            try:
                results[workload.name] = bench.measure(workload, entered)
            except (servers.ServerError, workloads.WrkError) as error:
                print(f"{workload.name}: {error}", file=sys.stderr)
            else:
                results[workload.name]["environment"] = conditions
    whole = save(options.out, "compare", results, [w.name for w in workloads.WORKLOADS])
    text = report.markdown(whole)
    (options.out / "compare.md").write_text(text)
    print(text)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
