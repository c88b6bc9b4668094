"""The master: it keeps the right generation of workers alive. It reads nothing that a client sent.

One loop waits for the ends of processes (pidfds), the workers' channels and signals, and then goes
through what time demands; nothing in it waits for anybody else. What a signal means is one
``match`` (SIGNALS.md). A reload makes all that is new beside the old and lets the old go when the
new is ready: whatever fails before that moment changes nothing.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from signal import Signals

from flashpy.boot import Ground, StartError, prepare
from flashpy.companions import Companion, open_files, wait_for
from flashpy.config import ConfigError, Settings, excess
from flashpy.crew import Crew
from flashpy.generation import Generation, Worker, at_once, graceful
from flashpy.logs import Log
from flashpy.processes import Child, Watch, Work, describe
from flashpy.renewal import Renewal, RenewalError
from flashpy.sockets import Listener, discard

__all__ = ["BOOT_FAILED", "LEFT_BEHIND", "Arbiter", "StartError"]

BOOT_FAILED = 3
"""Exit status when a process died before all workers had been ready once."""
LEFT_BEHIND = 1
"""Exit status when a worker stuck in the kernel had to be left."""

_TICK = 1.0
_BUSY_TICK = 0.1
_LATE = 5.0
_FAREWELL = 2.0


class Arbiter:
    """The master process of a server; ``run`` it once."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings], work: Work | None = None) -> None:
        """``reload`` reads the settings anew or raises ConfigError; ``work`` is what workers do.

        Raises StartError: a port is in use, rights are missing, a file cannot be opened.
        """
        self._read_settings = reload
        self._ground: Ground = prepare(settings)
        self._watch = Watch()
        self._crew = Crew(self._ground, self._watch, work or _worker())
        self._ground.watcher.connect(self._watch, self._crew.pass_on, lambda: self._log)
        roots = self._ground.roots.number(settings)
        self._present = Generation(settings, self._ground.listeners, roots)
        self._coming: Renewal | None = None
        self._again = False
        self._signals: list[Signals] = []
        self._booted = self._stopping = False
        self._status = 0
        self._turned = time.monotonic()
        self._counts = {"restarts": 0, "reloads": 0, "reloads_failed": 0}

    @property
    def _log(self) -> Log:
        return self._ground.logs.log

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        self._watch.add(self._ground.wakeup.fileno(), self._on_signals)
        self._keep_companions(time.monotonic())
        if self._ground.rights.uid == 0:
            self._log.warning("started as root without [server] user: the workers are root too")
        self._warn_of_excess()
        while not self._finished():
            self._turn(time.monotonic())
            self._watch.turn(_BUSY_TICK if self._unsettled() else _TICK)
        return self._farewell()

    def _warn_of_excess(self) -> None:
        warning = excess(self._present.settings)
        if warning:
            self._log.warning(warning)

    def _turn(self, now: float) -> None:
        late = now - self._turned > _TICK + _LATE
        self._turned = now
        self._act()
        self._keep_companions(now)
        self._judge_ends()
        self._progress(now)
        self._crew.turn(now, late=late)
        self._fill(now)
        self._log.flush()

    def _unsettled(self) -> bool:
        if self._stopping or self._coming is not None or not self._booted or self._log.pending:
            return True
        return any(worker.escalation for worker in self._crew.workers)

    def _finished(self) -> bool:
        return self._stopping and all(worker.lost for worker in self._crew.workers)

    def _on_signals(self) -> None:
        self._signals += self._ground.wakeup.read()

    def _act(self) -> None:
        """What each signal means."""
        signals, self._signals = self._signals, []
        for number in signals:
            match number:
                case Signals.SIGTERM if not self._stopping:
                    self._stop()
                case Signals.SIGTERM | Signals.SIGINT | Signals.SIGQUIT:
                    self._stop(hurry=True)
                case _ if self._stopping:
                    pass
                case Signals.SIGHUP:
                    self._reload()
                case Signals.SIGUSR1:
                    self._reopen()
                case Signals.SIGTTIN:
                    self._resize(+1)
                case Signals.SIGTTOU:
                    self._resize(-1)

    def _stop(self, *, hurry: bool = False) -> None:
        if not self._stopping:
            self._log.info("stopping" if hurry else "stopping: the workers finish what they have")
            self._stopping = True
            self._close_listeners()
        if hurry:
            self._crew.dismiss(self._crew.workers, at_once(time.monotonic()))
        else:
            self._drain(self._crew.workers)

    def _close_listeners(self) -> None:
        if self._coming is not None:
            self._coming.abort()
            self._coming = None
        discard(self._present.listeners)

    def _resize(self, by: int) -> None:
        self._present.wanted = max(1, self._present.wanted + by)
        self._log.info(f"{_workers(self._present)} wanted")
        self._drain(self._present.surplus())

    def _drain(self, workers: Iterable[Worker]) -> None:
        """Each within the time of its own generation."""
        for worker in workers:
            timeout = worker.generation.settings.server.graceful_timeout
            self._crew.dismiss([worker], graceful(time.monotonic(), timeout))

    def _reopen(self) -> None:
        logs = self._ground.logs
        try:
            logs.use(open_files(*logs.paths))
            self._start(logs)
        except OSError as error:
            self._log.error(f"logs not reopened: {error}")
        else:
            self._log.info("logs reopened")

    # A reload

    def _reload(self) -> None:
        if self._coming is not None or not self._booted:
            self._again = True
            return
        self._log.info("reloading")
        try:
            self._coming = Renewal(self._read_settings(), self._ground, self._present)
        except (ConfigError, RenewalError, OSError) as error:
            self._not_reloaded(str(error))
        except Exception as problem:
            self._log.bug("reload", problem)
            self._not_reloaded("an error of flashpy's own")

    def _not_reloaded(self, why: str) -> None:
        self._counts["reloads_failed"] += 1
        self._log.error(f"not reloaded, the old settings stay: {why}")

    def _abort_reload(self, why: str) -> None:
        assert self._coming is not None
        self._coming.abort()
        workers = list(self._coming.generation.workers.values())
        self._crew.dismiss(workers, at_once(time.monotonic()))
        self._coming = None
        self._not_reloaded(why)

    def _finish_reload(self, renewal: Renewal) -> None:
        former, self._present, self._coming = self._present, renewal.generation, None
        if renewal.commit():
            self._restart_log_helper()
        self._drain(list(former.workers.values()))
        self._counts["reloads"] += 1
        self._log.info(f"reloaded: {_serving(self._present)}")
        self._warn_of_excess()

    def _restart_log_helper(self) -> None:
        try:
            self._start(self._ground.logs)
        except OSError as error:
            self._log.error(f"the log helper was not replaced: {error}")

    def _progress(self, now: float) -> None:
        """What follows when all workers are ready, or are not in time."""
        if self._stopping:
            return
        if not self._booted and self._present.all_ready():
            self._booted = True
            self._log.info(f"started: {_serving(self._present)}")
            _announce(self._present.listeners)
        if self._coming is not None:
            if self._coming.generation.all_ready():
                self._finish_reload(self._coming)
            elif now > self._coming.deadline:
                self._abort_reload("the new workers were not ready in time")
        if self._again and self._booted and self._coming is None:
            self._again = False
            self._reload()

    # Processes

    def _keep_companions(self, now: float) -> None:
        generations = self._generations()
        self._ground.watcher.want({number: path for one in generations for number, path in one.watched.items()})
        for companion in self._ground.companions():
            if companion.missing(now):
                try:
                    self._start(companion)
                except OSError as error:
                    delay = companion.died()
                    self._log.error(f"no {companion.name}: {error}; again in {delay:.0f} s")
                    if companion.kind:
                        self._check_boot(f"the {companion.name} cannot be started: {error}")

    def _start(self, companion: Companion) -> None:
        child = companion.start()
        self._watch.add(child.fileno(), partial(self._on_companion_end, companion, child))
        if companion.kind:
            self._crew.send_channel(companion)

    def _on_companion_end(self, companion: Companion, child: Child) -> None:
        self._watch.forget(child.fileno())
        status = child.reap() or 0
        if companion.forget_former(child):
            return
        delay = companion.died()
        what = f"the {companion.name} ({child.pid}) ended: {describe(status)}"
        self._log.error(f"{what}; replaced {_when(delay)}")
        if companion.kind:
            self._check_boot(what)

    def _fill(self, now: float) -> None:
        if self._stopping or not all(companion.ready() for companion in self._ground.companions()):
            return
        for generation in self._generations():
            self._crew.fill(generation, now)

    def _generations(self) -> list[Generation]:
        return [self._present, *([self._coming.generation] if self._coming else [])]

    def _judge_ends(self) -> None:
        """Decide what follows from each worker's end."""
        for worker, status in self._crew.ended:
            what = f"{worker} ended: {describe(status)}"
            if worker.leaving or self._stopping or worker.generation not in self._generations():
                (self._log.warning if status > 0 else self._log.debug)(what)
            elif worker.generation is not self._present:
                self._abort_reload(f"the new {what}")
            elif not self._booted and worker.ready is None:
                self._check_boot(f"{what} while booting")
            else:
                delay = worker.generation.failed(worker)
                self._counts["restarts"] += 1
                # Status 0: somebody asked it to end, as Ctrl-C asks every process at once.
                tell = self._log.info if status == 0 else self._log.error
                tell(f"{what}; replaced {_when(delay)}")
        self._crew.ended.clear()

    def _check_boot(self, what: str) -> None:
        """A server that never worked does not try for ever: whoever started it is still there."""
        if self._booted or self._stopping:
            return
        self._log.error(f"not started: {what}")
        if self._ground.logs.child is None or self._present.settings.log.error != "-":
            print(f"flashpy: not started: {what}", file=sys.stderr, flush=True)
        self._status = BOOT_FAILED
        self._stop(hurry=True)

    def _farewell(self) -> int:
        """Nobody serves any more: write the counters, let the companions go, tidy up."""
        ground = self._ground
        if any(worker.lost for worker in self._crew.workers):
            self._status = self._status or LEFT_BEHIND
        deadline = time.monotonic() + _FAREWELL
        for companion in (ground.spawner, ground.heavy, ground.watcher):
            companion.close()
        ground.logs.finish("counters " + json.dumps(self._counters()), deadline)
        for child in (ground.spawner.child, ground.heavy.child, ground.watcher.child):
            if child is not None and not wait_for(child, deadline):
                child.kill(Signals.SIGKILL)
        if ground.pidfile is not None:
            ground.pidfile.remove()
        ground.wakeup.close()
        return self._status

    def _counters(self) -> dict[str, int]:
        counters = self._ground.board.totals() | self._counts
        counters["log_dropped"] += self._log.dropped
        for companion in (self._ground.logs, self._ground.spawner, self._ground.heavy, self._ground.watcher):
            counters[companion.counter] = companion.replaced
        return counters


def _worker() -> Work:
    # Imported here: whoever brings other work needs none of a worker's modules.
    from flashpy.worker import run

    return run


def _serving(generation: Generation) -> str:
    urls = ", ".join(listener.url() for listener in generation.listeners)
    return f"{_workers(generation)} ({os.getpid()} is the master) on {urls}"


def _workers(generation: Generation) -> str:
    return "1 worker" if generation.wanted == 1 else f"{generation.wanted} workers"


def _when(delay: float) -> str:
    return f"in {delay:.0f} s" if delay else "at once"


def _announce(listeners: Iterable[Listener]) -> None:
    with suppress(OSError):  # nobody reads it any more
        for listener in listeners:
            print(f"flashpy: listening on {listener.url()}", flush=True)
