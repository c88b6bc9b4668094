"""Whether the roots can be served on this machine. Runs in the master, before it changes anything.

Apart from load(), which must also work where the folders are not.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from flashpy import privileges
from flashpy.config import probe
from flashpy.config.schema import Settings
from flashpy.config.source import ConfigError, Key, Source

# A root that does not answer for so long would cost every request a 504.
_PATIENCE = 10.0


def check_roots(settings: Settings, path: Path | None = None) -> None:
    """Raises ConfigError for a root that is no folder or that the workers may not read.

    `path` is the configuration that named the roots, for the error's line.
    """
    roots = list(_roots(settings))
    answer = _ask(settings, [root for _, root in roots])
    if answer is None:
        raise _error(path, (), f"the roots do not answer within {_PATIENCE:g} s")
    number, _, problem = answer.partition(" ")
    if number:
        key, root = roots[int(number)]
        user = settings.server.user
        by = f" (by the user {user})" if user and "cannot" in problem else ""
        raise _error(path, key, f"{root} {problem}{by}")


def _roots(settings: Settings) -> Iterator[tuple[Key, str]]:
    for number, site in enumerate(settings.site):
        yield ("site", number, "root"), site.root
        for position, mount in enumerate(site.mount):
            yield ("site", number, "mount", position, "root"), mount.root


def _ask(settings: Settings, roots: list[str]) -> str | None:
    """What the probe printed; None when it does not end. It is left then, not waited for."""
    rights = _rights(settings)
    groups = ",".join(map(str, rights.groups))
    words = [str(rights.uid), str(rights.gid), groups, *roots]
    command = [sys.executable, "-I", "-S", probe.__file__, *words]
    # No "with": it would wait for a process that is stuck in the kernel.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    try:
        return process.communicate(timeout=_PATIENCE)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def _rights(settings: Settings) -> privileges.Rights:
    """Those of the workers. Who may not take them is told so when the server starts."""
    try:
        return privileges.resolve(settings.server.user, settings.server.group)
    except (LookupError, PermissionError):
        return privileges.current()


def _error(path: Path | None, key: Key, message: str) -> ConfigError:
    if path is None:
        return ConfigError("", 0, "", message)
    return Source.read(path).error(key, message)
