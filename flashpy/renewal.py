"""A reload under way: what is new, and how to be rid of it. The master runs this.

All that can fail is done first, beside what runs: the rights looked up, new addresses bound, new
logs opened, a new pid file written. Then the new workers are forked; when all are ready ``commit``
puts the new in place, which cannot fail, or else ``abort`` takes it away again.
"""

import time
from contextlib import ExitStack

from flashpy.boot import Ground, check_descriptors, words
from flashpy.companions import Files, open_files
from flashpy.config import Settings, needs_heavy
from flashpy.generation import Generation
from flashpy.pidfile import Pidfile
from flashpy.privileges import resolve
from flashpy.sockets import BindError, bind_all, discard, retune


class RenewalError(Exception):
    """The new settings cannot be put in place; the message is for the user."""


class Renewal:
    """A new generation beside the present one. Raises RenewalError, with nothing changed."""

    def __init__(self, settings: Settings, ground: Ground, present: Generation) -> None:
        self._ground = ground
        self._present = present
        self._undo = ExitStack()
        self._files: Files | None = None
        self._pidfile = ground.pidfile
        try:
            self.generation = self._prepare(settings)
        except (BindError, LookupError, OSError) as error:
            self._undo.close()
            raise RenewalError(words(error)) from None
        self.deadline = time.monotonic() + self.generation.boot_seconds

    def _prepare(self, settings: Settings) -> Generation:
        server, ground, kept = settings.server, self._ground, self._present.listeners
        if resolve(server.user, server.group) != ground.rights:
            raise OSError("another user or group needs a restart")
        if server.workers > ground.board.free():
            raise OSError(f"{server.workers} workers more are too many: this needs a restart")
        check_descriptors(settings)
        listeners = bind_all(server.listen, server.backlog, kept)
        self._undo.callback(discard, [one for one in listeners if one not in kept])
        before = self._present.settings.log
        if (
            settings.log.access,
            settings.log.error,
        ) != ground.logs.paths or settings.log.error_format != before.error_format:
            self._files = open_files(settings.log.access, settings.log.error)
            self._undo.callback(self._files.close)
        if server.pidfile != self._present.settings.server.pidfile:
            self._pidfile = Pidfile(server.pidfile) if server.pidfile else None
            if self._pidfile is not None:
                self._undo.callback(self._pidfile.remove)
        if needs_heavy(settings) and not ground.heavy.wanted:
            ground.heavy.wanted = True  # from now on it is kept, and no worker is forked before it is there
            self._undo.callback(ground.heavy.release)
        return Generation(settings, listeners, ground.roots.number(settings))

    def commit(self) -> bool:
        """Put the new in place; whether the log helper is to be started anew.

        The workers of the generation before are the caller's business.
        """
        self._undo.pop_all()
        ground, fresh, kept = self._ground, self.generation, self._present.listeners
        settings = fresh.settings
        retune(fresh.listeners, settings.server.listen, settings.server.backlog)
        discard(one for one in kept if one not in fresh.listeners)
        if ground.pidfile is not None and ground.pidfile is not self._pidfile:
            ground.pidfile.remove()
        ground.pidfile = self._pidfile
        if ground.heavy.wanted and not needs_heavy(settings):
            ground.heavy.release()
        ground.logs.set_level(settings.log.level, settings.log.error_format)
        if self._files is None:
            return False
        ground.logs.paths = (settings.log.access, settings.log.error)
        ground.logs.use(self._files)
        return True

    def abort(self) -> None:
        """Take away what is new; its workers are the caller's business."""
        self._undo.close()
