"""WORKER: the whole decision: Request -> Reply, Refusal or Wanted(job). No I/O.

It is called when a request is read, and again with the helper's answer in hand when it had to wait: one path, not a
hit path and a miss path. What is in hand is used whatever the cache holds by then, so a request waits at most once
for its path.
"""

from copy import copy
from typing import cast

from flashpy.asking import NOTHING, Asked, InHand, Wanted
from flashpy.cache.pathnames import Entry, Pathnames
from flashpy.content import VARY_ACCEPT, Chosen, Content, Facts
from flashpy.guard import Guard
from flashpy.http.conditional import decide
from flashpy.http.navigation import is_navigation, looks_like_asset
from flashpy.http.negotiation import prefers_json
from flashpy.http.request import KNOWN_METHODS, Request
from flashpy.http.response import ALLOW, Reply, options, redirect
from flashpy.http.status import Refusal
from flashpy.http.target import check_target, folder_location, parse_target
from flashpy.representations import Representations
from flashpy.rules import PREFLIGHT
from flashpy.sites import Site
from flashpy_helpers.query import parse_query
from flashpy_helpers.wire import FOLDER, MISSING, NO_INDEX, REFUSED, Identity, List, Lookup

VARY_NAVIGATION = b"Vary: Accept, Sec-Fetch-Mode\r\n"
"""Of a page that stands in for what is missing, and of the 404 that others get there."""
# A missing file is the client's affair; these are often a slip of the operator's, and logged.
_REASON = {
    REFUSED: "the file may not be read, for its rights or as a link leaves the root (symlinks)",
    NO_INDEX: "a folder without an index file",
}


class Answerer:
    """Decides from what the caches know."""

    def __init__(
        self, pathnames: Pathnames, content: Content, room: int, representations: Representations, guard: Guard
    ) -> None:
        self._pathnames = pathnames
        self._content = content
        self._room = room
        self._representations = representations
        self._guard = guard

    def answer(
        self, request: Request, site: Site, now: float, wall: float, in_hand: InHand = NOTHING, secure: bool = False
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
            reply = self._refused(asked, problem, in_hand)
            if reply is None:
                raise  # from here, where its name goes: a frame that keeps what it raises is a cycle
            return reply

    def _by_rules(self, asked: Asked, in_hand: InHand) -> Reply | Wanted:
        """As the rules want it: refused, asked for a password, sent elsewhere, or by another path."""
        ruling, target = asked.ruling, asked.target
        if ruling.deny:
            raise Refusal(403, close=False)
        if ruling.realm is not None:
            user = self._guard.admit(ruling.realm, asked, in_hand)
            return user if isinstance(user, Wanted) else _personal(self._by_path(asked, target.path, in_hand), user)
        return self._by_path(asked, target.path, in_hand)

    def _by_path(self, asked: Asked, path: bytes, in_hand: InHand) -> Reply | Wanted:
        site, ruling = asked.site, asked.ruling
        if ruling.redirect is not None:
            status, location = ruling.redirect
            with_body = asked.request.line.method != b"HEAD"
            return redirect(status, location.with_query(asked.target.query), asked.extra(), with_body=with_body)
        if ruling.rewrite is not None:
            path = ruling.rewrite
        key = site.locate(path)
        entry = self._known(key, in_hand.entry, asked.now)
        if entry is None and in_hand.entry is not None:  # it waited for the page of an error: there was nothing here
            return self._nothing(asked, None, in_hand)
        if (entry is None or entry.outcome == MISSING) and site.mounts and site.is_mount_without_slash(path):
            return _to_folder(asked)
        if entry is None:
            return Wanted(self._lookup(asked.request, site, key, self._pathnames.get(key)))
        if entry.original is not None:  # a listing that it waited for
            return self._page_of(asked, entry)
        if not isinstance(entry.outcome, Identity):
            return self._no_file(asked, entry, in_hand)
        if site.rules.may_bar and entry.path != key[1]:
            return self._other_name(asked, path.removesuffix(key[1]) + entry.path, entry, in_hand)
        return self._file(asked, entry, in_hand)

    def _other_name(self, asked: Asked, path: bytes, entry: Entry, in_hand: InHand) -> Reply | Wanted:
        """An index file, or the page of a clean path: it is barred by its own name too."""
        ruling = asked.site.rules.ruling(path)
        if ruling.deny:
            raise Refusal(403, close=False)
        if ruling.realm is None or ruling.realm is asked.ruling.realm:
            return self._file(asked, entry, in_hand)
        user = self._guard.admit(ruling.realm, asked, in_hand)
        return user if isinstance(user, Wanted) else _personal(self._file(asked, entry, in_hand), user)

    def _known(self, key: tuple[int, bytes], in_hand: Entry | None, now: float) -> Entry | None:
        """What is in hand for this path, or in the cache and not too old."""
        if in_hand is not None and in_hand.key == key:
            return in_hand
        entry = self._pathnames.get(key)
        return entry if entry is not None and self._pathnames.usable(entry, now) else None

    def _no_file(self, asked: Asked, entry: Entry, in_hand: InHand) -> Reply | Wanted:
        if entry.outcome == FOLDER:
            return _to_folder(asked)
        if entry.outcome == MISSING:
            return self._nothing(asked, entry, in_hand)
        if entry.outcome == NO_INDEX and entry.facts is not None and asked.site.listing != "off":
            return self._listing(asked, entry)
        raise Refusal(403, close=False, reason=_REASON[entry.outcome])

    def _nothing(self, asked: Asked, entry: Entry | None, in_hand: InHand) -> Reply | Wanted:
        """Nothing is there: a page of an application that knows its own paths, or 404."""
        site, request = asked.site, asked.request
        if site.spa and not looks_like_asset(asked.target.path, site.types):
            asked = asked._replace(more=VARY_NAVIGATION)
            page = self._page(asked, b"", in_hand) if _is_navigation(request) else None
            if isinstance(page, Wanted):
                return page
            if page is not None:
                return _passing(self._other_name(asked, page.path, page, in_hand))
        if entry is None or 404 in site.error_pages:
            raise Refusal(404, close=False, extra=asked.more)
        return self._content.missing(entry, asked.extra(error=True), request.line.method)

    def _page(self, asked: Asked, path: bytes, in_hand: InHand) -> Entry | Wanted | None:
        """The file at another path of the site; None when there is none."""
        key = asked.site.locate(path)
        entry = self._known(key, in_hand.entry, asked.now)
        if entry is None:
            return Wanted(self._lookup(asked.request, asked.site, key, self._pathnames.get(key)))
        return entry if isinstance(entry.outcome, Identity) else None

    def _refused(self, asked: Asked, problem: Refusal, in_hand: InHand) -> Reply | Wanted | None:
        """The site's own page for the error; None when there is none. The Refusal gets the fields of the path."""
        path = asked.site.error_pages.get(problem.status)
        page = self._page(asked, path, in_hand) if path is not None else None
        if isinstance(page, Wanted):
            return page
        problem.extra += asked.extra(error=True)
        if page is None:
            if path is not None and not problem.reason:
                problem.reason = f"no page for it at /{path.decode('utf-8', 'replace')}"
            return None
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
        return self._page_of(asked, page)

    def _page_of(self, asked: Asked, page: Entry) -> Reply:
        """A page of a listing: it is made as one is asked for, and has its own tag."""
        tag = b"" if asked.site.etag == "off" else page.facts.etag
        return self._reply(asked, Chosen(page, tag, (VARY_ACCEPT,)))

    def _file(self, asked: Asked, entry: Entry, in_hand: InHand) -> Reply | Wanted:
        chosen = self._representations.choose(asked, entry, in_hand)
        if isinstance(chosen, Wanted):
            return chosen
        reply = self._reply(asked, chosen)
        return reply if chosen.lasting else _passing(reply)

    def _reply(self, asked: Asked, chosen: Chosen) -> Reply:
        method, special = asked.request.line.method, asked.request.special
        decision = None
        if special is not None and special.conditions is not None:
            mtime, size, now = cast(Facts, chosen.entry.facts).mtime, chosen.entry.outcome.size, int(asked.wall)
            varies = bool(chosen.vary)
            decision = decide(
                method, special.conditions, etag=chosen.tag, mtime=mtime, size=size, now=now, varies=varies
            )
            if decision.status == 412:
                raise Refusal(412, close=False, headers=chosen.vary)
            if decision.status == 416:
                raise Refusal(416, close=False, headers=((b"Content-Range", b"bytes */%d" % size), *chosen.vary))
        return self._content.reply(chosen, asked.site, asked.extra(), method, decision)


def _is_navigation(request: Request) -> bool:
    wishes = request.wishes
    return is_navigation(request.line.method, wishes.get(b"accept"), wishes.get(b"sec-fetch-mode"))


def _passing(reply: Reply | Wanted) -> Reply | Wanted:
    """The same, not to be remembered: it depends on more than its entry."""
    if isinstance(reply, Reply):
        reply = copy(reply)
        reply.lasting = False
    return reply


def _personal(reply: Reply | Wanted, user: bytes) -> Reply | Wanted:
    """The same for a user who had to say a password."""
    reply = _passing(reply)
    if isinstance(reply, Reply):
        reply.user = user
    return reply


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
