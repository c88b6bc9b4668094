"""WORKER: the whole decision: Request -> Reply, Refusal or Wanted(job). No I/O.

It is called when a request is read, and again with the helper's answer in hand when it had to wait: one path, not a
hit path and a miss path. What is in hand is used whatever the cache holds by then, so a request waits at most once
for its path.
"""

from copy import copy
from typing import NamedTuple, cast

from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.content import VARY, Content, Facts, vary
from flashpy.http.conditional import decide
from flashpy.http.navigation import is_navigation, looks_like_asset
from flashpy.http.negotiation import prefers_json
from flashpy.http.request import KNOWN_METHODS, Request
from flashpy.http.response import ALLOW, Reply, options, redirect
from flashpy.http.status import Refusal
from flashpy.http.target import Target, check_target, folder_location, parse_target
from flashpy.rules import PREFLIGHT, Ruling
from flashpy.sites import Site
from flashpy_helpers.query import parse_query
from flashpy_helpers.wire import FOLDER, IDENTITY, MISSING, NO_INDEX, REFUSED, Identity, List, Lookup

# A missing file is the client's affair; these are often a slip of the operator's, and logged.
_REASON = {REFUSED: "the file may not be read", NO_INDEX: "a folder without an index file"}


class Wanted(NamedTuple):
    """The reply needs this job's answer first."""

    job: Lookup | List


class Asked(NamedTuple):
    """A request under way: what it asks of which site, what the site's rules say of its path, and when it is now.

    `secure`: its client came over https. `now` is monotonic seconds, `wall` seconds since 1970.
    """

    request: Request
    site: Site
    target: Target
    ruling: Ruling
    secure: bool
    now: float
    wall: float

    def extra(self, *, error: bool = False) -> bytes:
        """The field lines that rules add."""
        return self.ruling.extra(self.request.wishes.get(b"origin"), secure=self.secure, error=error)


class Answerer:
    """Decides from what the caches know."""

    def __init__(self, pathnames: Pathnames, content: Content, room: int) -> None:
        self._pathnames = pathnames
        self._content = content
        self._room = room

    def answer(
        self, request: Request, site: Site, now: float, wall: float, in_hand: Entry | None = None, secure: bool = False
    ) -> Reply | Wanted:
        """The reply, or the job that it waits for. Raises Refusal. The rest is as in Asked."""
        method = request.line.method
        if method != b"GET" and method != b"HEAD":
            return _other_method(request, site, secure)
        target = parse_target(request.line.target, site.dotfiles)
        asked = Asked(request, site, target, site.rules.ruling(target.path), secure, now, wall)
        try:
            return self._by_rules(asked, in_hand)
        except Refusal as problem:
            return self._refused(asked, problem, in_hand)

    def _by_rules(self, asked: Asked, in_hand: Entry | None) -> Reply | Wanted:
        """As the rules want it: refused, sent elsewhere, or by another path."""
        ruling, target, method = asked.ruling, asked.target, asked.request.line.method
        if ruling.deny:
            raise Refusal(403, close=False)
        if ruling.redirect is not None:
            status, location = ruling.redirect
            return redirect(status, location.with_query(target.query), asked.extra(), with_body=method != b"HEAD")
        return self._by_path(asked, target.path if ruling.rewrite is None else ruling.rewrite, in_hand)

    def _by_path(self, asked: Asked, path: bytes, in_hand: Entry | None) -> Reply | Wanted:
        site = asked.site
        key = site.locate(path)
        entry = self._known(key, in_hand, asked.now)
        if entry is None and in_hand is not None:  # it waited for the page of an error, so there was nothing here
            return self._nothing(asked, None, in_hand)
        if (entry is None or entry.outcome == MISSING) and site.mounts and site.is_mount_without_slash(path):
            return _to_folder(asked)
        if entry is None:
            return Wanted(self._lookup(asked.request, site, key, self._pathnames.get(key)))
        if entry.original is not None:  # a listing that it waited for
            return self._file(asked, entry)
        if not isinstance(entry.outcome, Identity):
            return self._no_file(asked, entry, in_hand)
        if site.rules.may_deny and entry.path != key[1]:
            self._check_file(asked, path.removesuffix(key[1]) + entry.path)
        return self._file(asked, _choose(asked.request, entry))

    def _known(self, key: tuple[int, bytes], in_hand: Entry | None, now: float) -> Entry | None:
        """What is in hand for this path, or in the cache and not too old."""
        if in_hand is not None and in_hand.key == key:
            return in_hand
        entry = self._pathnames.get(key)
        return entry if entry is not None and self._pathnames.usable(entry, now) else None

    def _check_file(self, asked: Asked, path: bytes) -> None:
        """An index file, or the page of a clean path, is denied by its own name too."""
        if asked.site.rules.ruling(path).deny:
            raise Refusal(403, close=False)

    def _no_file(self, asked: Asked, entry: Entry, in_hand: Entry | None) -> Reply | Wanted:
        if entry.outcome == FOLDER:
            return _to_folder(asked)
        if entry.outcome == MISSING:
            return self._nothing(asked, entry, in_hand)
        if entry.outcome == NO_INDEX and entry.facts is not None and asked.site.listing != "off":
            return self._listing(asked, entry)
        raise Refusal(403, close=False, reason=_REASON[entry.outcome])

    def _nothing(self, asked: Asked, entry: Entry | None, in_hand: Entry | None) -> Reply | Wanted:
        """Nothing is there: a page of an application that knows its own paths, or 404."""
        site, request = asked.site, asked.request
        if site.spa and self._is_navigation(asked):
            page = self._page(asked, b"", in_hand)
            if isinstance(page, Wanted):
                return page
            if page is not None:
                return _passing(self._file(asked, _choose(request, page)))
        if entry is None or 404 in site.error_pages:
            raise Refusal(404, close=False)
        return self._content.missing(entry, asked.extra(error=True), request.line.method)

    def _is_navigation(self, asked: Asked) -> bool:
        wishes, path = asked.request.wishes, asked.target.path
        mode = wishes.get(b"sec-fetch-mode")
        return not looks_like_asset(path, asked.site.types) and is_navigation(
            asked.request.line.method, wishes.get(b"accept"), mode
        )

    def _page(self, asked: Asked, path: bytes, in_hand: Entry | None) -> Entry | Wanted | None:
        """The file at another path of the site; None when there is none."""
        key = asked.site.locate(path)
        entry = self._known(key, in_hand, asked.now)
        if entry is None:
            return Wanted(self._lookup(asked.request, asked.site, key, self._pathnames.get(key)))
        return entry if isinstance(entry.outcome, Identity) else None

    def _refused(self, asked: Asked, problem: Refusal, in_hand: Entry | None) -> Reply | Wanted:
        """The site's own page for the error; else the Refusal is raised, with the fields of the path."""
        path = asked.site.error_pages.get(problem.status)
        page = self._page(asked, path, in_hand) if path is not None else None
        if isinstance(page, Wanted):
            return page
        problem.extra = asked.extra(error=True)
        if page is None:
            raise problem
        method = asked.request.line.method
        return self._content.error_page(problem.status, page, asked.site, problem.extra, method)

    def _lookup(self, request: Request, site: Site, key: tuple[int, bytes], entry: Entry | None) -> Lookup:
        """A Lookup that reads nothing when the file is what we hold."""
        order = request.codings if site.may_have_siblings(key[1]) else None
        lookup = Lookup(0, key[0], key[1], 0, self._room, None, order)
        if entry is None or not isinstance(entry.outcome, Identity) or entry.chunk is None:
            return lookup
        return lookup._replace(known=entry.outcome, known_siblings=entry.siblings or ())

    def _listing(self, asked: Asked, folder: Entry) -> Reply | Wanted:
        """A page of what the folder holds, in the form and the order that are asked for."""
        site, target = asked.site, asked.target
        as_json = site.listing == "json" or prefers_json(asked.request.wishes.get(b"accept"))
        query = parse_query(target.query)
        for known in folder.variants.values():  # of any form or order: a page too high is the last one, asked for once
            query = query._replace(page=min(query.page, known.facts.pages))
            break
        page = folder.variants.get((target.path, query, as_json))
        if page is None or page.chunk is None or not self._pathnames.usable(page, asked.now):
            root, path = folder.key
            return Wanted(List(0, root, path, target.path, query, as_json, 0, self._room))
        return self._file(asked, page)

    def _file(self, asked: Asked, entry: Entry) -> Reply:
        method, special = asked.request.line.method, asked.request.special
        decision = None
        if special is not None and special.conditions is not None:
            facts = cast(Facts, entry.facts)
            size, now = entry.outcome.size, int(asked.wall)
            decision = decide(method, special.conditions, etag=facts.etag, mtime=facts.mtime, size=size, now=now)
            if decision.status == 412:
                raise Refusal(412, close=False, headers=vary(entry))
            if decision.status == 416:
                raise Refusal(416, close=False, headers=((b"Content-Range", b"bytes */%d" % size), *vary(entry)))
        return self._content.reply(entry, asked.site, asked.extra(), method, decision)


def _passing(reply: Reply) -> Reply:
    """The same, not to be remembered: it depends on more than its entry."""
    reply = copy(reply)
    reply.lasting = False
    return reply


def _choose(request: Request, entry: Entry) -> Entry:
    """The representation that the client likes best of those that there are. Raises Refusal 406."""
    variants = entry.variants
    for coding in request.codings:
        if coding == IDENTITY:
            return entry
        if coding in variants:
            return variants[coding]
    raise Refusal(406, close=False, headers=(VARY,))


def _other_method(request: Request, site: Site, secure: bool) -> Reply:
    method = request.line.method
    if method not in KNOWN_METHODS:
        raise Refusal(501, close=False)
    check_target(request.line.target, method)
    if method != b"OPTIONS":
        raise Refusal(405, close=False, headers=((b"Allow", ALLOW),))
    if request.line.target == b"*":
        return options()
    ruling = site.rules.ruling(parse_target(request.line.target, dotfiles=True).path)
    origin = request.wishes.get(b"origin")
    extra = ruling.extra(origin, secure=secure, error=True)
    return options(extra + PREFLIGHT if origin is not None and ruling.allows(origin) else extra)


def _to_folder(asked: Asked) -> Reply:
    method = asked.request.line.method
    return redirect(301, folder_location(asked.target), asked.extra(), with_body=method != b"HEAD")
