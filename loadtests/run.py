"""`make load`: flashpy under locust, both traces and site visits, every reply checked.

Runs in a process of its own: makes the document roots in a temporary folder, starts flashpy on a
free port, lets locust replay both traces while other users visit the site, and stops the server by
TERM. Exit status 1 when a reply was wrong, a request of a trace is missing, the server logged an
error or did not leave with status 0. `--host URL` loads a server that runs already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests import make_root, servers

HERE = Path(__file__).resolve().parent

LIMIT_SECONDS = 240
"""For the whole of locust's run; it takes about a minute on two cores."""
VISITS = ("page", "asset", "reload", "range", "missing")
LEAST_VISITS = 100
"""Of each kind, so that a run in which the visitors did nothing is not taken for a good one."""


def expected_counts(traces: list[make_root.Trace]) -> dict[str, int]:
    """The least number of requests of each kind; of a replay also the greatest."""
    replays = {f"replay {trace.name}": len(trace.requests) for trace in traces}
    return replays | {f"visit {kind}": LEAST_VISITS for kind in VISITS}


def complaints(counts: dict[str, Any], expected: dict[str, int]) -> list[str]:
    """What is wrong with a run's counts."""
    kinds = counts["kinds"]
    found = list(counts["errors"])
    for kind, entry in kinds.items():
        if entry["failures"]:
            found.append(f"{kind}: {entry['failures']} of {entry['requests']} requests failed")
    for kind, least in expected.items():
        requests = kinds.get(kind, {"requests": 0})["requests"]
        if requests < least or (kind.startswith("replay") and requests > least):
            found.append(f"{kind}: {requests} requests, not {least}")
    return found


def locust(host: str, users: int, folder: Path) -> dict[str, Any]:
    """Run locust until both traces are through; raises RuntimeError when it does not end well."""
    counts = folder / "counts.json"
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless"]
    command += ["--only-summary", "-u", str(users), "-r", str(users), "--host", host]
    command += ["--run-time", f"{LIMIT_SECONDS}s", "--counts", str(counts)]
    subprocess.run(command, timeout=LIMIT_SECONDS + 30, check=False)
    if not counts.exists():
        raise RuntimeError("locust left no counts")
    result: dict[str, Any] = json.loads(counts.read_text())
    return result


def against_own_server(traces: list[make_root.Trace], users: int, rival: servers.Rival, folder: Path) -> list[str]:
    """Make the roots, start the server, load it, stop it; return what was wrong."""
    for trace in traces:
        make_root.make(trace, folder / "root" / trace.name)
    with servers.running(rival, folder / "root", folder / "server") as server:
        counts = locust(f"http://127.0.0.1:{server.port}", users, folder)
        found = complaints(counts, expected_counts(traces))
        status = server.stop()
    if status != 0:
        found.append(f"{rival.name} left with status {status}")
    errors = server.errors()
    if rival.is_flashpy and ("[error]" in errors or "Traceback" in errors):
        found.append(f"{rival.name} logged errors:\n{errors[-4000:]}")
    print(f"counters: {json.dumps(server.counters())}")
    return found


def main(arguments: list[str]) -> int:
    """Command line: exit status 1 when anything was wrong."""
    servers.clean_up_on_term()
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--host", help="a server that serves epa/ and nasa/, instead of our own")
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--python", default=sys.executable, help="the Python that runs flashpy")
    parser.add_argument("--rival", metavar="PATH", help="an nginx to load instead of flashpy")
    options = parser.parse_args(arguments)
    traces = [make_root.load("epa"), make_root.load("nasa")]
    began = time.monotonic()
    rival = servers.Rival("flashpy", options.python)
    if options.rival:
        rival = servers.Rival("nginx", options.rival)
    with tempfile.TemporaryDirectory(prefix="flashpy-load-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)  # The server's workers may have other rights than we have.
        if options.host:
            counts = locust(options.host, options.users, folder)
            found = complaints(counts, expected_counts(traces))
        else:
            found = against_own_server(traces, options.users, rival, folder)
    for complaint in found:
        print(f"wrong: {complaint}", file=sys.stderr)
    print(f"{'FAILED' if found else 'all right'} in {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
