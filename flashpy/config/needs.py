"""What a configuration needs of the server beyond its workers: helpers, libraries. Runs in the master, at load."""

from importlib.util import find_spec

from flashpy.config.machine import usable_memory
from flashpy.config.schema import Settings, Site
from flashpy.config.units import format_size

# The library that a coding or passwords need, and the modules that are it: one of them will do.
_LIBRARIES = {
    "br": ("brotli", ("brotli",)),
    "zstd": ("backports.zstd", ("compression.zstd", "backports.zstd")),
    "auth": ("bcrypt", ("bcrypt",)),
}


def needs_heavy(settings: Settings) -> bool:
    """Whether there is work for heavy helpers: without it they, and their spawner, are not there."""
    return any(reason for site in settings.site for reason in _reasons(site))


def _reasons(site: Site) -> tuple[bool, ...]:
    """Each thing that is done by heavy helpers."""
    return (
        bool(site.compress),  # what is sent is compressed
        site.precompressed and site.verify_precompressed,  # siblings are decoded
        site.etag == "hash",  # contents are digested
        any(rule.auth is not None for rule in site.rule),  # passwords are held against their hashes
    )


def missing_library(what: str) -> str | None:
    """The library that a coding, or "auth", cannot do without, when it is not installed. Nothing of it is loaded."""
    name, modules = _LIBRARIES.get(what, ("", ()))
    return None if not modules or any(map(_is_installed, modules)) else name


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def excess(settings: Settings) -> str | None:
    """A warning when the caches together may outgrow the memory: what was meant for all was given to each."""
    workers, each, there = settings.server.workers, settings.cache.memory, usable_memory()
    if workers * each <= there:
        return None
    memory = f"{format_size(each)} for each of {workers} {'worker' if workers == 1 else 'workers'}"
    return f"[cache] memory, {memory}, is more than the {there >> 20}MiB that there are"


def most_helpers(settings: Settings) -> int:
    """How many helpers a worker may have."""
    return settings.helpers.max + (settings.heavy.max if needs_heavy(settings) else 0)


def most_blocks(settings: Settings) -> int:
    """How many blocks of a worker's cache its helpers may be filling: of heavy ones only those that compress do."""
    compresses = any(site.compress for site in settings.site)
    return settings.helpers.max + (settings.heavy.max if compresses else 0)
