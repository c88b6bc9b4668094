"""All worker processes, of whatever generation: forked, listened to, signalled, reaped.

The master runs this. It knows how, the arbiter knows why: what ended is only noted here, and the
arbiter decides what follows from it.
"""

import socket
import time
from collections.abc import Iterable
from functools import partial
from signal import Signals

from flashpy.boot import Ground
from flashpy.companions import Companion
from flashpy.config import needs_heavy
from flashpy.generation import Escalation, Generation, Worker, stuck
from flashpy.heritage import Heritage
from flashpy.processes import Watch, Work, fork_worker
from flashpy_helpers import channel

_MUTE_SECONDS = 2.0
"""How long a worker may live that has closed its channel."""


class Crew:
    """The workers. ``ended`` collects those reaped, with their status."""

    def __init__(self, ground: Ground, watch: Watch, work: Work) -> None:
        self.workers: set[Worker] = set()
        self.ended: list[tuple[Worker, int]] = []
        self._ground = ground
        self._watch = watch
        self._work = work

    def fill(self, generation: Generation, now: float) -> None:
        """Fork the workers that the generation misses; what fails is tried again later."""
        for number in generation.missing(now):
            index = self._ground.board.claim()
            if index is None:
                self._put_off(generation, number, "too many old processes are still there")
                return
            try:
                self._fork(generation, number, index)
            except OSError as error:
                self._retire(index)
                self._put_off(generation, number, str(error))
                return

    def _retire(self, index: int) -> None:
        self._ground.shares.retire(index)
        self._ground.board.retire(index)

    def _put_off(self, generation: Generation, number: int, why: str) -> None:
        delay = generation.put_off()
        self._ground.logs.log.error(f"worker {number} not started: {why}; again in {delay:.0f} s")

    def _fork(self, generation: Generation, number: int, index: int) -> None:
        slot = self._ground.board.slot(index)
        slot.beat(time.monotonic_ns())
        ours, its = channel.pair()
        try:
            with its:
                heritage = self._bequeath(generation, number, index, its)
                child = fork_worker(self._work, heritage, self._ground.rights)
        except OSError:
            ours.close()
            raise
        worker = Worker(child, ours, generation, number, index, slot)
        generation.workers[number] = worker
        self.workers.add(worker)
        self._watch.add(child.fileno(), partial(self._on_end, worker))
        self._watch.add(ours.fileno(), partial(self._on_word, worker))

    def _bequeath(self, generation: Generation, number: int, index: int, sock: socket.socket) -> Heritage:
        return Heritage(
            settings=generation.settings,
            listeners=tuple(listener.socket for listener in generation.listeners),
            channel=sock,
            spawner=self._ground.spawner.sock(),
            heavy=self._ground.heavy.sock() if needs_heavy(generation.settings) else None,
            log=self._ground.logs.sock(),
            slot=self._ground.board.slot(index),
            share=self._ground.shares.of(index),
            number=number,
            roots=generation.roots,
        )

    def send_channel(self, companion: Companion) -> None:
        """All workers get the new channel of a companion."""
        for worker in self.workers:
            worker.send_channel(companion)

    def pass_on(self, news: bytes) -> None:
        """All workers hear what the watcher tells."""
        for worker in self.workers:
            worker.pass_on(news)

    def dismiss(self, workers: Iterable[Worker], escalation: Escalation) -> None:
        """The end of these is wanted, by these steps; the first ones are carried out now."""
        for worker in workers:
            worker.leaving = True
            worker.escalation = escalation.copy()
            self._carry_out(worker, time.monotonic())

    def turn(self, now: float, *, late: bool) -> None:
        """Send what is still unsent, carry out what is due, look for hearts that stopped.

        ``late``: the master itself did not run, so silence proves nothing.
        """
        for worker in list(self.workers):
            worker.flush()
            self._carry_out(worker, now)
            if not late and not worker.leaving and not worker.escalation:
                self._check_heart(worker, now)

    def _carry_out(self, worker: Worker, now: float) -> None:
        for step in worker.due(now):
            if step is None:
                worker.lost = True
                worker.generation.remove(worker)
                self._ground.logs.log.error(f"{worker} is stuck in the kernel: left behind")
                return
            if step == Signals.SIGKILL:
                self._ground.logs.log.warning(f"{worker} did not end in time: killed")
            worker.child.kill(step)

    def _check_heart(self, worker: Worker, now: float) -> None:
        silence, limit = worker.silent(now), worker.generation.boot_seconds
        if silence > worker.generation.settings.server.worker_timeout:
            why = f"made no turn for {silence:.1f} s"
        elif worker.ready is None and now - worker.born > limit:
            why = f"was not ready within {limit:.0f} s"
        else:
            return
        self._ground.logs.log.error(f"{worker} {why}: stopped by SIGABRT")
        worker.escalation = stuck(now)
        self._carry_out(worker, now)

    def _on_word(self, worker: Worker) -> None:
        if worker.listen():
            return
        self._hang_up(worker)
        if not worker.escalation:
            worker.escalation = stuck(time.monotonic() + _MUTE_SECONDS)

    def _on_end(self, worker: Worker) -> None:
        self._watch.forget(worker.child.fileno())
        status = worker.child.reap() or 0
        worker.listen()  # whether it had been ready
        self._hang_up(worker)
        self.workers.discard(worker)
        worker.generation.remove(worker)
        self._retire(worker.index)
        self.ended.append((worker, status))

    def _hang_up(self, worker: Worker) -> None:
        if worker.sock is not None:
            self._watch.forget(worker.sock.fileno())
            worker.sock.close()
            worker.sock = None
