"""All that a worker gets from the master: the complete list. Made by the master, read by a worker.

What is not here a forked worker closes first, before it reads anything: another worker's channel
held open would hide its death, and a descriptor of a file could make a worker wait for a disk.
"""

import os
import socket
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flashpy.config import Settings
from flashpy.scoreboard import Slot
from flashpy.shares import Share
from flashpy_helpers import wire

READY, NEW_LOG, NEW_SPAWNER, NEW_HEAVY = b"R", b"L", b"S", b"H"
"""What is said on a worker's channel: it to the master; the master to it, with the end of a channel.

Besides these the master passes on what the watcher tells (`flashpy_helpers.news`), as it is."""


@dataclass(frozen=True, slots=True)
class Heritage:
    """What one worker inherits."""

    settings: Settings
    """Frozen; the workers of one generation share it."""
    listeners: tuple[socket.socket, ...]
    """In the order of ``settings.server.listen``; non-blocking, options set."""
    channel: socket.socket
    """To the master: send READY; read the others, NEW_LOG ..., and news; at its end drain as on TERM."""
    spawner: socket.socket
    """Shared with all workers: each record asks for one helper."""
    heavy: socket.socket | None
    """The same for heavy helpers; None when the settings need none."""
    log: socket.socket
    """Shared with all workers and the master: records to the log helper."""
    slot: Slot
    """This process's counters and heartbeat."""
    share: Share
    """What each client has used, as this process sees and counts it."""
    number: int
    """Its place in its generation, from 0."""
    roots: tuple[int, ...]
    """The number of each root: site by site the site's own, then its mounts' in order."""

    def descriptors(self) -> list[int]:
        """The descriptors that a worker keeps, besides the standard ones."""
        shared = (self.channel, self.spawner, self.log, *([self.heavy] if self.heavy else []))
        return [sock.fileno() for sock in (*self.listeners, *shared)]


_POLICIES = {"inside": wire.INSIDE, "deny": wire.DENY, "follow": wire.FOLLOW}


def rooted(settings: Settings) -> Iterator[wire.Root]:
    """Every folder that a configuration serves, in the order of ``Heritage.roots``."""
    for site in settings.site:
        index = tuple(map(os.fsencode, site.index))
        for folder in (site.root, *(mount.root for mount in site.mount)):
            policy = _POLICIES[site.symlinks]
            types = zlib.crc32(repr(sorted(site.types.items())).encode()) if site.precompressed else 0
            ways = (site.clean_urls, site.listing != "off", site.dotfiles, site.precompressed, types)
            yield wire.Root(os.fsencode(folder), index, policy, *ways)


def watched(settings: Settings, roots: Sequence[int]) -> dict[int, bytes]:
    """The folders of sites with ``watch``, by their numbers; ``roots`` is as in ``Heritage``."""
    flags = [site.watch for site in settings.site for _ in (site, *site.mount)]
    folders = zip(roots, rooted(settings), flags, strict=True)
    return {number: root.path for number, root, watch in folders if watch}
