"""WORKER: the whole decision: Request -> Reply, Refusal or Wanted(job). No I/O.

It is called when a request is read, and again with the helper's answer in hand when it had to wait: one path, not a
hit path and a miss path. What is in hand is used whatever the cache holds by then, so a request waits at most once
for its path.
"""

from typing import NamedTuple, cast

from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.content import VARY, Content, Facts, vary
from flashpy.http.conditional import decide
from flashpy.http.negotiation import prefers_json
from flashpy.http.request import KNOWN_METHODS, Request
from flashpy.http.response import ALLOW, Reply, options, redirect
from flashpy.http.status import Refusal
from flashpy.http.target import Target, check_target, folder_location, parse_target
from flashpy.sites import Site
from flashpy_helpers.query import parse_query
from flashpy_helpers.wire import FOLDER, IDENTITY, MISSING, NO_INDEX, REFUSED, Identity, List, Lookup

# A missing file is the client's affair; these are often a slip of the operator's, and logged.
_REASON = {REFUSED: "the file may not be read", NO_INDEX: "a folder without an index file"}


class Wanted(NamedTuple):
    """The reply needs this job's answer first."""

    job: Lookup | List


class Answerer:
    """Decides from what the caches know."""

    def __init__(self, pathnames: Pathnames, content: Content, room: int) -> None:
        self._pathnames = pathnames
        self._content = content
        self._room = room

    def answer(
        self, request: Request, site: Site, now: float, wall: float, in_hand: Entry | None = None
    ) -> Reply | Wanted:
        """The reply, or the Lookup that it waits for. Raises Refusal.

        `now` is monotonic seconds, `wall` seconds since 1970.
        """
        method = request.line.method
        if method != b"GET" and method != b"HEAD":
            return _other_method(request)
        target = parse_target(request.line.target, site.dotfiles)
        key = site.locate(target.path)
        entry = in_hand if in_hand is not None else self._pathnames.get(key)
        if in_hand is None and (entry is None or not self._pathnames.usable(entry, now)):
            if site.mounts and site.is_mount_without_slash(target.path):
                return _to_folder(target, site, method)
            return Wanted(self._lookup(request, site, key, entry))
        assert entry is not None
        if entry.original is not None:  # a listing that it waited for
            return self._file(request, site, entry, wall)
        if not isinstance(entry.outcome, Identity):
            if entry.outcome == FOLDER:
                return _to_folder(target, site, method)
            if entry.outcome == MISSING:
                return self._content.missing(entry, method)
            if entry.outcome == NO_INDEX and entry.facts is not None and site.listing != "off":
                return self._listing(request, site, target, entry, now, wall)
            raise Refusal(403, close=False, reason=_REASON[entry.outcome])
        return self._file(request, site, _choose(request, entry), wall)

    def _lookup(self, request: Request, site: Site, key: tuple[int, bytes], entry: Entry | None) -> Lookup:
        """A Lookup that reads nothing when the file is what we hold."""
        order = request.codings if site.may_have_siblings(key[1]) else None
        lookup = Lookup(0, key[0], key[1], 0, self._room, None, order)
        if entry is None or not isinstance(entry.outcome, Identity) or entry.chunk is None:
            return lookup
        return lookup._replace(known=entry.outcome, known_siblings=entry.siblings or ())

    def _listing(
        self, request: Request, site: Site, target: Target, folder: Entry, now: float, wall: float
    ) -> Reply | Wanted:
        """A page of what the folder holds, in the form and the order that are asked for."""
        as_json = site.listing == "json" or prefers_json(request.accept)
        query = parse_query(target.query)
        page = folder.variants.get((target.path, query, as_json))
        if page is None or page.chunk is None or not self._pathnames.usable(page, now):
            root, path = folder.key
            return Wanted(List(0, root, path, target.path, query, as_json, site.dotfiles, 0, self._room))
        return self._file(request, site, page, wall)

    def _file(self, request: Request, site: Site, entry: Entry, wall: float) -> Reply:
        method, special = request.line.method, request.special
        if special is None or special.conditions is None:
            return self._content.reply(entry, site, method, None)
        facts = cast(Facts, entry.facts)
        size = entry.outcome.size
        decision = decide(method, special.conditions, etag=facts.etag, mtime=facts.mtime, size=size, now=int(wall))
        if decision.status == 412:
            raise Refusal(412, close=False, headers=vary(entry))
        if decision.status == 416:
            raise Refusal(416, close=False, headers=((b"Content-Range", b"bytes */%d" % size), *vary(entry)))
        return self._content.reply(entry, site, method, decision)


def _choose(request: Request, entry: Entry) -> Entry:
    """The representation that the client likes best of those that there are. Raises Refusal 406."""
    variants = entry.variants
    for coding in request.codings:
        if coding == IDENTITY:
            return entry
        if coding in variants:
            return variants[coding]
    raise Refusal(406, close=False, headers=(VARY,))


def _other_method(request: Request) -> Reply:
    method = request.line.method
    if method not in KNOWN_METHODS:
        raise Refusal(501, close=False)
    check_target(request.line.target, method)
    if method == b"OPTIONS":
        return options()
    raise Refusal(405, close=False, headers=((b"Allow", ALLOW),))


def _to_folder(target: Target, site: Site, method: bytes) -> Reply:
    return redirect(301, folder_location(target), site.extra, with_body=method != b"HEAD")
