"""The rules of a site: each is compiled once on trial, so that none can fail in a worker. Runs in the master.

Whatever a rule says is tried here with the very classes that workers use, and refused with its line.
"""

import re

from flashpy.config.schema import Rule, Site
from flashpy.config.source import Key, Source
from flashpy.config.units import parse_time
from flashpy.http.glob import Glob
from flashpy.http.presets import IMMUTABLE
from flashpy.http.target import is_served_path, valid_host
from flashpy.http.template import RedirectTemplate, RewriteTemplate, Template

_ORIGIN = re.compile(r"(https?)://([^/?#]+)", re.ASCII)
_REALM = re.compile(r"[ !#-\[\]-~]+")
_WORDS = {"immutable": IMMUTABLE, "no-cache": "no-cache", "no-store": "no-store"}
ERROR_PAGES = frozenset(("403", "404"))
"""Statuses that may have a page of their own. Not 5xx: those arise when no file can be got."""


def cache_control(text: str) -> str:
    """The Cache-Control that `cache` of a rule means. Raises ValueError."""
    return _WORDS.get(text) or f"max-age={int(parse_time(text))}"


def check_rules(key: Key, site: Site, source: Source) -> None:
    """Raises ConfigError for the first rule, preset or error page that cannot be."""
    for number, rule in enumerate(site.rule):
        _check_rule((*key, "rule", number), rule, site, source)
    for number, preset in enumerate(site.preset):
        if preset in site.preset[:number]:
            raise source.error((*key, "preset", number), f"{preset!r} is given twice")
    if "spa" in site.preset and not site.index:
        raise source.error((*key, "preset"), "expected an index: it is what spa answers with")
    for status, page in site.error_page.items():
        if status not in ERROR_PAGES:
            raise source.error((*key, "error_page", status), "expected 403 or 404")
        if page[:1] != "/" or not is_served_path(page[1:].encode(), site.dotfiles) or page.endswith("/"):
            words = f'expected the path of a file of the site, such as "/404.html", not {page!r}'
            raise source.error((*key, "error_page", status), words)


def _check_rule(key: Key, rule: Rule, site: Site, source: Source) -> None:
    globs = _globs(key, rule, source)
    ways = [name for name in ("redirect", "rewrite", "deny") if getattr(rule, name)]
    if len(ways) > 1:
        raise source.error((*key, ways[1]), f"a path has one way to go, and this rule has {ways[0]} already")
    if not (ways or rule.headers or rule.cache or rule.cors or rule.auth):
        words = "expected headers, cache, redirect, rewrite, deny, auth or cors: this rule does nothing"
        raise source.error(key, words)
    _check_cache(key, rule, source)
    _check_cors(key, rule, source)
    if rule.auth is not None and not _REALM.fullmatch(rule.auth.realm):
        words = f"expected printable ASCII without quotes and backslashes, not {rule.auth.realm!r}"
        raise source.error((*key, "auth", "realm"), words)
    if rule.redirect is not None:
        _check_redirect(key, rule.redirect.to, globs, source)
    if rule.rewrite:
        try:
            _check_wildcards(RewriteTemplate(rule.rewrite, site.dotfiles), globs)
        except ValueError as error:
            raise source.error((*key, "rewrite"), str(error)) from None


def _globs(key: Key, rule: Rule, source: Source) -> list[Glob]:
    if not rule.match:
        raise source.error((*key, "match"), "expected at least one glob")
    globs = []
    for number, pattern in enumerate(rule.match):
        try:
            globs.append(Glob(pattern))
        except ValueError as error:
            raise source.error((*key, "match", number), str(error)) from None
    return globs


def _check_cache(key: Key, rule: Rule, source: Source) -> None:
    if not rule.cache:
        return
    try:
        cache_control(rule.cache)
    except ValueError:
        words = f'expected "immutable", "no-cache", "no-store" or a time such as "1h", not {rule.cache!r}'
        raise source.error((*key, "cache"), words) from None
    if "cache-control" in map(str.lower, rule.headers):
        raise source.error((*key, "cache"), "this rule has a Cache-Control in its headers already")


def _check_cors(key: Key, rule: Rule, source: Source) -> None:
    for number, origin in enumerate(rule.cors):
        found = _ORIGIN.fullmatch(origin)
        if origin == "*" and len(rule.cors) == 1:
            continue
        if found is None or not valid_host(found[2].encode()) or origin != origin.lower():
            words = f'expected "*" alone, or origins such as "https://a.example", not {origin!r}'
            raise source.error((*key, "cors", number), words)


def _check_redirect(key: Key, to: str, globs: list[Glob], source: Source) -> None:
    place = (*key, "redirect", "to")
    try:
        template = RedirectTemplate(to)
        _check_wildcards(template, globs)
    except ValueError as error:
        raise source.error(place, str(error)) from None
    for glob in globs:
        path = glob.example()
        after = template.leads_to(path, glob.match(path) or ())
        if after is not None and glob.match(after) is not None:
            raise source.error(place, f"/{path} would be sent to /{after}, which this rule sends on: a circle")


def _check_wildcards(template: Template, globs: list[Glob]) -> None:
    least = min(glob.wildcards for glob in globs)
    if template.highest > least:
        raise ValueError(f"{{{template.highest}}} needs as many wildcards in match, and there are {least}")
