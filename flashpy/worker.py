"""WORKER: the composition root of one server process, and its life from boot to exit.

The main process of Flash: one loop that serves what is in memory. After its boot it opens nothing, maps no file and
holds no descriptor of one; whatever can wait for a file system is a helper's. The parts know each other only as far as
they are wired together here.
"""

import ctypes
import faulthandler
import fcntl
import gc
import mmap
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable

from flashpy import signals
from flashpy.accept import Acceptor
from flashpy.answer import Answerer
from flashpy.cache.chunks import Chunks
from flashpy.cache.pathnames import Pathnames
from flashpy.changes import Changes
from flashpy.config import Heavy, Helpers
from flashpy.content import Content
from flashpy.findings import Findings
from flashpy.guard import Guard
from flashpy.helperpool import HelperPool
from flashpy.heritage import NEW_HEAVY, NEW_LOG, NEW_SPAWNER, READY, Heritage, rooted
from flashpy.http.peers import Trusted
from flashpy.loglines import lines_of
from flashpy.logs import Log
from flashpy.loop import READ, Loop
from flashpy.meter import Meter
from flashpy.representations import Representations
from flashpy.service import Service
from flashpy.sites import Sites
from flashpy.store import HelperStore
from flashpy_helpers import channel, news

TICK_SECONDS = 0.25
SWEEP_SECONDS = 1.0
_M_MXFAST = 1


def run(heritage: Heritage) -> int:
    """Be a worker until told to stop; the exit status. Called in the forked child, signals still blocked."""
    worker = Worker(heritage)
    worker.serve()
    return 0


def make_memory(size: int, *, lock: bool) -> tuple[int, mmap.mmap]:
    """The content cache's memory file (sealed against shrinking) and its map; pages are taken when first written."""
    fd = os.memfd_create("flashpy-cache", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    memory = mmap.mmap(fd, size)
    if lock:
        _lock_memory(memory, size)
    return fd, memory


def _lock_memory(memory: mmap.mmap, size: int) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)):
        problem = os.strerror(ctypes.get_errno())
        raise OSError(f"cache.lock: cannot lock {size} bytes of memory: {problem}")


def _end_of_channel(fd: int) -> socket.socket:
    # Said rather than asked of the kernel: a worker's system calls are few and known.
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)


def _tune_malloc() -> None:
    """Have glibc keep no fast bins: each buffer of a receive would make it sort them out, 1.5 % of a hit."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MXFAST, 0)


def _meter(heritage: Heritage, loop: Loop) -> Meter | None:
    limits = heritage.settings.limits
    return Meter(heritage.share, limits, loop) if limits.client_connections or limits.client_requests else None


def _nothing() -> None:
    """A heavy helper is waited for by nobody's start."""


class Worker:
    """One server process."""

    def __init__(self, heritage: Heritage) -> None:
        settings = heritage.settings
        self._slot, self._channel = heritage.slot, heritage.channel
        self._log = Log(heritage.log, settings.log.level, settings.log.error_format)
        self._loop = loop = Loop(self._on_error)
        self._memory_fd, memory = make_memory(settings.cache.memory, lock=settings.cache.lock)
        self._chunks = chunks = Chunks(memoryview(memory), settings.cache.chunk)
        cache = settings.cache
        self._pathnames = Pathnames(cache.paths, chunks, cache.revalidate, cache.max_stale)
        findings = Findings()
        ways = dict(zip(heritage.roots, rooted(settings), strict=True))
        folders = {number: way.path for number, way in ways.items()}
        log = self._log
        self._store = HelperStore(chunks, self._pathnames, time.time, log.error, log.warning, findings, folders)
        roots = len(folders)
        self._pool = self._make_pool(heritage.spawner, settings.helpers, roots, self._ready)
        self._heavy = None
        if heritage.heavy is not None:
            self._heavy = self._make_pool(heritage.heavy, settings.heavy, roots, _nothing)
        self._changes = Changes(self._pathnames, self._pool.doubt, ways)
        content = Content(chunks, secrets.token_hex(8))
        self._service = Service(
            loop,
            self._log,
            settings.limits,
            Sites(settings, heritage.roots),
            self._pathnames,
            chunks,
            content,
            Answerer(
                self._pathnames,
                content,
                cache.chunk,
                Representations(chunks, findings, self._is_heavy_busy),
                Guard(findings),
            ),
            self._pool,
            lines_of(settings, heritage.number, lambda: loop.now),
            meter=_meter(heritage, loop),
            heavy=self._heavy,
        )
        server = settings.server
        trusted = Trusted(server.trusted_proxies) if server.trusted_proxies else None
        self._acceptor = Acceptor(self._service, heritage.listeners, server.listen, trusted)
        self._wakeup = signals.Wakeup(signals.WORKER)
        self._is_ready = False
        self._last_sweep = loop.now

    def _make_pool(
        self, spawner: socket.socket, wanted: Helpers | Heavy, roots: int, on_greeting: Callable[[], None]
    ) -> HelperPool:
        return HelperPool(
            self._loop,
            self._store,
            spawner,
            self._memory_fd,
            least=wanted.min,
            most=wanted.max,
            queue=wanted.queue,
            timeout=wanted.timeout,
            roots=roots,
            report=self._log.error,
            on_greeting=on_greeting,
        )

    def _is_heavy_busy(self) -> bool:
        return self._heavy is not None and self._heavy.busy

    def _pools(self) -> list[HelperPool]:
        return [self._pool, *([self._heavy] if self._heavy is not None else [])]

    def serve(self) -> None:
        """Boot, then turn the loop until it is stopped."""
        faulthandler.enable()
        loop = self._loop
        loop.add(self._wakeup.fileno(), READ, self._on_signal)
        loop.add(self._channel.fileno(), READ, self._on_master)
        loop.every_turn(self._end_turn)
        self._tick()
        for pool in self._pools():
            pool.start()
        _tune_malloc()
        # Nothing that a connection makes forms a cycle, so a collection would only cost time.
        gc.collect()
        gc.freeze()
        gc.disable()
        loop.run()
        for pool in self._pools():
            pool.close()
        self._tell_scoreboard()
        self._log.flush()

    def _ready(self) -> None:
        """The first helper has said hello: listen, and say so to the master."""
        if not self._is_ready:
            self._is_ready = True
            self._acceptor.open()
            channel.send(self._channel, READY)

    # What happens in every turn, and several times a second

    def _end_turn(self) -> None:
        """After the events of a turn; what did not happen in it costs one test."""
        service, store = self._service, self._store
        now = self._loop.now
        if now >= service.next_settling:
            service.settle_answered()
        if now >= service.next_second:
            service.read_clock()
        if store.brought:
            store.end_turn()
        if self._pathnames.stale:
            store.check_stale(self._pool)
        if service.draining and not service.connections:
            self._loop.stop()

    def _tick(self) -> None:
        loop = self._loop
        loop.later(TICK_SECONDS, self._tick)
        self._slot.beat(time.monotonic_ns())
        self._tell_scoreboard()
        self._log.flush()
        for pool in self._pools():
            pool.tick()
        self._acceptor.tick()
        self._store.check_stale(self._pool)
        if loop.now - self._last_sweep >= SWEEP_SECONDS or self._service.draining:
            self._last_sweep = loop.now
            for connection in list(self._service.connections.values()):
                connection.check_time(loop.now)

    def _tell_scoreboard(self) -> None:
        self._service.settle_answered()
        service, pool, heavy, chunks = self._service, self._pool, self._heavy, self._chunks
        counts = service.counts
        self._slot.store(
            (
                counts.requests,
                counts.memo_hits,
                counts.hits,
                counts.misses,
                counts.stale,
                pool.joined,
                *counts.statuses[2:6],
                counts.bytes,
                counts.accepted,
                len(service.connections),
                counts.timeouts,
                counts.disconnects,
                counts.proxy_refused,
                counts.limited,
                pool.jobs,
                pool.deaths,
                pool.write_offs,
                pool.refused,
                *((0, 0, 0, 0) if heavy is None else (heavy.jobs, heavy.deaths, heavy.write_offs, heavy.refused)),
                chunks.evictions,
                chunks.arena.used,
                chunks.pinned,
                self._store.revalidations,
                self._log.dropped,
                self._log.errors,
            )
        )

    # What the master and the system say

    def _on_master(self, _mask: int) -> None:
        try:
            record = channel.receive(self._channel)
        except EOFError:
            self._loop.remove(self._channel.fileno())
            self._drain()
            return
        if record is None:
            return
        kind, fds = record[0][:1], record[1]
        if kind == news.CHANGES:
            self._changes.hear(record[0], self._loop.now)
        elif kind == NEW_LOG and len(fds) == 1:
            self._log.rebind(_end_of_channel(fds[0]))
        elif kind == NEW_SPAWNER and len(fds) == 1:
            self._pool.rebind(_end_of_channel(fds[0]))
        elif kind == NEW_HEAVY and len(fds) == 1 and self._heavy is not None:
            self._heavy.rebind(_end_of_channel(fds[0]))
        else:
            channel.close(fds)

    def _on_signal(self, _mask: int) -> None:
        for number in self._wakeup.read():
            if number == signal.SIGTERM:
                self._drain()
            else:
                self._loop.stop()

    def _drain(self) -> None:
        """Take no more clients, answer what is under way, and end when the last one has gone."""
        service = self._service
        if service.draining:
            return
        service.drain()
        self._acceptor.close()
        for lane in self._acceptor.lanes:
            lane.forget()

    def _on_error(self, fd: int, problem: Exception) -> None:
        """A handler raised: a bug of ours. It costs the client whose event it was, and nobody else."""
        connection = self._service.connections.get(fd)
        if connection is not None:
            connection.fail(problem)
        else:
            self._log.bug("internal error", problem)
