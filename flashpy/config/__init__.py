"""Settings: TOML -> frozen structs, or a ConfigError with file, line and key. Runs in the master.

Workers get the finished Settings by fork. `schema` is the only home of defaults.
"""

from flashpy.config.load import for_folder, load
from flashpy.config.needs import excess, most_helpers, needs_heavy
from flashpy.config.render import to_toml
from flashpy.config.roots import check_roots
from flashpy.config.rulecheck import cache_control
from flashpy.config.schema import (
    Auth,
    Cache,
    Heavy,
    Helpers,
    Limits,
    Listen,
    Log,
    Mount,
    Redirect,
    Rule,
    Server,
    Settings,
    Site,
)
from flashpy.config.source import ConfigError

__all__ = [
    "Auth",
    "Cache",
    "ConfigError",
    "Heavy",
    "Helpers",
    "Limits",
    "Listen",
    "Log",
    "Mount",
    "Redirect",
    "Rule",
    "Server",
    "Settings",
    "Site",
    "cache_control",
    "check_roots",
    "excess",
    "for_folder",
    "load",
    "most_helpers",
    "needs_heavy",
    "to_toml",
]
