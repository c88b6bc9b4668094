"""The benchmark of slow disks: what cold reads do to hot requests, and what idle clients cost.

Runs in a process of its own that is also the client, on another core than the servers.

    storm   1,000 hot requests a second by an open-loop client, while 16 clients ask for cold files
            on a disk that is held to 200 reads a second (needs root, see throttle.py)
    large   one cold file of 1 GiB, one client, the disk as fast as it is (needs root)
    idle    9,000 idle keep-alive connections: memory for each, and the latency of hot requests
    all     the three, one after the other

That files were cold is proven by the bytes which the server's processes made the disk read. Results
go to docs/bench/cold.json and cold.md.
"""

import argparse
import contextlib
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests import coldreport, compare, make_root, openloop, proctree, replay, report, servers
from loadtests import throttle as throttling

HOT_SIZE, HOT_FILES = 8192, 50
COLD_SIZE, COLD_CLIENTS = 16384, 16
RATE, READS = 1000.0, 200
LARGE = "/large.bin"
IDLE_SECONDS = 10.0
RECEIVE = 1 << 20


def rivals(python: str, nginx: str) -> dict[str, servers.Rival]:
    """flashpy, and nginx with the threads that its documentation advises for slow disks."""
    found = [
        servers.Rival("flashpy", python),
        servers.Rival("nginx-debian", nginx),
        servers.Rival("nginx-threads", nginx, threads=True),
        servers.Rival("nginx-8-workers", nginx, threads=True, workers=8),
    ]
    return {rival.name: rival for rival in found}


class Experiment:
    """What all three have in common: folders, cores, rivals."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.root, self.options = folder, folder / "root", options
        self.pin = ["taskset", "-c", str(options.server_cpu)]
        self.rivals = rivals(options.python, options.rival)
        self.hot = [f"/hot/{number}.bin" for number in range(HOT_FILES)]
        self.write(self.hot, HOT_SIZE)

    def write(self, paths: Sequence[str], size: int) -> None:
        """Make documents."""
        for path in paths:
            make_root.write(path, size, self.root / path.lstrip("/"))

    def entered(self, default: str) -> list[servers.Rival]:
        """The rivals of an experiment."""
        return [self.rivals[name] for name in (self.options.servers or default).split(",")]

    def started(
        self, rival: servers.Rival, name: str, wrapper: Sequence[str] = ()
    ) -> contextlib.AbstractContextManager[servers.Server]:
        """A server on its core."""
        place = self.folder / name / rival.name
        return servers.running(rival, self.root, place, wrapper=[*wrapper, *self.pin])

    def warm(self, server: servers.Server, seconds: float = 1.5) -> None:
        """Have every hot file asked for by every connection; raises ServerError."""
        schedule = openloop.Schedule(self.hot, HOT_SIZE, RATE, seconds)
        outcome = openloop.OpenLoop(server.port, schedule).run()
        if outcome.errors or outcome.unanswered:
            log = server.errors()[-1000:]
            raise servers.ServerError(f"{server.rival.name}: {outcome.errors[:3]}\n{log}")


def storm(experiment: Experiment) -> dict[str, Any]:
    """Hot requests beside cold ones on a disk that is held to a rate; raises ThrottleError."""
    options = experiment.options
    count = max(2000, int(2 * READS * options.seconds))
    # Each in a folder of its own, so that to find a file is as cold as to read it.
    cold = [f"/cold/{number % 100}/{number}/file.bin" for number in range(count)]
    experiment.write(cold, COLD_SIZE)
    random.Random(1).shuffle(cold)
    results = {}
    for rival in experiment.entered("flashpy,nginx-threads,nginx-8-workers"):
        name = f"flashpy-bench-{os.getpid()}"
        with throttling.throttle(experiment.root, name) as group:
            # The server is inside: the group can only go when its processes are gone.
            with experiment.started(rival, "storm", group.wrapper()) as server:
                throttling.drop_caches()
                experiment.warm(server)
                group.hold(READS)
                try:
                    results[rival.name] = _storm_on(server, experiment, cold, group)
                finally:
                    group.hold(0)
            tell("storm", rival, results[rival.name])
    return {"servers": results, "seconds": options.seconds, "reads_per_second": READS}


def _storm_on(
    server: servers.Server,
    experiment: Experiment,
    cold: Sequence[str],
    group: throttling.Throttle,
) -> dict[str, Any]:
    schedule = openloop.Schedule(
        experiment.hot,
        HOT_SIZE,
        RATE,
        experiment.options.seconds,
        cold=cold,
        cold_size=COLD_SIZE,
        cold_clients=COLD_CLIENTS,
    )
    reads, read = group.served()
    living, used = proctree.read_bytes(server.pid), proctree.usage(server.pid)
    outcome = openloop.OpenLoop(server.port, schedule).run()
    entry = coldreport.storm_entry(outcome, schedule)
    entry["cpu_seconds"] = proctree.used_ns(used, proctree.usage(server.pid)) / 1e9
    entry["proc_read_bytes"] = proctree.read_bytes(server.pid) - living
    entry["disk_reads"], entry["disk_read_bytes"] = (
        now - then for now, then in zip(group.served(), (reads, read), strict=True)
    )
    return entry


def large(experiment: Experiment) -> dict[str, Any]:
    """One cold large file for one client, rivals in turn; each round a new server and cache."""
    size: int = experiment.options.large_size
    experiment.write([LARGE], size)
    samples: dict[str, list[dict[str, float]]] = {}
    entered = experiment.entered("flashpy,nginx-debian,nginx-threads")
    for number in range(1, experiment.options.rounds + 1):
        for rival in entered:
            with experiment.started(rival, f"large-{number}") as server:
                experiment.warm(server, 0.2)
                throttling.drop_caches()
                sample = _fetch_large(server, size)
            samples.setdefault(rival.name, []).append(sample)
            tell(f"large {number}", rival, sample)
    return {"servers": coldreport.large_entries(samples), "size": size}


def _fetch_large(server: servers.Server, size: int) -> dict[str, float]:
    read, used = proctree.read_bytes(server.pid), proctree.usage(server.pid)
    began = time.monotonic()
    fetch(server.port, LARGE, size, check=False)
    seconds = time.monotonic() - began
    spent = proctree.used_ns(used, proctree.usage(server.pid))
    read = proctree.read_bytes(server.pid) - read
    fetch(server.port, LARGE, size, check=True)
    return coldreport.large_sample(size, seconds, read, spent)


def fetch(port: int, path: str, size: int, *, check: bool) -> None:
    """Get one document; raises WrongReply. Checking every byte costs more than receiving it."""
    place = bytearray(RECEIVE)
    view = memoryview(place)
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        start = b""
        while b"\r\n\r\n" not in start:
            data = sock.recv(4096)
            if not data:
                raise replay.WrongReply("closed in the head")
            start += data
        head, _, first = start.partition(b"\r\n\r\n")
        if replay.parse_head(head).length != size:
            raise replay.WrongReply(f"not the length {size}: {head!r}")
        done = len(first)
        if first != make_root.content(path, 0, done):
            raise replay.WrongReply("wrong bytes at 0")
        while done < size:
            count = sock.recv_into(place)
            if count == 0:
                raise replay.WrongReply(f"closed after {done} bytes")
            if check and view[:count] != make_root.content(path, done, done + count):
                raise replay.WrongReply(f"wrong bytes after {done}")
            done += count


def idle(experiment: Experiment) -> dict[str, Any]:
    """Memory of idle keep-alive connections, and hot requests beside them."""
    count: int = experiment.options.idle_connections
    schedule = openloop.Schedule(experiment.hot, HOT_SIZE, RATE, IDLE_SECONDS)
    results = {}
    for rival in experiment.entered("flashpy,nginx-debian"):
        with experiment.started(rival, "idle") as server:
            experiment.warm(server)
            loop = openloop.OpenLoop(server.port, schedule)
            before = proctree.private_bytes(server.pid)
            with idle_connections(server.port, count, experiment.hot[0]):
                after = proctree.private_bytes(server.pid)
                outcome = loop.run()
                entry = coldreport.idle_entry(outcome, before, after, count)
        results[rival.name] = entry
        tell("idle", rival, entry)
    return {"servers": results, "connections": count}


@contextlib.contextmanager
def idle_connections(port: int, count: int, path: str) -> Iterator[None]:
    """Open connections that have each had one reply and then say nothing."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            sock.sendall(request)
            received = b""
            while not received.endswith(make_root.content(path, HOT_SIZE - 64, HOT_SIZE)):
                data = sock.recv(RECEIVE)
                if not data:
                    raise replay.WrongReply("an idle connection was closed")
                received += data
        yield


def tell(what: str, rival: servers.Rival, entry: dict[str, Any]) -> None:
    """Say how it goes."""
    plain = {name: value for name, value in entry.items() if name != "errors"}
    print(f"{what:8} {rival.name:16} {plain}", file=sys.stderr, flush=True)


EXPERIMENTS: dict[str, Callable[[Experiment], dict[str, Any]]] = {
    "storm": storm,
    "large": large,
    "idle": idle,
}


def options_from(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="cold.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the storm, each server")
    parser.add_argument("--rounds", type=int, default=3, help="of the large file")
    parser.add_argument("--large-size", type=int, default=1 << 30, help="bytes")
    parser.add_argument("--idle-connections", type=int, default=9000)
    parser.add_argument("--servers", help="names by commas, instead of each experiment's own")
    parser.add_argument("--rival", metavar="PATH", default=servers.nginx_path(), help="the nginx")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs flashpy")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--out", type=Path, default=compare.OUT, help="folder for the results")
    options = parser.parse_args(arguments)
    if options.rival is None:
        parser.error("nginx is not installed; on Debian: apt install nginx-light")
    return options


def main(arguments: Sequence[str]) -> int:
    """Command line: exit status 1 when something could not be measured."""
    servers.clean_up_on_term()
    options = options_from(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {options.client_cpu})
    wanted = list(EXPERIMENTS) if options.experiment == "all" else [options.experiment]
    conditions = report.environment(options.python, options.rival)
    conditions["when"] = time.strftime("%Y-%m-%d", time.gmtime())
    results: dict[str, Any] = {}
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="flashpy-bench-", dir=options.dir) as folder:
            os.chmod(folder, 0o755)
            try:
                results[name] = EXPERIMENTS[name](Experiment(Path(folder), options))
            except (
                servers.ServerError,
                throttling.ThrottleError,
                replay.WrongReply,
                OSError,
            ) as error:
                print(f"{name}: {error}", file=sys.stderr)
            else:
                results[name]["environment"] = conditions
    whole = compare.save(options.out, "cold", results, list(EXPERIMENTS))
    text = coldreport.markdown(whole)
    (options.out / "cold.md").write_text(text)
    print(text)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
