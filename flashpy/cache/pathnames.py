"""WORKER: the pathname cache: what is known of each path under each root, and how old that knowledge is.

As in Flash (section 5.2) this is the cache that matters most: it spares a helper's round trip for every request.
An entry is facts at an instant. It is replaced when the file changed, never edited. Paths known to be missing (or to
be folders, or refused) have an order of their own, so that a scanner who asks for ten thousand names that do not
exist cannot push out the site.

Freshness: until `fresh_until` an entry is served without a thought. After that it is listed, once, and still served
until `expires`; the worker sends the list to a helper once a turn. Nothing is served after `expires` without a look.
"""

from collections.abc import Callable
from typing import Any

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.lru import Lru
from flashpy.cache.memo import purge

Key = tuple[int, bytes]
LISTINGS = 64
"""Listings of one folder: orders, pages and forms that somebody asks for at a time."""
_FOR_EVER = float("inf")
NO_CODING = 3
"""The coding of an original (IDENTITY in `flashpy_helpers.wire`)."""


class Entry:
    """What a helper found at `path` under root number `root`, as of `checked` (monotonic seconds).

    `outcome` is opaque here: the identity of a file, or a verdict. `prepared` holds heads made for this entry.

    It may have `variants`, entries of their own that live and grow old with it; each names it as its `original`. Those
    of a file are known by their `coding`; `siblings` are they as a check of the entry wants them (None: it has no
    interest in them). Those of a folder are its listings.

    One that is `dead` may still be in the hand of a request that waits. It answers that one, and then nobody may hold
    it: it takes in neither variants nor prepared answers, which name it, and hears of no eviction.
    """

    __slots__ = (
        "checked",
        "chunk",
        "coding",
        "dead",
        "expires",
        "facts",
        "fresh_until",
        "key",
        "memos",
        "original",
        "outcome",
        "path",
        "prepared",
        "siblings",
        "variants",
    )

    def __init__(self, key: Key, path: bytes, outcome: Any, facts: Any = None) -> None:
        self.key = key
        self.path = path
        self.outcome = outcome
        self.facts = facts
        self.checked = 0.0
        self.fresh_until = 0.0
        self.expires = 0.0
        self.chunk: Chunk | None = None
        self.coding = NO_CODING
        self.dead = False
        self.siblings: Any = None
        self.variants: dict[Any, Entry] = {}
        self.original: Entry | None = None
        self.prepared: dict[Any, Any] = {}
        self.memos: list[tuple[Any, Any]] = []

    @property
    def source(self) -> "Entry":
        """The entry that the cache knows: its original's for a variant."""
        return self.original or self

    @property
    def made(self) -> bool:
        """Whether it is a coding of its original that lies in the cache only, not in a file."""
        return self.coding != NO_CODING and self.original is not None and self.path == self.original.path

    def add_variant(self, coding: int, path: bytes, outcome: Any, facts: Any) -> "Entry":
        """Another representation of this file, whose content lies at `path`."""
        variant = self._variant(coding, path, outcome, facts, _FOR_EVER)
        variant.coding = coding
        return variant

    def add_listing(self, key: Any, outcome: Any, facts: Any, expires: float, chunks: Chunks) -> "Entry":
        """A listing of this folder, made as of some time before `expires` (monotonic seconds)."""
        if len(self.variants) >= LISTINGS:
            self._drop_variants(chunks)
        elif key in self.variants:
            self.variants[key].die(chunks)
        return self._variant(key, self.path, outcome, facts, expires)

    def _variant(self, key: Any, path: bytes, outcome: Any, facts: Any, expires: float) -> "Entry":
        variant = Entry(self.key, path, outcome, facts)
        variant.original = self
        variant.expires = expires
        variant.dead = self.dead
        if not self.dead:
            self.variants[key] = variant
        return variant

    def attach(self, chunk: Chunk) -> None:
        """Make `chunk` the file's first chunk; the entry hears of its eviction."""
        self.chunk = chunk
        if not self.dead:
            chunk.on_evict.append(self.lose_chunk)

    def lose_chunk(self) -> None:
        """Forget every prepared answer, since their bytes are gone."""
        self.chunk = None
        self.prepared.clear()
        purge(self)

    def distrust(self, now: float) -> None:
        """Serve this no more before somebody has looked; a look that began before `now` does not count."""
        self.checked = now
        self.fresh_until = self.expires = 0.0
        for variant in self.variants.values():
            variant.fresh_until = 0.0

    def die(self, chunks: Chunks) -> None:
        """Never serve this again, nor its variants; what a reply has pinned lives until it is sent."""
        if self.dead:
            return
        self.dead = True
        self._drop_variants(chunks)
        chunk = self.chunk
        self.lose_chunk()
        self.fresh_until = self.expires = 0.0
        if chunk is not None:
            chunk.on_evict.remove(self.lose_chunk)
            if not chunk.on_evict:
                chunks.forget(chunk.key)

    def _drop_variants(self, chunks: Chunks) -> None:
        for variant in self.variants.values():
            variant.die(chunks)
        self.variants.clear()  # each names its original: no cycle may stay


class Pathnames:
    """Entries by (root number, path): at most `limit` of files and a quarter of that of anything else."""

    def __init__(self, limit: int, chunks: Chunks, revalidate: float, max_stale: float) -> None:
        self._chunks = chunks
        self._revalidate = revalidate
        self._max_stale = max_stale
        self._files: Lru[Key, Entry] = Lru(limit, self._bury)
        self._others: Lru[Key, Entry] = Lru(max(1, limit // 4), self._bury)
        self.stale: list[Entry] = []

    def __len__(self) -> int:
        return len(self._files) + len(self._others)

    def get(self, key: Key) -> Entry | None:
        """The entry, of whatever age, or None."""
        return self._files.get(key) or self._others.get(key)

    def put(self, entry: Entry, checked: float, *, is_file: bool) -> None:
        """Store what was found at `checked` (monotonic seconds) in place of what was known before."""
        self.drop(entry.key)
        self.renew(entry, checked)
        (self._files if is_file else self._others).put(entry.key, entry)

    def drop(self, key: Key) -> None:
        """Forget what is known of `key`."""
        known = self._files.pop(key) or self._others.pop(key)
        if known is not None:
            known.die(self._chunks)

    def distrust(self, key: Key, now: float) -> None:
        """What is known of `key` may be wrong since `now`: the next request looks first, and a file's content stays."""
        entry = self._files.get(key)
        if entry is None:
            self.drop(key)
        else:
            entry.distrust(now)

    def distrust_if(self, touched: Callable[[Key], bool], now: float) -> None:
        """The same for every key that is `touched`; it takes about a millisecond for each 5000 that are known."""
        for key in [key for known in (self._files, self._others) for key in known if touched(key)]:
            self.distrust(key, now)

    def renew(self, entry: Entry, checked: float) -> None:
        """The entry was true at `checked`."""
        entry.checked = checked
        entry.fresh_until = checked + self._revalidate
        entry.expires = checked + self._max_stale
        self._files.touch(entry.key)
        self._others.touch(entry.key)
        if entry.chunk is not None:
            self._chunks.touch(entry.chunk.key)

    def add_listing(self, folder: Entry, key: Any, outcome: Any, facts: Any, made: float) -> Entry:
        """A listing of `folder` as of `made`: sizes and times in it may change, and the folder does not."""
        return folder.add_listing(key, outcome, facts, made + self._max_stale, self._chunks)

    def usable(self, entry: Entry, now: float) -> bool:
        """Whether the entry may be served now; one that is no longer fresh is listed for a helper to check."""
        if now <= entry.fresh_until:
            return True
        if entry.original is not None:
            return self._usable_variant(entry, entry.original, now)
        if now > entry.expires:
            return False
        entry.fresh_until = entry.expires
        self.stale.append(entry)
        return True

    def _usable_variant(self, variant: Entry, original: Entry, now: float) -> bool:
        """A variant is as fresh as its original; it hears of a renewal when it is asked for."""
        usable = self.usable(original, now) and now <= variant.expires
        if variant.chunk is not None and original.fresh_until > variant.fresh_until:
            self._chunks.touch(variant.chunk.key)
        variant.fresh_until = min(original.fresh_until, variant.expires)
        return usable

    def is_current(self, entry: Entry) -> bool:
        """Whether the entry is still what the cache knows of its path."""
        return self.get(entry.key) is entry

    def take_stale(self) -> list[Entry]:
        """The entries that were served beyond `revalidate` since this was last asked."""
        stale, self.stale = self.stale, []
        return stale

    def relist(self, entry: Entry) -> None:
        """A check of the entry came to nothing: list it again at its next hit."""
        entry.fresh_until = min(entry.fresh_until, entry.checked + self._revalidate)

    def _bury(self, _key: Key, entry: Entry) -> None:
        entry.die(self._chunks)
