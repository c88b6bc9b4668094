"""Locust users that check every reply: visits to a site, and the replay of whole traces.

A load client, started by `run.py`, or by hand against any server whose root holds one folder for
each trace (`make_root.py epa ROOT/epa`):

    locust -f loadtests/locustfile.py --headless -u 24 -r 24 --traces epa,nasa --host URL

The Replay users of a process share one cursor for each trace, so every request is sent exactly
once, in the order of the trace; when both are through, the run ends. SiteVisit users go about
meanwhile. What a reply must be is computed from the path (`make_root`), never read from a root.
`--counts FILE` leaves the number of requests and failures by kind as JSON.
"""

import hashlib
import itertools
import json
import posixpath
import random
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import locust
from locust import FastHttpUser, constant, task
from locust.env import Environment
from locust.exception import StopUser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests import make_root

ASSETS = (".gif", ".jpg", ".jpeg", ".xbm")
IDENTITY = {"Accept-Encoding": "identity"}
MOST_ASSETS = 12
"""Of one page; some folders of the traces hold hundreds of pictures."""
ERRORS_SHOWN = 20


class Site:
    """What one trace says about its server: its pages, the assets beside each, a shared cursor."""

    def __init__(self, name: str) -> None:
        self.trace = make_root.load(name)
        self.prefix = "/" + self.trace.name
        self.cursor: Iterator[str] = iter(self.trace.requests)
        self.assets: dict[str, list[str]] = {}
        for path in self.trace.sizes:
            if path.endswith(ASSETS):
                self.assets.setdefault(posixpath.dirname(path), []).append(path)
        self.pages = [path for path in self.trace.sizes if path.endswith(".html")]
        self.etags: dict[str, str] = {}

    def size(self, path: str) -> int:
        """The length of the path's document, in bytes."""
        return self.trace.sizes[make_root.document(path)]

    def url(self, path: str) -> str:
        """The path as the server is asked for it."""
        return self.prefix + make_root.target(path)

    def same_etag(self, path: str, etag: str) -> bool:
        """Whether the path has had this ETag (and one at all) in every reply until now."""
        return etag != "" and self.etags.setdefault(make_root.document(path), etag) == etag


SITES: list[Site] = []
VISITS = itertools.count()


def add_options(parser: ArgumentParser) -> None:
    """The options that this file adds to locust's own."""
    parser.add_argument("--traces", default="epa,nasa", help="names of traces, by commas")
    parser.add_argument("--counts", default="", help="file for the counts, as JSON")


def load_sites(environment: Environment, **_: Any) -> None:
    """Read the traces once, before the first user starts."""
    assert environment.parsed_options is not None
    SITES.extend(Site(name) for name in environment.parsed_options.traces.split(","))


def write_counts(environment: Environment, **_: Any) -> None:
    """Leave the counts by kind for who started us."""
    assert environment.parsed_options is not None
    if environment.parsed_options.counts:
        entries = environment.stats.entries.values()
        kinds = {entry.name: {"requests": entry.num_requests, "failures": entry.num_failures} for entry in entries}
        errors = [f"{error.occurrences} x {error.name}: {error.error}" for error in environment.stats.errors.values()]
        counts = {"kinds": kinds, "errors": errors[:ERRORS_SHOWN]}
        Path(environment.parsed_options.counts).write_text(json.dumps(counts))


EVENTS: Any = locust.events  # Untyped; as decorators they would take the types of what they mark.
EVENTS.init_command_line_parser.add_listener(add_options)
EVENTS.init.add_listener(load_sites)
EVENTS.quitting.add_listener(write_counts)


def wrong(response: Any, status: int, expected: bytes | None, length: int) -> str:
    """Why a reply is not the expected one; empty when it is. `expected` is a SHA-256 or None."""
    if response.status_code != status:
        return f"status {response.status_code}, not {status}"
    body = response.content or b""
    given = response.headers.get("Content-Length")
    if given is not None and int(given) != len(body) and status != 304:
        return f"Content-Length {given} with {len(body)} bytes"
    if expected is None:
        return "" if status != 304 or not body else "a 304 with a body"
    if len(body) != length:
        return f"{len(body)} bytes, not {length}"
    return "" if hashlib.sha256(body).digest() == expected else "wrong bytes"


class CheckedUser(FastHttpUser):
    """Asks for documents and checks the replies."""

    abstract = True
    wait_time = constant(0)
    connection_timeout = 20.0
    network_timeout = 20.0

    def fetch(self, site: Site, path: str, kind: str) -> None:
        """Ask for a whole document."""
        size = site.size(path)
        self.check(site, path, kind, {}, 200, (0, size))

    def check(
        self,
        site: Site,
        path: str,
        kind: str,
        headers: dict[str, str],
        status: int,
        span: tuple[int, int] | None,
    ) -> None:
        """Ask, and report a failure unless it is the status, the span of bytes and the ETag."""
        expected = make_root.digest(path, *span) if span is not None else None
        length = span[1] - span[0] if span is not None else 0
        with self.client.get(site.url(path), headers=IDENTITY | headers, name=kind, catch_response=True) as response:
            why = wrong(response, status, expected, length)
            etag = str((response.headers or {}).get("ETag", ""))
            if not why and status < 400 and not site.same_etag(path, etag):
                why = f"ETag {etag or 'missing'}, was {site.etags.get(path)}"
            if why:
                response.failure(f"{path}: {why}")
            else:
                response.success()


class Replay(CheckedUser):
    """Sends the requests of all traces, one trace after the other, and then stops the run."""

    weight = 3
    living = 0

    def on_start(self) -> None:
        """Count the users, so that the last one to finish is known."""
        Replay.living += 1

    @task
    def replay(self) -> None:
        """Take the next request, whichever user is free."""
        for site in SITES:
            path = next(site.cursor, None)
            if path is not None:
                self.fetch(site, path, "replay " + site.trace.name)
                return
        Replay.living -= 1
        if Replay.living == 0:
            assert self.environment.runner is not None
            # Later, so that this user has left before the others are stopped.
            gevent.spawn_later(0.5, self.environment.runner.quit)
        raise StopUser


class SiteVisit(CheckedUser):
    """Reads a page with the pictures of its folder, reloads it, resumes a download, goes astray."""

    weight = 1

    def on_start(self) -> None:
        """Each user walks its own way, the same in every run."""
        self.random = random.Random(next(VISITS))

    @task
    def visit(self) -> None:
        """One visit."""
        site = self.random.choice(SITES)
        page = self.random.choice(site.pages)
        beside = site.assets.get(posixpath.dirname(page), [])
        assets = self.random.sample(beside, min(len(beside), MOST_ASSETS))
        for path in [page, *assets]:
            self.fetch(site, path, "visit page" if path == page else "visit asset")
        for path in [page, *assets]:
            self.reload(site, path)
        self.resume(site, self.random.choice([page, *assets]))
        self.check(site, page + ".missing", "visit missing", {}, 404, None)

    def reload(self, site: Site, path: str) -> None:
        """A conditional request for what is already here (RFC 9110 section 13.1.2)."""
        etag = site.etags.get(path)
        if etag is not None:
            self.check(site, path, "visit reload", {"If-None-Match": etag}, 304, None)

    def resume(self, site: Site, path: str) -> None:
        """A part of a document: from somewhere to its end, or a few bytes (RFC 9110 section 14)."""
        size = site.size(path)
        start = self.random.randrange(size)
        stop = self.random.choice([size, min(size, start + self.random.randrange(1, 70_000))])
        last = "" if stop == size else str(stop - 1)
        self.check(site, path, "visit range", {"Range": f"bytes={start}-{last}"}, 206, (start, stop))
