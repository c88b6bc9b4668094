"""What the master makes before the first fork. The master runs this, once.

The order is the design: limits and rights (nothing is touched when they do not do), sockets, logs,
scoreboard, signals, pid file. Whoever reads the pid file finds a process that understands signals
and owns its ports. What was made is unmade when a later step fails.
"""

import resource
from contextlib import ExitStack
from dataclasses import dataclass

from flashpy.companions import Companion, HeavySpawner, LogHelper, Roots, Spawner, open_files
from flashpy.config import Settings, most_helpers, needs_heavy
from flashpy.pidfile import Pidfile
from flashpy.privileges import Rights, resolve
from flashpy.processes import open_standard
from flashpy.scoreboard import Scoreboard
from flashpy.shares import Shares
from flashpy.signals import MASTER, Wakeup
from flashpy.sockets import BindError, Listener, bind_all, discard
from flashpy.watching import Watcher

_LEAST_SLOTS = 64
_SLOTS_PER_WORKER = 4
_OTHER_DESCRIPTORS = 32
"""Standard ones, channels, epoll, the content cache, and room for what is being replaced."""


class StartError(Exception):
    """The server cannot start; the message is for the user."""


@dataclass(slots=True)
class Ground:
    """What all generations stand on."""

    rights: Rights
    listeners: tuple[Listener, ...]
    board: Scoreboard
    shares: Shares
    wakeup: Wakeup
    pidfile: Pidfile | None
    roots: Roots
    spawner: Spawner
    heavy: HeavySpawner
    logs: LogHelper
    watcher: Watcher

    def companions(self) -> tuple[Companion, ...]:
        """The processes beside the workers; the log helper first, to hear of the others."""
        return self.logs, self.spawner, *([self.heavy] if self.heavy.wanted else []), self.watcher


def prepare(settings: Settings) -> Ground:
    """Everything but processes. Raises StartError, having undone all that outlives it."""
    server = settings.server
    with ExitStack() as undo:
        try:
            open_standard()
            check_descriptors(settings)
            rights = resolve(server.user, server.group)
            listeners = bind_all(server.listen, server.backlog)
            undo.callback(discard, listeners)
            logs = LogHelper(rights, settings.log)
            logs.use(open_files(*logs.paths))
            slots = max(_LEAST_SLOTS, _SLOTS_PER_WORKER * server.workers)
            board, shares = Scoreboard(slots), Shares(slots)
            wakeup = Wakeup(MASTER)
            undo.callback(wakeup.close)
            pidfile = Pidfile(server.pidfile) if server.pidfile else None
        except (BindError, LookupError, OSError) as error:
            raise StartError(words(error)) from None
        undo.pop_all()
    roots = Roots()
    spawner, heavy = Spawner(rights, roots), HeavySpawner(rights, roots, wanted=needs_heavy(settings))
    return Ground(rights, listeners, board, shares, wakeup, pidfile, roots, spawner, heavy, logs, Watcher(rights))


def check_descriptors(settings: Settings) -> None:
    """Raise the soft limit to the hard one. Raises OSError when a worker needs more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Helpers that were written off keep their channels, at most as many again.
    needed = settings.limits.connections + 2 * most_helpers(settings)
    needed += len(settings.server.listen) + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise OSError(
            f"[limits] connections = {settings.limits.connections} needs {needed} descriptors in "
            f"each worker, and the hard limit is {hard} (ulimit -Hn): lower one or raise the other"
        )


def words(error: Exception) -> str:
    """An error as a sentence: what, and with which file."""
    if isinstance(error, OSError) and error.strerror is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror.lower()}"
    return str(error)
