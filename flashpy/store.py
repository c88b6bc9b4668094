"""WORKER: what an answer of a helper means for the caches. The pool calls it; the waiters get what it returns.

Storing is a side effect: the waiters are answered with what is in hand, whether or not it could be kept. What was
brought in this turn stays pinned to the end of the turn, so it is there when its waiters are called.
"""

from collections.abc import Callable, Hashable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Any

from flashpy.cache.chunks import Chunk, Chunks
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.content import Facts, ListingFacts, made_key
from flashpy.findings import Findings
from flashpy.helperpool import HelperPool
from flashpy.tasks import Shared, Trouble, described
from flashpy_helpers import wire

_LASTING = frozenset({wire.MISSING, wire.REFUSED, wire.FOLDER, wire.NO_INDEX})
_TROUBLE = {
    wire.MISSING: Trouble(404, "the file is gone"),
    wire.NO_ROOT: Trouble(404, "the root is gone"),
    wire.FOLDER: Trouble(404, "a folder has taken the file's place"),
    wire.NO_INDEX: Trouble(404, "a folder has taken the file's place"),
    wire.REFUSED: Trouble(403, "the file may not be read"),
    wire.MOVING: Trouble(503, "the file changes all the time"),
    wire.BUSY: Trouble(503, "a helper has no descriptors or memory left"),
    wire.UNABLE: Trouble(500, "bcrypt is not installed, so no password can be checked"),
}

_WARNED = 1000
_NO_DEVICE = (1 << 64) - 1
LATE_SECONDS = 1.0
ROUNDS = 5
"""Checks of one root under way at a time: one of many files, and when that is late, of single ones."""


class Round:
    """A check under way for these entries of a root, `since` when (monotonic seconds)."""

    __slots__ = ("entries", "late", "root", "since")

    def __init__(self, root: int, entries: list[Entry], since: float) -> None:
        self.root = root
        self.entries = entries
        self.since = since
        self.late = False


class HelperStore:
    """Keeps the answers of helpers in the caches (the Store of `helperpool`)."""

    def __init__(
        self,
        chunks: Chunks,
        pathnames: Pathnames,
        wall: Callable[[], float],
        report: Callable[[str], None],
        warn: Callable[[str], None],
        findings: Findings,
        folders: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """`report` and `warn` write lines of the log; `folders` are the roots' paths, to name a file in such a line."""
        self.revalidations = 0
        self._listings = count()
        self._warned: set[str] = set()
        self._gone: set[int] = set()
        self.findings = findings
        self._chunks = chunks
        self._pathnames = pathnames
        self._wall = wall
        self._report, self._warn = report, warn
        self._folders = folders
        self.brought: list[Chunk] = []
        self._listed: dict[int, list[Entry]] = {}
        self._alone: dict[int, list[Entry]] = {}
        self._rounds: dict[int, Round] = {}
        self.reserve = chunks.reserve
        self.abandon = chunks.abandon

    def settle(self, job: wire.Job, answer: wire.Answer, block: int | None, handed: float) -> Any:
        """Entry, Chunk, Trouble or None (decide anew) for the waiters; the caches are brought up to date."""
        if isinstance(job, wire.Check):
            self._settle_check(job, answer, handed)
            return None
        if isinstance(job, wire.Load):
            return self._settle_load(job, answer, block)
        if isinstance(job, wire.List):
            return self._settle_list(job, answer, block, handed)
        if isinstance(job, wire.HeavyJob):
            return self._settle_heavy(job, answer, block)
        return self._settle_lookup(job, answer, block, handed)

    def _settle_lookup(self, job: wire.Lookup, answer: wire.Answer, block: int | None, handed: float) -> Any:
        key = (job.root, job.path)
        if not isinstance(answer, wire.Failure):
            self._gone.discard(job.root)
        if isinstance(answer, wire.Found):
            entry = self._entry(key, answer, looked=job.order is not None)
            self._pathnames.put(entry, handed, is_file=True)
            read = entry.variants.get(answer.coding, entry)
            chunk = self._keep((read.outcome, 0), block, answer.filled)
            if chunk is not None:
                read.attach(chunk)
            return entry
        self._drop(block)
        if isinstance(answer, wire.Unchanged) and job.known is not None:
            return self._renewed(key, job, handed)
        if isinstance(answer, wire.Folder):
            entry = Entry(key, job.path, wire.NO_INDEX, answer.identity)
            self._pathnames.put(entry, handed, is_file=False)
            return entry
        assert isinstance(answer, wire.Failure)
        verdict = answer.verdict
        if verdict == wire.NO_ROOT:
            self._warn_of_root(job.root)
            verdict = wire.MISSING
        if verdict in _LASTING:
            entry = Entry(key, job.path, verdict)
            self._pathnames.put(entry, handed, is_file=False)
            return entry
        self._pathnames.drop(key)
        return self._trouble(job, answer)

    def _entry(self, key: tuple[int, bytes], found: wire.Found, *, looked: bool) -> Entry:
        """A file and its siblings, when they were looked for."""
        wall = self._wall()
        entry = Entry(key, found.path, found.identity, Facts(found.identity, wall))
        if looked:
            entry.siblings = found.siblings
        for coding, identity in found.siblings:
            entry.add_variant(coding, found.path + wire.SUFFIXES[coding], identity, Facts(identity, wall, coding))
        for coding in found.outdated:
            self._warn_once(key[0], found.path + wire.SUFFIXES[coding], "is older than its original and not used")
        return entry

    def _warn_once(self, root: int, sibling: bytes, what: str) -> None:
        """Not at each of the many lookups that a file may have."""
        path = self._folders.get(root, b"").rstrip(b"/") + b"/" + sibling
        text = f"{path.decode('utf-8', 'replace')!r} {what}"
        if text not in self._warned:
            if len(self._warned) >= _WARNED:
                self._warned.clear()
            self._warned.add(text)
            self._warn(text)

    def _warn_of_root(self, root: int) -> None:
        """All of a site is missing: once, until a file of it is found again."""
        if root not in self._gone:
            self._gone.add(root)
            self._warn(f"the root {self._folders.get(root, b'').decode('utf-8', 'replace')!r} is not there")

    def _renewed(self, key: tuple[int, bytes], job: wire.Lookup, handed: float) -> Any:
        """The file is what we held when we asked; None (ask again) when that has made way for others by now."""
        entry = self._pathnames.get(key)
        if entry is None or entry.outcome != job.known or (entry.siblings or ()) != job.known_siblings:
            return None
        self._pathnames.renew(entry, handed)
        return entry

    def _settle_list(self, job: wire.List, answer: wire.Answer, block: int | None, handed: float) -> Any:
        """The listing, of the folder's entry; when that is no longer known it serves those who wait and nobody else."""
        if not isinstance(answer, wire.Listed):
            self._drop(block)
            return self._trouble(job, answer) if isinstance(answer, wire.Failure) else _TROUBLE[wire.MOVING]
        folder = self._pathnames.get((job.root, job.path))
        # A version that no file has: the device number of all ones is none.
        version = wire.Identity(_NO_DEVICE, next(self._listings), answer.filled, 0, 0)
        chunk = self._keep((version, 0), block, answer.filled)
        facts = ListingFacts(answer.digest, answer.policy, answer.pages, as_json=job.as_json)
        if folder is not None and folder.outcome == wire.NO_INDEX and folder.facts is not None:
            page = self._pathnames.add_listing(folder, (job.at, job.query, job.as_json), version, facts, handed)
        else:
            page = Entry((job.root, job.path), job.path, version, facts)
            page.original = Entry(page.key, job.path, wire.NO_INDEX)
        if chunk is not None:
            page.attach(chunk)
        return page

    def _settle_load(self, job: wire.Load, answer: wire.Answer, block: int | None) -> Any:
        if isinstance(answer, wire.Loaded) and answer.filled == job.length:
            key = (job.identity, job.start // self._chunks.arena.top)
            keep = job.start == 0 or self._chunks.wanted_before(key)
            return self._keep(key, block, answer.filled, keep=keep)
        self._drop(block)
        if isinstance(answer, wire.Failure):
            return self._trouble(job, answer)
        return _TROUBLE[wire.MOVING]

    def _settle_heavy(self, job: wire.HeavyJob, answer: wire.Answer, block: int | None) -> Trouble | None:
        """What was made is in the content cache then, what was found out in the findings."""
        if isinstance(job, wire.Compress) and isinstance(answer, wire.Made):
            self._keep(made_key(job.identity, job.coding), block, answer.filled)
            return None
        self._drop(block)
        match answer:
            case wire.Digested(_, digest):
                self.findings.put(job, digest.hex().encode("ascii"))
            case wire.Judged(_, holds):
                self.findings.put(job, holds)
                if isinstance(job, wire.Verify) and not holds:
                    self._warn_once(job.root, job.path, "does not decode to its original and is not used")
            case wire.Failure():
                return self._heavy_trouble(job, answer)
        return None

    def _heavy_trouble(self, job: wire.HeavyJob, failure: wire.Failure) -> Trouble | None:
        """A file that does not shrink is sent as it is; without a library nobody can say more of a sibling."""
        missing = failure.verdict == wire.UNABLE
        if isinstance(job, wire.Verify) and missing:
            self.findings.put(job, True)
        elif isinstance(job, wire.Compress) and (missing or failure.verdict == wire.TOO_LARGE):
            self.findings.put(job, False)
        else:
            return self._trouble(job, failure)
        return None

    def _keep(self, key: Hashable, block: int | None, filled: int, *, keep: bool = True) -> Chunk | None:
        """The chunk in the cache, pinned to the end of the turn; `keep`: and when nobody uses it any more."""
        if block is None:
            return None
        known = self._chunks.get(key)
        if filled == 0 or known is not None:
            self._chunks.abandon(block)
            if known is None:
                return None
            self._chunks.pin(known)
            chunk = known
        else:
            chunk = self._chunks.commit(key, block, filled, keep=keep)
        self.brought.append(chunk)
        return chunk

    def _drop(self, block: int | None) -> None:
        if block is not None:
            self._chunks.abandon(block)

    def _trouble(self, job: Shared, failure: wire.Failure) -> Trouble:
        trouble = _TROUBLE.get(failure.verdict)
        if trouble is None:
            self._report(f"cannot {described(job)}: errno {failure.errno}")
            return Trouble(500, f"errno {failure.errno}")
        return trouble

    def doubt(self, job: wire.Job) -> None:
        """What was found may be of before a change: the next request looks again."""
        if isinstance(job, wire.Lookup | wire.List):
            self._pathnames.drop((job.root, job.path))

    def end_turn(self) -> None:
        """Unpin what this turn brought."""
        for chunk in self.brought:
            self._chunks.unpin(chunk)
        self.brought.clear()

    # Revalidation: entries that were served beyond their freshness go to a helper, one job for each root at a time.
    # When that one is late, maybe because one of its files hangs, the others shall not grow old with it: they go
    # one by one.

    def check_stale(self, pool: HelperPool) -> None:
        """Send the entries that were listed, and those of rounds that are late. Several times a second."""
        for entry in self._pathnames.take_stale():
            self._listed.setdefault(entry.key[0], []).append(entry)
        for overdue in self._rounds.values():
            if not overdue.late and pool.now - overdue.since > LATE_SECONDS:
                overdue.late = True
                if len(overdue.entries) > 1:
                    self._alone.setdefault(overdue.root, []).extend(overdue.entries)
        for root in list(self._alone):
            self._send_alone(root, pool)
        for root in list(self._listed):
            under_way = [one for one in self._rounds.values() if one.root == root]
            if len(under_way) < ROUNDS and all(one.late for one in under_way):
                self._send_listed(root, pool)

    def _send_alone(self, root: int, pool: HelperPool) -> None:
        waiting = self._alone[root]
        while waiting and sum(one.root == root for one in self._rounds.values()) < ROUNDS:
            entry = waiting.pop()
            if self._pathnames.is_current(entry):
                self._send([entry], pool)
        if not waiting:
            del self._alone[root]

    def _send_listed(self, root: int, pool: HelperPool) -> None:
        waiting = self._listed.pop(root)
        batch: list[Entry] = []
        room = wire.CHECK_BYTES
        while waiting and len(batch) < wire.CHECK_PATHS and room > len(waiting[-1].key[1]) + wire.CHECK_ITEM:
            entry = waiting.pop()
            room -= len(entry.key[1]) + wire.CHECK_ITEM
            if self._pathnames.is_current(entry):
                batch.append(entry)
        if waiting:
            self._listed[root] = waiting
        if batch:
            self._send(batch, pool)

    def _send(self, entries: list[Entry], pool: HelperPool) -> None:
        self.revalidations += 1
        root, number = entries[0].key[0], self.revalidations
        self._rounds[number] = Round(root, entries, pool.now)
        pool.check(
            wire.Check(number, root, tuple((entry.key[1], _expected(entry), entry.siblings) for entry in entries))
        )

    def _settle_check(self, job: wire.Check, answer: wire.Answer, handed: float) -> None:
        entries = self._rounds.pop(job.id).entries
        changed = set(answer.positions) if isinstance(answer, wire.Changed) else None
        for position, entry in enumerate(entries):
            if changed is None:
                self._pathnames.relist(entry)
            elif not self._pathnames.is_current(entry):
                continue
            elif position in changed:
                self._pathnames.drop(entry.key)
            elif handed > entry.checked:
                self._pathnames.renew(entry, handed)


def _expected(entry: Entry) -> Any:
    """What a check shall find at the entry's path: of a folder that is listed its version."""
    return entry.facts if entry.outcome == wire.NO_INDEX and entry.facts is not None else entry.outcome
