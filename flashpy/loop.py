"""WORKER: the event loop. It knows descriptors, handlers and the time, and nothing about HTTP or files.

One epoll instance, level triggered. A turn is: wait, read the clock once, call the handler of every ready
descriptor, run the due timers, then the end-of-turn hooks. Watched descriptors that a turn gives up are closed
after its events, so that no event of this turn can reach a new connection under an old number. A handler that raises
is a bug of ours: it goes to `on_error` and the loop turns on.
"""

import heapq
import select
import time
from collections.abc import Callable
from itertools import count

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET
LAST_BYTES = select.EPOLLRDHUP
HANGUP = select.EPOLLHUP | select.EPOLLERR
EXCLUSIVE = select.EPOLLEXCLUSIVE

Handler = Callable[[int], None]
_EVENTS_PER_TURN = 64  # each poll makes room for them: 0.5 % of a hit for four times as many
_LONGEST_WAIT = 1.0


class Loop:
    """A single-threaded event loop over epoll.

    `now` is CLOCK_MONOTONIC in seconds, read once a turn.
    """

    def __init__(self, on_error: Callable[[int, Exception], None]) -> None:
        self.now = time.monotonic()
        self.stopped = False
        self.on_error = on_error
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._closing: list[Callable[[], None]] = []
        self._hooks: list[Callable[[], None]] = []

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Watch `fd` for `events`; `handler` is called with the event mask."""
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int, handler: Handler) -> None:
        """Change what is asked of `fd`, and who is told."""
        self._handlers[fd] = handler
        self._poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching `fd`, which stays open (EPOLL_CTL_DEL)."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def discard(self, fd: int, close: Callable[[], None]) -> None:
        """Forget `fd` now; `close` is called at the end of the turn, and closes it.

        Closing the last descriptor of a socket takes it out of epoll, which spares a system call.
        """
        self._handlers.pop(fd, None)
        self._closing.append(close)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once, about `seconds` from now."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), action))

    def every_turn(self, hook: Callable[[], None]) -> None:
        """Call `hook` at the end of every turn, before the loop waits again."""
        self._hooks.append(hook)

    def stop(self) -> None:
        """Leave `run` at the end of this turn."""
        self.stopped = True

    def run(self) -> None:
        """Turn until `stop`."""
        poll, handlers, timers, clock = self._poll.poll, self._handlers, self._timers, time.monotonic
        while not self.stopped:
            patience = timers[0][0] - self.now if timers else _LONGEST_WAIT
            ready = poll(patience if patience > 0.0 else 0.0, _EVENTS_PER_TURN)
            self.now = now = clock()
            for fd, mask in ready:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(mask)
                    except Exception as problem:
                        self.on_error(fd, problem)
            if timers and timers[0][0] <= now:
                self._run_timers()
            for hook in self._hooks:
                try:
                    hook()
                except Exception as problem:
                    self.on_error(-1, problem)
            if self._closing:
                self._close_discarded()

    def _close_discarded(self) -> None:
        closing, self._closing = self._closing, []
        for close in closing:
            close()

    def _run_timers(self) -> None:
        timers, now = self._timers, self.now
        while timers and timers[0][0] <= now:
            try:
                heapq.heappop(timers)[2]()
            except Exception as problem:
                self.on_error(-1, problem)
