"""What 10,000 connections leave behind, in a process of its own: ``python tests/garbage.py FOLDER``.

A worker does not collect cyclic garbage, so none may come to be. FOLDER holds a.txt and large.bin.
Clients are opened in each state and dropped by either side; what the collector finds then is told.
"""

import gc
import json
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

from flashpy.config import Limits
from flashpy.connection import Connection
from flashpy.states import CLOSED
from tests.workbench import Bench

HOT = b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
REQUESTS = {
    "new": b"",
    "idle": HOT,
    "line": b"GET /a.t",
    "head": HOT[:-2],
    "body": HOT[:-2] + b"Content-Length: 9\r\n\r\n1234",
    "chunked": HOT[:-2] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "sending": b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n",
    "range": b"GET /large.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,70000-999999\r\n\r\n",
    "waiting": b"GET /cold%d HTTP/1.1\r\nHost: x\r\n\r\n",
    "joined": b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n",
    "lingering": b"nonsense \r\n\r\n",
    "refused": b"GET /../ HTTP/1.1\r\nHost: x\r\n\r\n",
    "unsatisfiable": HOT[:-2] + b"Range: bytes=999999999-\r\n\r\n",
    "failed": HOT[:-2] + b'If-Match: "x"\r\n\r\n',
    "none acceptable": HOT[:-2] + b"Accept-Encoding: identity;q=0\r\n\r\n",
    "folder": b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n",
    "not modified": HOT[:-2] + b"If-None-Match: *\r\n\r\n",
    "coded": HOT[:-2] + b"Accept-Encoding: gzip\r\n\r\n",
    "last": HOT[:-2] + b"Connection: close\r\n\r\n",
    "old": b"GET /a.txt HTTP/1.0\r\n\r\n",
    "bug": HOT[:5],
}
BATCH = 200


def batch(bench: Bench, number: int, states: Counter[int]) -> None:
    """Open clients of all kinds, let them get where they get, and drop them in all ways."""
    opened: list[tuple[socket.socket, Connection]] = []
    kinds = list(REQUESTS.items())
    for n in range(BATCH):
        name, request = kinds[n % len(kinds)]
        client, connection = bench.connect()
        opened.append((client, connection))
        if request:
            client.send(request % (number * BATCH + n) if b"%d" in request else request)
        if name == "bug":
            bench.turn(0.0)
            connection.fail(ValueError("of the test"))
        if n % 3 == 0:
            bench.turn(0.0)
    bench.settle()
    states.update(connection.state for _, connection in opened)
    for n, (client, connection) in enumerate(opened):
        if n % 4 == 0:
            connection.close()
        elif n % 4 == 1 and connection.state != CLOSED:
            connection.check_time(bench.loop.now + 1000)
        client.close()
    if number % 5 == 0:
        bench.pathnames.drop((0, b"a.txt"))
        bench.pathnames.drop((0, b"large.bin"))


def finish(bench: Bench) -> None:
    """All is answered, and the clients' ends are seen."""
    for pid in bench.spawner.helpers():
        os.kill(pid, signal.SIGCONT)
    bench.until(lambda: not bench.service.connections)
    bench.until(lambda: not bench.pool._tasks and not bench.chunks.pinned)
    bench.log_lines()


def main() -> None:
    folder = Path(sys.argv[1])
    bench = Bench(folder, memory=32 * 65536, least=2, most=4, queue=100, limits=Limits(keepalive_requests=3))
    bench.ready()
    for _ in range(3):
        bench.exchange(HOT, HOT)
    states: Counter[int] = Counter()
    batch(bench, 0, states)  # what is made once is no garbage
    finish(bench)
    gc.collect()
    gc.freeze()
    gc.disable()
    total = 10_000
    for number in range(1, total // BATCH + 1):
        stop = number % 2
        for pid in bench.spawner.helpers():
            os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)
        batch(bench, number, states)
        finish(bench)
    gc.set_debug(gc.DEBUG_SAVEALL)
    found = gc.collect()
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    handlers = len(bench.loop._handlers) - len(bench.pool._helpers)
    report = {
        "connections": total,
        "states": {str(state): count for state, count in states.items() if state != CLOSED},
        "found": found,
        "kinds": kinds,
        "handlers": handlers,
        "pinned": bench.chunks.pinned,
        "waiting": len(bench.pool._tasks) + len(bench.pool._lines),
        "open": len(bench.service.connections),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "helpers": len(bench.pool._helpers),
    }
    print(json.dumps(report))
    gc.set_debug(0)
    gc.garbage.clear()
    bench.close()


if __name__ == "__main__":
    main()
