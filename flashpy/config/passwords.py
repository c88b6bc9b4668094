"""The htpasswd files that rules name, read and put into the settings. Runs in the master, at load.

With the rights of the start, so that a file may be root's alone: workers never open it, and a reload reads it anew.
"""

from pathlib import Path

import msgspec

from flashpy.config.schema import Auth, Rule, Settings, Site
from flashpy.config.source import ConfigError, Key, Source
from flashpy.http.credentials import HtpasswdError, parse_htpasswd


def with_users(settings: Settings, source: Source) -> Settings:
    """Settings that know the users of each `auth`. Raises ConfigError, with the file and the line to blame."""
    sites = tuple(_site(("site", number), site, source) for number, site in enumerate(settings.site))
    return msgspec.structs.replace(settings, site=sites)


def _site(key: Key, site: Site, source: Source) -> Site:
    rules = tuple(_rule((*key, "rule", number), rule, source) for number, rule in enumerate(site.rule))
    return msgspec.structs.replace(site, rule=rules)


def _rule(key: Key, rule: Rule, source: Source) -> Rule:
    if rule.auth is None or not rule.auth.htpasswd:
        return rule
    return msgspec.structs.replace(rule, auth=_auth((*key, "auth", "htpasswd"), rule.auth, source))


def _auth(key: Key, auth: Auth, source: Source) -> Auth:
    path = Path(auth.htpasswd)
    try:
        users = parse_htpasswd(Source.read(path).text)
    except HtpasswdError as error:
        raise ConfigError(str(path), error.line, "", str(error)) from None
    except ConfigError as error:
        if error.line:
            raise
        raise source.error(key, str(error)) from None
    if not users:
        raise source.error(key, f"{path} names no user: nobody could pass")
    return msgspec.structs.replace(auth, users=users)
