"""WORKER: a file's entry and what was asked of it -> a Reply with views of the content cache.

Heads are made here, once for each entry and site, and kept with the entry (Flash section 5.3: the header cache needs
no invalidation of its own, it dies with the entry). A body that lies whole in the first chunk is a view of it; for
anything else the reply says which spans of the file to send, and `outgoing` fetches them chunk by chunk.
"""

from collections.abc import Hashable
from copy import copy
from itertools import count
from typing import NamedTuple, cast

from flashpy.accesslog import said
from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry
from flashpy.http.conditional import Decision
from flashpy.http.dates import format_date
from flashpy.http.negotiation import CODINGS
from flashpy.http.ranges import multipart
from flashpy.http.response import Reply, Segment, error, head, tally_of
from flashpy.http.status import Fields
from flashpy.sites import Site
from flashpy_helpers.wire import IDENTITY, SUFFIXES, Identity, Load

VARY = (b"Vary", b"Accept-Encoding")
VARY_ACCEPT = (b"Vary", b"Accept")


class Facts:
    """What is said of one version of a file: its `etag`, and `mtime` in seconds, also as the line `modified`.

    Archives and reproducible builds set all times to 0 or 1: that says nothing, and `mtime` is None.
    """

    __slots__ = ("etag", "modified", "mtime", "stamp")

    def __init__(self, identity: Identity, wall: float, coding: int = IDENTITY) -> None:
        self.stamp = identity.mtime_ns
        # Never the same for two codings of a file (RFC 9110 8.8.3.3), whatever their sizes and times are.
        self._tag(identity.size, b"" if coding == IDENTITY else b"-" + CODINGS[coding])
        # Never in the future (RFC 9110 8.8.2.1): such a time is said as the time when it was seen.
        mtime = min(identity.mtime_ns // 1_000_000_000, int(wall))
        self.mtime = None if mtime in (0, 1) else mtime
        self.modified: Fields = () if self.mtime is None else ((b"Last-Modified", format_date(self.mtime)),)

    def _tag(self, size: int, suffix: bytes) -> None:
        self.etag = b'"%x-%x%b"' % (self.stamp, size, suffix)

    def made(self, size: int, coding: int) -> "Facts":
        """Of what was made of the file by us, `size` bytes long: its tag is that of no sibling."""
        facts = copy(self)
        facts._tag(size, b"~" + CODINGS[coding])
        return facts


class ListingFacts:
    """What is said of a listing: its tag is a digest of it, `kind` its Content-Type. Its folder has so many `pages`."""

    __slots__ = ("etag", "kind", "modified", "mtime", "pages")

    def __init__(self, digest: bytes, policy: bytes, pages: int, *, as_json: bool) -> None:
        self.pages = pages
        self.etag = b'"%b"' % digest.hex().encode("ascii")
        self.mtime = None
        self.kind = b"application/json" if as_json else b"text/html; charset=utf-8"
        self.modified: Fields = () if as_json else ((b"Content-Security-Policy", policy),)


class Chosen(NamedTuple):
    """The representation that answers: the `tag` for it (b"": none), its Vary, and whether another request of the same
    head and at any time may get it too.
    """

    entry: Entry
    tag: bytes
    vary: Fields
    lasting: bool = True


def made_key(identity: Identity, coding: int) -> Hashable:
    """The key in the content cache of what is made of a version: unlike those of the file's own chunks."""
    return (identity, SUFFIXES[coding])


class Content:
    """Makes replies from entries, with bodies from `chunks`; `seed` keeps multipart boundaries from being guessed."""

    def __init__(self, chunks: Chunks, seed: str) -> None:
        self._chunks = chunks
        self._size = chunks.arena.top
        self._seed = seed.encode("ascii")
        self._count = count()

    def reply(self, chosen: Chosen, site: Site, extra: bytes, method: bytes, decision: Decision | None) -> Reply:
        """The reply to GET or HEAD for a file, with `extra` field lines; `decision` is None when no field made
        conditions.
        """
        entry = chosen.entry
        # What was made lies in one chunk and in no file, so it has no parts that come one after the other.
        if decision is None or decision.status == 200 or (entry.made and len(decision.spans) > 1):
            key = (site.number, extra, method, chosen.tag)
            return cast(Reply | None, entry.prepared.get(key)) or self._whole(chosen, site, key)
        if decision.status == 206:
            if len(decision.spans) == 1:
                return self._part(chosen, site, extra, decision.spans[0])
            return self._parts(chosen, site, extra, decision.spans)
        assert decision.status == 304, "the others are refusals"
        return self._not_modified(chosen, site, extra)

    def _whole(self, chosen: Chosen, site: Site, key: tuple[int, bytes, bytes, bytes]) -> Reply:
        entry = chosen.entry
        size = entry.outcome.size
        fields = (
            *_content_fields(entry, site),
            (b"Content-Length", b"%d" % size),
            *_validators(chosen),
            (b"Accept-Ranges", b"bytes"),
        )
        reply = Reply(200, head(200, fields, key[1]))
        reply.entry = entry
        if key[2] == b"GET":
            self._fill(reply, entry, ((0, size),), size)
        if _make_lasting(reply):
            entry.prepared[key] = reply
        return reply

    def _part(self, chosen: Chosen, site: Site, extra: bytes, span: tuple[int, int]) -> Reply:
        entry = chosen.entry
        start, stop = span
        fields = (
            *_content_fields(entry, site),
            (b"Content-Length", b"%d" % (stop - start)),
            (b"Content-Range", b"bytes %d-%d/%d" % (start, stop - 1, entry.outcome.size)),
            *_validators(chosen),
        )
        reply = Reply(206, head(206, fields, extra))
        reply.entry = entry
        self._fill(reply, entry, (span,), stop - start)
        _make_lasting(reply)
        return reply

    def _parts(self, chosen: Chosen, site: Site, extra: bytes, spans: tuple[tuple[int, int], ...]) -> Reply:
        entry = chosen.entry
        boundary = b"%b%08x" % (self._seed, next(self._count))
        (_, media_type), *coding = _content_fields(entry, site)
        parts, closing, length = multipart(spans, entry.outcome.size, media_type, boundary)
        fields = (
            (b"Content-Type", b"multipart/byteranges; boundary=" + boundary),
            *coding,
            (b"Content-Length", b"%d" % length),
            *_validators(chosen),
        )
        segments: list[Segment] = []
        for part, start, stop in parts:
            segments += [part, (start, stop)]
        reply = Reply(206, head(206, fields, extra))
        reply.entry = entry
        reply.stream = (*segments, closing)
        reply.length = length
        return reply

    def _not_modified(self, chosen: Chosen, site: Site, extra: bytes) -> Reply:
        entry = chosen.entry
        key = (site.number, extra, b"304", chosen.tag)
        reply = cast(Reply | None, entry.prepared.get(key))
        if reply is None:
            reply = Reply(304, head(304, _validators(chosen), extra))
            reply.entry = entry
            if _make_lasting(reply):
                entry.prepared[key] = reply
        return reply

    def missing(self, entry: Entry, extra: bytes, method: bytes) -> Reply:
        """The reply to GET or HEAD for a path where there is nothing."""
        key = (extra, method)
        reply = cast(Reply | None, entry.prepared.get(key))
        if reply is None:
            reply = error(404, (), extra, with_body=method != b"HEAD")
            reply.entry = entry
            if _make_lasting(reply):
                entry.prepared[key] = reply
        return reply

    def error_page(self, status: int, entry: Entry, site: Site, extra: bytes, method: bytes) -> Reply:
        """A file as the content of an error: it has no validators there, and is never remembered."""
        size = entry.outcome.size
        fields = (*_content_fields(entry, site), (b"Content-Length", b"%d" % size))
        reply = Reply(status, head(status, fields, extra))
        reply.entry = entry
        if method == b"GET":
            self._fill(reply, entry, ((0, size),), size)
        return reply

    def _fill(self, reply: Reply, entry: Entry, spans: tuple[tuple[int, int], ...], length: int) -> None:
        """The body as a view when it lies in the first chunk, else as a stream."""
        chunk = entry.chunk or self._reattach(entry)
        start, stop = spans[0]
        reply.length = length
        if length and (chunk is None or chunk.view is None or stop > chunk.length):
            reply.stream = spans
        elif length and chunk is not None and chunk.view is not None:
            reply.body = chunk.view[start:stop]
            reply.chunk, reply.stop = chunk, stop

    def _reattach(self, entry: Entry) -> Chunk | None:
        """The first chunk when it is back: it was evicted and loaded again, or another path has the same file."""
        chunk = self._chunks.get((entry.outcome, 0))
        if chunk is not None:
            entry.attach(chunk)
        return chunk

    def chunk_at(self, entry: Entry, position: int) -> Chunk | Load:
        """The chunk that holds the file's byte `position`, or the job that brings it.

        What was made and is no longer there no job brings: the one that is named comes to nothing.
        """
        number = position // self._size
        identity = entry.outcome
        key = made_key(entry.source.outcome, entry.coding) if entry.made else (identity, number)
        found = self._chunks.get(key)
        if found is not None:
            return found
        start = number * self._size
        return Load(0, entry.key[0], entry.path, identity, start, min(self._size, identity.size - start), 0)


def _make_lasting(reply: Reply) -> bool:
    """Whether the reply may be remembered: all of it is at hand, and depends on its head and a living entry alone."""
    reply.lasting = reply.stream is None and not reply.entry.dead
    if reply.lasting:
        reply.said = said(reply.status, reply.length)
        reply.size = len(reply.head) + len(reply.body)
        reply.tally = tally_of(reply.status, reply.length)
    return reply.lasting


def _content_fields(entry: Entry, site: Site) -> Fields:
    """What the content is: a variant has the type of its original."""
    facts = entry.facts
    kind = facts.kind if isinstance(facts, ListingFacts) else site.media_type(entry.source.path)
    media_type = (b"Content-Type", kind)
    return (media_type,) if entry.coding == IDENTITY else (media_type, (b"Content-Encoding", CODINGS[entry.coding]))


def _validators(chosen: Chosen) -> Fields:
    facts = cast(Facts | ListingFacts, chosen.entry.facts)
    return (*facts.modified, *(((b"ETag", chosen.tag),) if chosen.tag else ()), *chosen.vary)
