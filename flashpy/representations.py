"""WORKER: which representation of a file answers a request, and under which tag (RFC 9110, sections 3.2, 8.8 and 12.5).

A file may be sent as it is, as a sibling that somebody has compressed beforehand, or as a heavy helper compresses it
now. What must be known first (does the sibling decode? what is the digest?) and what must be made first are jobs of
heavy helpers. Who takes the bare file too waits for no coding while they are busy, and where one fails the next best
answers; such a reply is not to be remembered, since the next request may get a better one. A digest is waited for.

What is made here lies in one chunk of the content cache and goes with it: there is no file to load it from again. So
what does not fit into a chunk is not made.
"""

from collections.abc import Callable
from typing import cast

from flashpy.asking import Asked, InHand, Wanted
from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry
from flashpy.content import VARY, Chosen, Facts, made_key
from flashpy.findings import Findings
from flashpy.http.negotiation import CODINGS
from flashpy.http.status import Fields, Refusal
from flashpy.sites import Site
from flashpy_helpers.wire import DIGEST_MOST, IDENTITY, VERIFY_MOST, Compress, Digest, HeavyJob, Verify


class Representations:
    """Chooses from what `chunks` hold and `findings` tell; `busy` says whether a heavy job would have to wait."""

    def __init__(self, chunks: Chunks, findings: Findings, busy: Callable[[], bool]) -> None:
        self._chunks = chunks
        self._findings = findings
        self._busy = busy

    def choose(self, asked: Asked, entry: Entry, in_hand: InHand) -> Chosen | Wanted:
        """What the client likes best of what there is, or the job that it waits for. Raises Refusal."""
        codings = asked.request.codings
        compresses = asked.site.may_compress(entry.path, entry.outcome.size)
        fields: Fields = (VARY,) if entry.siblings or compresses else ()
        lasting = True
        for coding in codings:
            found = entry if coding == IDENTITY else self._coded(asked.site, entry, coding, compresses)
            if isinstance(found, Entry):
                return self._tagged(asked.site, Chosen(found, b"", fields, lasting), in_hand)
            if found is None:
                continue
            if in_hand.trouble(found) is None and not (IDENTITY in codings and self._busy()):
                return Wanted(found, in_hand._replace(entry=entry))
            lasting = False
        if in_hand.failed:
            raise in_hand.failed[-1][1].refusal()
        raise Refusal(406, close=False, headers=(VARY,))

    def _coded(self, site: Site, entry: Entry, coding: int, compresses: bool) -> Entry | HeavyJob | None:
        """The variant in this coding, the job without which it cannot be sent, or None."""
        variant = entry.variants.get(coding)
        if variant is not None and not variant.made:
            return self._sound(site, entry, variant)
        if not compresses or coding not in site.compressions:
            return None
        if variant is not None and variant.chunk is not None:
            return variant
        return self._make(entry, coding)

    def _sound(self, site: Site, entry: Entry, sibling: Entry) -> Entry | HeavyJob | None:
        """A sibling, once it is known to decode to as many bytes as its original has."""
        size = entry.outcome.size
        if not site.verified or max(size, sibling.outcome.size) > VERIFY_MOST:
            return sibling
        job = Verify(0, entry.key[0], sibling.path, sibling.outcome, sibling.coding, size)
        is_sound = self._findings.get(job)
        if is_sound is None:
            return job
        return sibling if is_sound else None

    def _make(self, entry: Entry, coding: int) -> Entry | HeavyJob | None:
        """The file in this coding, as it was made for this or for another path of it."""
        chunk = self._chunks.get(made_key(entry.outcome, coding))
        if chunk is not None:
            return self._made(entry, coding, chunk)
        job = Compress(0, entry.key[0], entry.path, entry.outcome, coding, 0, self._chunks.arena.top)
        return job if self._findings.get(job) is None else None

    def _made(self, entry: Entry, coding: int, chunk: Chunk) -> Entry:
        former = entry.variants.pop(coding, None)
        if former is not None:
            former.die(self._chunks)
        version = entry.outcome._replace(size=chunk.length)
        variant = entry.add_variant(coding, entry.path, version, cast(Facts, entry.facts).made(version.size, coding))
        variant.attach(chunk)
        return variant

    def _tagged(self, site: Site, chosen: Chosen, in_hand: InHand) -> Chosen | Wanted:
        """With the ETag that the site wants; without one when its digest could not be had."""
        entry = chosen.entry
        if site.etag == "off":
            return chosen
        if site.etag == "identity":
            return chosen._replace(tag=cast(Facts, entry.facts).etag)
        # Other versions of a library make other bytes of the same: so the size of what was made is part of its tag.
        file = entry.source if entry.made else entry
        suffix = b"-%x~%b" % (entry.outcome.size, CODINGS[entry.coding]) if entry.made else b""
        if file.outcome.size > DIGEST_MOST:
            return chosen
        job = Digest(0, file.key[0], file.path, file.outcome)
        digest = self._findings.get(job)
        if digest is not None:
            return chosen._replace(tag=b'"%b%b"' % (digest, suffix))
        if in_hand.trouble(job) is not None:
            return chosen._replace(lasting=False)
        return Wanted(job, in_hand._replace(entry=entry.source))
