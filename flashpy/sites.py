"""WORKER: from Host to site, from path to root. Compiled once from the settings; no I/O.

A site is its root and mounts (each a numbered root that helpers know), its rules, and the media types. The raw bytes of
Host repeat, so what they mean is remembered; an invalid Host is refused each time.
"""

from collections.abc import Mapping, Sequence

from flashpy.config import Settings
from flashpy.config import Site as SiteSettings
from flashpy.http.mime import compressible, content_type
from flashpy.http.negotiation import CODINGS
from flashpy.http.status import Refusal
from flashpy.http.target import valid_host
from flashpy.rules import Rules
from flashpy_helpers.wire import COMPRESS_MOST

_NUMBERS = {name.decode("ascii"): number for number, name in CODINGS.items()}
_REMEMBERED = 4096
_LONGEST = 300  # a name of 253 bytes and a port; longer ones would only take memory


class Site:
    """One site of one generation; `number` is its place in the configuration."""

    __slots__ = (
        "charset",
        "clean",
        "compress_min",
        "compressions",
        "dotfiles",
        "error_pages",
        "etag",
        "listing",
        "mounts",
        "number",
        "precompressed",
        "root",
        "rules",
        "spa",
        "types",
        "verified",
    )

    def __init__(self, number: int, settings: SiteSettings, roots: Sequence[int]) -> None:
        self.number = number
        self.root = roots[0]
        self.dotfiles = settings.dotfiles
        self.charset = settings.charset
        self.rules = Rules(settings)
        self.spa = "spa" in settings.preset
        self.error_pages = {int(status): page.encode()[1:] for status, page in settings.error_page.items()}
        self.clean = settings.clean_urls
        self.listing = settings.listing
        self.precompressed = settings.precompressed
        self.verified = settings.verify_precompressed
        self.compressions = frozenset(_NUMBERS[coding] for coding in settings.compress)
        self.compress_min = settings.compress_min
        self.etag = settings.etag
        self.types: Mapping[str, str] = settings.types
        mounts = [(mount.at.encode()[1:], root) for mount, root in zip(settings.mount, roots[1:], strict=True)]
        self.mounts = sorted(mounts, key=lambda mount: -len(mount[0]))

    def locate(self, path: bytes) -> tuple[int, bytes]:
        """The root number and the path under it; the longest mount wins."""
        for at, root in self.mounts:
            if path.startswith(at):
                return root, path[len(at) :]
        return self.root, path

    def is_mount_without_slash(self, path: bytes) -> bool:
        """Whether `path` is a mount's name without its slash, which is a folder's redirect."""
        return any(at == path + b"/" for at, _ in self.mounts)

    def may_have_siblings(self, path: bytes) -> bool:
        """Whether precompressed siblings are looked for with the file, or the index of the folder, at `path`."""
        return self.precompressed and (not path or path.endswith(b"/") or self._may_shrink(path))

    def _may_shrink(self, path: bytes) -> bool:
        """By its type; a clean path may mean a page."""
        return self.clean or compressible(self.media_type(path))

    def may_compress(self, path: bytes, size: int) -> bool:
        """Whether the file at `path`, of `size` bytes, is compressed for those who accept it."""
        return (
            bool(self.compressions)
            and self.compress_min <= size <= COMPRESS_MOST
            and compressible(self.media_type(path))
        )

    def media_type(self, path: bytes) -> bytes:
        """The Content-Type of the file at `path`."""
        return content_type(path, self.types, self.charset)


class Sites:
    """All sites of one generation; the first is the default."""

    def __init__(self, settings: Settings, roots: Sequence[int]) -> None:
        self.all: list[Site] = []
        self._by_host: dict[bytes, Site] = {}
        self._remembered: dict[bytes, Site] = {}
        left = list(roots)
        for number, site in enumerate(settings.site):
            count = 1 + len(site.mount)
            self.all.append(Site(number, site, left[:count]))
            del left[:count]
            for host in site.hosts:
                self._by_host[host.encode("ascii")] = self.all[-1]

    def choose(self, host: bytes) -> Site:
        """The site of a Host field's value. Raises Refusal 400 for one that is malformed (RFC 9110 7.2)."""
        site = self._remembered.get(host)
        if site is None:
            site = self._by_host.get(normal_host(host), self.all[0])
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            if len(host) <= _LONGEST:
                self._remembered[host] = site
        return site


def normal_host(host: bytes) -> bytes:
    """The host in lower case, without port and final dot. Raises Refusal 400."""
    if not valid_host(host):
        raise Refusal(400, reason="malformed Host")
    name, colon, port = host.rpartition(b":")
    if not colon or b"]" in port:
        name = host
    return name.lower().removesuffix(b".")
