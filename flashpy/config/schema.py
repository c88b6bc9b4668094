"""The settings, their defaults and their bounds: the only home of either. Values only.

Each default has its reason beside it, mostly what other servers chose. Numbers of limits, caches
and helpers are per worker. After load() times are seconds (float) and sizes are bytes (int), paths
are absolute, and everything is frozen. `Meta(extra={"unit": ...})` tells the reader and the writer
of TOML how a value is written; a bound stands here and nowhere else.
"""

import socket
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from flashpy.config.machine import cache_memory, usable_cores

KIB, MIB = 1 << 10, 1 << 20
DAY = 86400.0

# What `memory` is worked out from, so these defaults have names.
CHUNK = 512 * KIB
MAX_HELPERS = 16
# A chunk cache below this is no cache; one more than the helpers for each reply under way.
LEAST_AUTO_CHUNKS = 8
# Blocks beyond one per helper: the reply being sent needs two (one sent, one loading).
SPARE_CHUNKS = 2
# Everyone may connect, as with a TCP port; who should not is kept out by the folder's rights.
SOCKET_MODE = 0o666


# The unit of what is no key: load() puts it in.
LOADED = "loaded"


def _time(least: float, most: float) -> Meta:
    return Meta(ge=least, le=most, extra={"unit": "time"})


def _size(least: int, most: int) -> Meta:
    return Meta(ge=least, le=most, extra={"unit": "size"})


def _unit(name: str) -> Meta:
    return Meta(extra={"unit": name})


Workers = Annotated[int, Meta(ge=1, le=1024, extra={"unit": "workers"})]


class Listen(Struct, frozen=True, forbid_unknown_fields=True):
    """One address to listen on: "host:port", "[v6]:port" or "unix:PATH"."""

    address: str
    # Rights of a unix socket's file; without meaning for TCP.
    mode: Annotated[int, Meta(ge=0, le=0o777, extra={"unit": "mode"})] = SOCKET_MODE
    # A listener either always has the header or never: guessing would let clients choose their address.
    proxy_protocol: bool = False

    @property
    def family(self) -> socket.AddressFamily:
        """AF_UNIX, AF_INET6 for a host in brackets, else AF_INET."""
        if self.address.startswith("unix:"):
            return socket.AF_UNIX
        return socket.AF_INET6 if self.address.startswith("[") else socket.AF_INET

    @property
    def host(self) -> str:
        """The host name or address without brackets; "" for a unix socket."""
        if self.family == socket.AF_UNIX:
            return ""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 means one that the kernel chooses, and is also given for a unix socket."""
        return 0 if self.family == socket.AF_UNIX else int(self.address.rpartition(":")[2])

    @property
    def path(self) -> str | None:
        """The path of a unix socket; None for TCP."""
        return self.address.removeprefix("unix:") if self.family == socket.AF_UNIX else None


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[server]: where to listen, how many processes, with whose rights."""

    # Loopback only: what is open to the world is so because someone wrote it down.
    listen: Annotated[tuple[Listen, ...], _unit("listen")] = (Listen(address="127.0.0.1:8080"),)
    # Nobody: whoever is believed can put any address in the log. Addresses, networks, "unix:".
    trusted_proxies: Annotated[tuple[str, ...], _unit("proxies")] = ()
    # "auto": one event loop a usable core, as nginx advises.
    workers: Workers = field(default_factory=usable_cores)
    # A name or an id, in digits. None, "" in the file: the rights that it was started with.
    user: Annotated[str | None, _unit("account")] = None
    # None: the user's own groups.
    group: Annotated[str | None, _unit("account")] = None
    # As gunicorn's. The kernel cuts it to net.core.somaxconn (4096 since Linux 5.4).
    backlog: Annotated[int, Meta(ge=1, le=65535)] = 2048
    # None, "" in the file: none. A service manager knows the process without one.
    pidfile: Annotated[str | None, _unit("path or nothing")] = None
    # Whether replies have an X-Request-ID: it costs each of them the way from memory.
    request_id: bool = False
    # As gunicorn's: long enough for most downloads, short enough for a service manager (90 s).
    graceful_timeout: Annotated[float, _time(0, DAY)] = 30.0
    # As gunicorn's. A turn of the loop takes microseconds, so this is a stuck process, not a slow.
    worker_timeout: Annotated[float, _time(1, DAY)] = 30.0


class Helpers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[helpers]: the processes that may wait for a file system, per worker."""

    # One for lookups and one that can revalidate while the first reads.
    min: Annotated[int, Meta(ge=1, le=256)] = 2
    # Keeps a disk's queue full (NCQ has 32 places for all workers) and is still few processes.
    max: Annotated[int, Meta(ge=2, le=256)] = MAX_HELPERS
    # Jobs that may wait: at 1 ms a job the last one waits 64 ms. Beyond it 503 is kinder.
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024
    # From the start of the wait to 504: longer than any disk that works, shorter than a client.
    timeout: Annotated[float, _time(0.001, DAY)] = 30.0


class Heavy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[heavy]: helpers that compress, verify siblings, digest, check passwords, per worker; none without such work."""

    # None: the first job of a while waits some milliseconds more for its helper, and an idle site has none.
    min: Annotated[int, Meta(ge=0, le=64)] = 0
    # So that a page with its images is looked after at once; they stand back behind all else anyway.
    max: Annotated[int, Meta(ge=1, le=64)] = 4
    # Jobs that may wait: at 10 ms a job the last one waits 0.3 s. Beyond it the file goes out as it is.
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    # The most dear of jobs take some seconds of a core; of a busy one the helpers get but a tenth.
    timeout: Annotated[float, _time(0.001, DAY)] = 30.0


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[cache]: what a worker holds in memory."""

    # Paths with their facts, as many as Flash had; missing ones have a quarter more.
    paths: Annotated[int, Meta(ge=4, le=10_000_000)] = 6000
    # Contents, in whole chunks. "auto": a quarter of the memory, shared by the workers.
    memory: Annotated[int, Meta(ge=1, le=1 << 50, extra={"unit": "memory"})] = field(
        default_factory=lambda: auto_memory(usable_cores(), CHUNK, MAX_HELPERS)
    )
    # The largest block and unit of reading: 2 ms of a disk of 125 MB/s, seldom more than a page
    # with its images needs.
    chunk: Annotated[int, _size(64 * KIB, 4 * MIB)] = CHUNK
    # mlock needs a right that most do not have; without swap it does nothing.
    lock: bool = False
    # A changed file shows after about this long; nginx's open_file_cache_valid is 60 s.
    revalidate: Annotated[float, _time(0, DAY)] = 1.0
    # The bound on how stale a reply may ever be, also when the disk is too slow to ask.
    max_stale: Annotated[float, _time(0, DAY)] = 10.0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[limits]: what one client, or all of a worker's together, may take."""

    # From the first byte to the end of the head, absolute: slow senders do not stretch it.
    header_timeout: Annotated[float, _time(0.001, DAY)] = 10.0
    # nginx's keepalive_timeout.
    idle_timeout: Annotated[float, _time(0.001, DAY)] = 75.0
    # nginx's send_timeout: no progress for so long, not the whole reply.
    send_timeout: Annotated[float, _time(0.001, DAY)] = 60.0
    # nginx (large_client_header_buffers) and Apache (LimitRequestLine) both take 8 KiB.
    request_line: Annotated[int, _size(16, MIB)] = 8 * KIB
    # nginx: 4 buffers of 8 KiB.
    header_bytes: Annotated[int, _size(64, 16 * MIB)] = 32 * KIB
    # Apache's LimitRequestFields; the parser holds 256 at most.
    header_fields: Annotated[int, Meta(ge=1, le=250)] = 100
    # nginx's client_max_body_size. A body is read and dropped here.
    body: Annotated[int, _size(0, 1 << 40)] = MIB
    # Under 3 KB each when idle: 30 MB. The descriptor limit must allow them.
    connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    # Requests on one connection; 0: no limit. Nothing leaks here that a limit would hide.
    keepalive_requests: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    # Of one address at a time, in all workers; 0: no limit. Many people may stand behind one address.
    client_connections: Annotated[int, Meta(ge=0, le=65_535)] = 0
    # Of one address in a second; 0: no limit.
    client_requests: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # So many at once after a pause; 0: those of a second, so that a page with its images is no offence.
    client_burst: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # Of a connection's reply in a second; 0: no limit.
    rate: Annotated[int, _size(0, 1 << 40)] = 0
    # Before that begins: pages come at once, and downloads in measure.
    rate_after: Annotated[int, _size(0, 1 << 50)] = MIB


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[log]: "-" is standard output for access and standard error for error."""

    access: Annotated[str, _unit("access log")] = "-"
    error: Annotated[str, _unit("error log")] = "-"
    # What every analyser reads, and what the way of a hit is made for.
    format: str = "combined"
    error_format: Literal["text", "json"] = "text"
    # All of them: who counts by the log must say that it is not whole. Errors are always written.
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    level: Literal["debug", "info", "warning", "error"] = "info"


class Mount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[site.mount]]: another folder under a path of the site."""

    at: str
    root: Annotated[str, _unit("path")]


class Redirect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`redirect` of a rule."""

    to: str
    # Browsers keep permanent ones: a mistake could not be taken back.
    status: Literal[301, 302, 303, 307, 308] = 302


class Auth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auth` of a rule: Basic authentication."""

    # bcrypt hashes, read at load; "": whoever comes may pass, also where a rule before asked for a password.
    htpasswd: Annotated[str, _unit("path or empty")]
    # What a browser shows, and under which it keeps a password.
    realm: str = "restricted"
    # What the file says: no key of the configuration, put in by load().
    users: Annotated[dict[str, str], _unit(LOADED)] = {}


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[site.rule]]: what some paths of the site get; all that match apply, in order."""

    match: Annotated[tuple[str, ...], _unit("texts")]
    # "" takes a field of the site away.
    headers: dict[str, str] = {}
    # "immutable", "no-cache", "no-store" or a time; "": nothing is said.
    cache: str = ""
    redirect: Redirect | None = None
    # Another path of the site; "": none.
    rewrite: str = ""
    deny: bool = False
    auth: Auth | None = None
    # Origins that may read replies, or "*".
    cors: Annotated[tuple[str, ...], _unit("texts")] = ()


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[site]]: a folder and how it is served; the first one is the default."""

    # Only the first site may have none.
    hosts: Annotated[tuple[str, ...], _unit("hosts")] = ()
    root: Annotated[str, _unit("path")]
    # Every server's first choice.
    index: tuple[str, ...] = ("index.html",)
    # nginx's autoindex is off too: what a folder holds is its owner's affair.
    listing: Literal["off", "html", "json"] = "off"
    # Two addresses for one page are a choice, not a default.
    clean_urls: bool = False
    headers: dict[str, str] = {}
    # A link that leaves the root publishes what nobody meant to; one that stays is harmless.
    symlinks: Literal["inside", "deny", "follow"] = "inside"
    # .git, .env: served by mistake only. /.well-known/ is always served (RFC 8615).
    dotfiles: bool = False
    # Who made `a.css.br` wants it sent; where there is none it costs three names more at a miss.
    precompressed: bool = True
    # It takes a watch of the kernel's for every folder, and revalidation finds the same a second later.
    watch: bool = False
    # A sibling that does not decode would break a page; to know it costs one decoding of each.
    verify_precompressed: bool = True
    # Nothing: the processor is the worker's, and what is compressed beforehand is smaller.
    compress: tuple[Literal["br", "zstd", "gzip"], ...] = ()
    # Below it the fields of a coding and the client's work cost more than one packet saves.
    compress_min: Annotated[int, _size(0, 16 * MIB)] = KIB
    # The version costs nothing. A digest is the same on every host, and is read for once for each version.
    etag: Literal["identity", "hash", "off"] = "identity"
    # WHATWG: all text is UTF-8. "": no charset parameter.
    charset: str = "utf-8"
    # Extension without its dot, lower-case -> media type, before our own table.
    types: Annotated[dict[str, str], _unit("types")] = {}
    # Bundles of rules for common needs; a rule of the site's own is stronger.
    preset: tuple[Literal["spa", "hashed-assets", "secure-headers"], ...] = ()
    # Status -> path of the site.
    error_page: dict[str, str] = {}
    rule: tuple[Rule, ...] = ()
    mount: tuple[Mount, ...] = ()


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration, as load() returns it."""

    server: Server = field(default_factory=lambda: Server())
    helpers: Helpers = Helpers()
    heavy: Heavy = Heavy()
    cache: Cache = field(default_factory=lambda: Cache())
    limits: Limits = Limits()
    log: Log = Log()
    site: tuple[Site, ...]


def least_chunks(helpers: int) -> int:
    """Chunks without which a worker could not keep `helpers` helpers busy."""
    return helpers + SPARE_CHUNKS


def auto_memory(workers: int, chunk: int, helpers: int) -> int:
    """`memory = "auto"`: bytes of content cache for one of `workers` workers."""
    return cache_memory(workers, chunk, max(LEAST_AUTO_CHUNKS, least_chunks(helpers)))
