"""What spans several keys, or is a language of its own: checked after types and bounds. Master.

Whatever a worker could stumble over is refused here, with the key's line: a header that would break
the framing of replies, a site that no request can reach, limits that contradict each other.
Whether the roots are there is another matter (roots): a file can be checked on another machine.
"""

import re
from collections.abc import Callable

from flashpy import privileges
from flashpy.config.needs import missing_library
from flashpy.config.rulecheck import check_rules
from flashpy.config.schema import Mount, Settings, Site
from flashpy.config.source import Key, Source
from flashpy.config.units import format_size, format_time
from flashpy.logformat import Format

# RFC 9110, sections 5.6.2 (token), 5.5 (field values; ASCII only) and 8.3.1 (media types).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?|", re.ASCII)
_MEDIA = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: *; *[!-:<-~]+)*", re.ASCII)

# Fields that frame a reply or describe its file: the server works them out, a fixed one would lie.
OWN_FIELDS = frozenset(
    (
        "accept-ranges",
        "allow",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "keep-alive",
        "last-modified",
        "location",
        "server",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
    )
)

# Table, the key that may not be larger, the one that it is compared with, how both are shown.
ORDERED: tuple[tuple[str, str, str, Callable[..., str]], ...] = (
    ("helpers", "min", "max", str),
    ("heavy", "min", "max", str),
    ("cache", "revalidate", "max_stale", format_time),
    ("limits", "request_line", "header_bytes", format_size),
)


def check(settings: Settings, source: Source) -> None:
    """Raises ConfigError for the first contradiction."""
    _check_order(settings, source)
    _check_chunk(settings.cache.chunk, source)
    if settings.limits.client_burst and not settings.limits.client_requests:
        raise source.error(("limits", "client_burst"), "means nothing without client_requests")
    _check_format(settings.log.format, source)
    _check_listeners(settings, source)
    _check_proxies(settings, source)
    _check_account(("server", "user"), settings.server.user, None, source)
    _check_account(("server", "group"), None, settings.server.group, source)
    _check_hosts(settings, source)
    for number, site in enumerate(settings.site):
        _check_site(("site", number), site, source)
        if settings.server.request_id:
            _check_request_id(("site", number), site, source)


def _check_order(settings: Settings, source: Source) -> None:
    for table, low, high, show in ORDERED:
        values = getattr(settings, table)
        less, more = getattr(values, low), getattr(values, high)
        if less > more:
            # The one to blame is the one that someone wrote: the other may be a default.
            blamed = low if source.has((table, low)) else high
            words = f"{table}.{low}, {show(less)}, is more than {table}.{high}, {show(more)}"
            raise source.error((table, blamed), words)


def _check_chunk(chunk: int, source: Source) -> None:
    if chunk & (chunk - 1):
        words = f"expected a power of two, not {format_size(chunk)}"
        raise source.error(("cache", "chunk"), words)


def _check_format(text: str, source: Source) -> None:
    try:
        Format(text)
    except ValueError as error:
        raise source.error(("log", "format"), str(error)) from None


def _check_listeners(settings: Settings, source: Source) -> None:
    seen: set[str] = set()
    for number, listen in enumerate(settings.server.listen):
        if listen.address in seen:
            words = f"{listen.address} is given twice"
            raise source.error(("server", "listen", number), words)
        seen.add(listen.address)


def _check_proxies(settings: Settings, source: Source) -> None:
    proxies = settings.server.trusted_proxies
    for number, proxy in enumerate(proxies):
        if proxy in proxies[:number]:
            raise source.error(("server", "trusted_proxies", number), f"{proxy} is given twice")


def _check_account(key: Key, user: str | None, group: str | None, source: Source) -> None:
    try:
        privileges.resolve(user, group)
    except LookupError as error:
        raise source.error(key, str(error)) from None
    except PermissionError:
        pass  # a matter of who starts the server, who may be another than who checks the file


def _check_hosts(settings: Settings, source: Source) -> None:
    owners: dict[str, int] = {}
    for number, site in enumerate(settings.site):
        if number and not site.hosts:
            words = "expected hosts: only the first site answers for hosts that no site names"
            raise source.error(("site", number, "hosts"), words)
        for position, host in enumerate(site.hosts):
            if host in owners:
                words = f"{host!r} is already a host of site[{owners[host]}]"
                raise source.error(("site", number, "hosts", position), words)
            owners[host] = number


def _check_site(key: Key, site: Site, source: Source) -> None:
    for number, name in enumerate(site.index):
        if not _is_file_name(name):
            words = f"expected a file name without slash, not {name!r}"
            raise source.error((*key, "index", number), words)
    if site.charset and not _TOKEN.fullmatch(site.charset):
        words = f'expected a name such as "utf-8", or "" for none, not {site.charset!r}'
        raise source.error((*key, "charset"), words)
    for number, coding in enumerate(site.compress):
        if coding in site.compress[:number]:
            raise source.error((*key, "compress", number), f"{coding} is given twice")
        _check_library((*key, "compress", number), coding, source)
    _check_headers((*key, "headers"), site.headers, source)
    for extension, media in site.types.items():
        if not _MEDIA.fullmatch(media):
            words = f'expected a media type such as "text/html", not {media!r}'
            raise source.error((*key, "types", extension), words)
    for number, rule in enumerate(site.rule):
        _check_headers((*key, "rule", number, "headers"), rule.headers, source)
        if rule.auth is not None:
            _check_library((*key, "rule", number, "auth"), "auth", source)
    check_rules(key, site, source)
    _check_mounts((*key, "mount"), site.mount, source)


def _check_library(key: Key, what: str, source: Source) -> None:
    """Every password would be refused, and nothing compressed: better to be told before."""
    library = missing_library(what)
    if library is not None:
        raise source.error(key, f"needs the library {library}, which is not installed")


def _check_request_id(key: Key, site: Site, source: Source) -> None:
    """Nobody else may set the field that the server sets then."""
    places = [((*key, "headers"), site.headers)]
    places += [((*key, "rule", number, "headers"), rule.headers) for number, rule in enumerate(site.rule)]
    for place, headers in places:
        for name in headers:
            if name.lower() == "x-request-id":
                raise source.error((*place, name), "with server.request_id the server sets this field itself")


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(character in name for character in "/\0")


def _check_headers(key: Key, headers: dict[str, str], source: Source) -> None:
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise source.error((*key, name), f"{name!r} is not a field name")
        if name.lower() in OWN_FIELDS:
            raise source.error((*key, name), "the server sets this field itself")
        if name.lower() in seen:
            raise source.error((*key, name), "this field is given twice")
        if not _VALUE.fullmatch(value):
            words = f"expected one line of printable ASCII, not {value!r}"
            raise source.error((*key, name), words)
        seen.add(name.lower())


def _check_mounts(key: Key, mounts: tuple[Mount, ...], source: Source) -> None:
    seen: set[str] = set()
    for number, mount in enumerate(mounts):
        place = (*key, number, "at")
        if mount.at == "/":
            raise source.error(place, 'expected a path below "/", which is the site\'s own root')
        if not _is_mount_path(mount.at):
            words = f'expected a path such as "/files/", decoded, not {mount.at!r}'
            raise source.error(place, words)
        if mount.at in seen:
            raise source.error(place, f"{mount.at!r} is mounted twice")
        seen.add(mount.at)


def _is_mount_path(path: str) -> bool:
    """Begins and ends with a slash, and no request could mean it in another way."""
    names = path.split("/")[1:-1]
    plain = all(name not in ("", ".", "..") and name.isprintable() for name in names)
    return path[:1] == "/" and path[-1:] == "/" and bool(names) and plain and "\\" not in path
