"""WORKER: the states of a client connection: the whole table, for `client`, `replying` and `connection`.

READING -> WAITING (for a helper) -> SENDING -> READING ... -> LINGERING -> CLOSED. What is asked of epoll and what is
done on an event follow from the state. WAITING asks for no event at all: a client that half-closed would make the loop
spin, and still gets its reply.
"""

from typing import Final

from flashpy.loop import EDGE, LAST_BYTES, READ, WRITE

READING, WAITING, SENDING, LINGERING, CLOSED = range(5)

EDGES: Final = READ | LAST_BYTES | EDGE
EVENTS: Final = (READ, 0, WRITE, READ)
"""What each state but CLOSED asks of epoll; a dead peer is always told of.

Until a client says that it sends no more, or fills a whole buffer, READING asks for EDGES instead: epoll then does not
look at the socket again after each request, which is 2 % of a hit.
"""

ACTIONS: Final = ("_read", "_hung_up", "_write", "_discard")
"""The method of the connection that acts on an event in each state."""

TRANSITIONS: Final = frozenset(
    {
        (READING, READING),
        (READING, WAITING),
        (READING, SENDING),
        (READING, LINGERING),
        (WAITING, READING),
        (WAITING, WAITING),
        (WAITING, SENDING),
        (WAITING, LINGERING),
        (SENDING, READING),
        (SENDING, WAITING),
        (SENDING, SENDING),
        (SENDING, LINGERING),
    }
)
"""From which state to which; to CLOSED from every one."""
