"""WORKER: what all connections of a worker share: clock, caches, limits, counts, joined replies and the access log.

One object, made by `worker`, so that a connection holds one reference instead of ten. It decides nothing. What all
connections of one listener share is a Lane; where proxies are trusted, those of trusted peers have another one.
"""

import time
from typing import Any, Final

from flashpy import accesslog
from flashpy.answer import Answerer
from flashpy.cache.chunks import Chunks
from flashpy.cache.memo import Memo
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.config import Limits
from flashpy.content import Content
from flashpy.helperpool import HelperPool
from flashpy.http.dates import format_date
from flashpy.http.forwarded import FORWARDED_FIELDS, Forwarded, client_of
from flashpy.http.lines import Gist
from flashpy.http.peers import UNIX, Trusted
from flashpy.http.request import Request, RequestParser
from flashpy.http.response import CLOSE, IN_PIECES, KEEP, KEEP_OLD, Reply, last_fields, read_tally
from flashpy.loglines import Answered, Lines
from flashpy.logs import Log
from flashpy.loop import Loop
from flashpy.meter import Meter
from flashpy.sites import Sites

SETTLE_SECONDS = 0.01
HOT = 4
JOINED_BODY = 16384
JOINED_BYTES = 8 << 20
NOBODY: Final = Forwarded()
# Reply, rest of the log line, kind of last fields, bytes to send, and the log line's prefix: b"" when it is the peer's.
Remembered = tuple[Reply, bytes, int, int, bytes]


class Lane:
    """The memory of one listener, its two memos: what is answered on one is never answered on another.

    A `meter` limits what each client may use, and whoever is in a lane that is `crowded` has too many connections.

    `heads`: head bytes, whole or trimmed, -> what was answered. `gists`: what matters of a head -> the same. With
    `trusted` it is that of the listener's trusted peers. The fields in which they name their clients belong to both
    keys, so what is remembered goes to the log with the right address.
    """

    __slots__ = ("crowded", "gists", "heads", "memory", "meter", "parser", "trusted")

    def __init__(
        self, limits: Limits, trusted: Trusted | None = None, meter: Meter | None = None, *, crowded: bool = False
    ) -> None:
        self.heads: Memo[bytes, Remembered] = Memo()
        self.gists: Memo[Gist, Remembered] = Memo()
        heeded = frozenset[bytes]() if trusted is None else FORWARDED_FIELDS
        self.parser = RequestParser(limits.request_line, limits.header_fields, heeded)
        self.memory = self.parser.memory
        self.trusted = trusted
        self.meter, self.crowded = meter, crowded

    def origin(self, request: Request) -> Forwarded:
        """What the peer says of whom it passes a request on for; nothing when it is not trusted or says nothing."""
        if self.trusted is None or request.forwarded is None:
            return NOBODY
        return client_of(request.forwarded, self.trusted)

    def forget(self) -> None:
        """Answer nothing from memory (draining)."""
        self.heads.clear()
        self.gists.clear()


class Lanes:
    """The lanes of one listener: for its `trusted` peers, when there can be any, for those of the others who have too
    many connections, when a `meter` says so, and for all the rest.
    """

    __slots__ = ("_crowded", "_meter", "_open", "_trusted", "_trusting")

    def __init__(self, limits: Limits, trusted: Trusted | None, meter: Meter | None) -> None:
        self._trusted, self._meter = trusted, meter
        self._open = Lane(limits, meter=meter)
        self._crowded = self._open if meter is None else Lane(limits, meter=meter, crowded=True)
        self._trusting = self._open if trusted is None else Lane(limits, trusted, meter)

    def of(self, address: str) -> Lane:
        """The lane of a peer: chosen once, when it has come."""
        if self._trusted is not None and address in self._trusted:
            return self._trusting
        if self._meter is not None and address != UNIX and self._meter.is_crowded(accesslog.prefix(address)):
            return self._crowded
        return self._open

    def may_introduce(self, address: str) -> bool:
        """Whether a peer's PROXY header is believed: a trusted proxy's, and everybody's where nobody is named."""
        return self._trusted is None or address in self._trusted

    def all(self) -> set[Lane]:
        """One to three."""
        return {self._open, self._trusting, self._crowded}


class Counts:
    """What a worker counts, as plain attributes; written to the scoreboard by `worker`."""

    __slots__ = (
        "accepted",
        "bytes",
        "disconnects",
        "hits",
        "limited",
        "memo_hits",
        "misses",
        "proxy_refused",
        "requests",
        "stale",
        "statuses",
        "timeouts",
    )

    def __init__(self) -> None:
        self.requests = self.memo_hits = self.hits = self.misses = self.stale = 0
        self.bytes = self.accepted = self.timeouts = self.disconnects = self.proxy_refused = self.limited = 0
        self.statuses = [0] * 6


class Service:
    """The shared part of a worker's connections."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        limits: Limits,
        sites: Sites,
        pathnames: Pathnames,
        chunks: Chunks,
        content: Content,
        answerer: Answerer,
        pool: HelperPool,
        lines: Lines,
        meter: Meter | None = None,
        heavy: HelperPool | None = None,
    ) -> None:
        self.loop, self.log, self.limits = loop, log, limits
        self.sites, self.pathnames, self.chunks, self.content = sites, pathnames, chunks, content
        self.answerer, self.pool, self.meter = answerer, pool, meter
        # Who compresses, digests and checks passwords; None when no site has work for it.
        self.heavy = heavy
        # After so many requests a connection is still kept, and not after the next one; 0 when draining.
        self.kept_requests = limits.keepalive_requests - 1 if limits.keepalive_requests else 1 << 62
        self.counts = Counts()
        self.connections: dict[int, Any] = {}
        # What was answered the short way since it was settled, and how much of it not by the whole head: a head that
        # was found only when it was trimmed is a hit, and no memo hit.
        self.lines = lines
        self.answered: list[Answered] = [] if lines.written is None else lines.written
        self.append_hit = self.answered.append if lines.written is None else lines.written.append_hit
        self.answered_otherwise = 0
        self.head_limit = limits.header_bytes
        self.draining = False
        self.drain_began = 0.0
        self._joined: list[Reply] = []
        self._joined_bytes = 0
        self.stamp = b""
        self.read_clock()

    def read_clock(self) -> None:
        """Renew what is said of the time: once a second, when `next_second` (monotonic) has come."""
        self.settle_answered()
        self.wall = time.time()
        second = int(self.wall)
        self.next_second = time.monotonic() + (second + 1 - self.wall)
        self._part_joined()
        self.tails = last_fields(format_date(second))
        self.stamp = accesslog.stamp(second)
        if self.lines.written is not None:
            self.lines.written.renew(second)

    def warm(self, reply: Reply, kind: int) -> None:
        """A lasting reply was sent in pieces. One that is hot is joined for the rest of the second.

        One buffer is 0.5 microseconds cheaper to send than three (of 6.5). The copies are bounded, and gone when the
        date changes.
        """
        reply.heat += 1
        if reply.heat < HOT or len(reply.body) > JOINED_BODY or self._joined_bytes > JOINED_BYTES or reply.whole[kind]:
            return
        whole = list(reply.whole)
        whole[kind] = b"".join((reply.head, self.tails[kind], reply.body))
        reply.whole = (whole[KEEP], whole[KEEP_OLD], whole[CLOSE])
        self._joined.append(reply)
        self._joined_bytes += len(whole[kind])

    def _part_joined(self) -> None:
        for reply in self._joined:
            reply.whole, reply.heat = IN_PIECES, 0
        self._joined.clear()
        self._joined_bytes = 0

    def usable(self, entry: Entry) -> bool:
        """Whether a memoised reply that depends on the entry may be sent; lists it when it is no longer fresh."""
        usable = self.pathnames.usable(entry, self.loop.now)
        self.counts.stale += usable
        return usable

    def count(self, status: int, length: int, line: bytes) -> None:
        """A request is over: counters and its one access line, after those that were answered before it."""
        self.settle_answered()
        counts = self.counts
        counts.requests += 1
        counts.bytes += length
        counts.statuses[status // 100] += 1
        if self.lines.on and self.lines.keeps(status):
            self.log.access(line)

    def settle_answered(self) -> None:
        """Count and log what was answered the short way.

        In one go, at most a hundred times a second and before anything that is logged singly, so that a hit itself pays
        one append: under load a turn has but a few hits.
        """
        counts, records = self.counts, self.answered
        self.next_settling = self.loop.now + SETTLE_SECONDS
        if not records:
            return
        counts.memo_hits += len(records) - self.answered_otherwise
        self.answered_otherwise = 0
        counts.requests += len(records)
        sent, thirds, fourths = read_tally(sum([reply.tally for _, _, reply in records]))
        counts.bytes += sent
        counts.statuses[2] += len(records) - thirds - fourths
        counts.statuses[3] += thirds
        counts.statuses[4] += fourths
        if self.lines.on:
            self._log_answered()
        records.clear()

    def _log_answered(self) -> None:
        lines, stamp, records = self.lines, self.stamp, self.answered
        if lines.is_sampled:
            records = [answered for answered in records if lines.keeps(answered[2].status)]
        if lines.written is None:
            self.log.access(b"".join([prefix + stamp + rest for prefix, rest, _ in records]))
        else:
            line = lines.written.line
            self.log.access(b"".join([line(prefix, *details) for prefix, details, _ in records]))

    def drain(self) -> None:
        """Every reply from now on is its connection's last."""
        self.draining = True
        self.drain_began = self.loop.now
        self.kept_requests = 0
