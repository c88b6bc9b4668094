"""What a configuration needs of the server beyond its workers. Values only."""

from flashpy.config.schema import Settings, Site


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


def most_helpers(settings: Settings) -> int:
    """How many helpers a worker may have."""
    return settings.helpers.max + (settings.heavy.max if needs_heavy(settings) else 0)


def most_blocks(settings: Settings) -> int:
    """How many blocks of a worker's cache its helpers may be filling: of heavy ones only those that compress do."""
    compresses = any(site.compress for site in settings.site)
    return settings.helpers.max + (settings.heavy.max if compresses else 0)
