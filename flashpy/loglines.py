"""WORKER: access lines in any format but the combined one, which has a way of its own (`accesslog`).

What a request and its reply say is filled in once and remembered with the reply (`logformat`); here each line gets what
is its own. A Written stands in for the list to which a connection appends what it answers from memory, so that neither
connections nor the combined format pay for any of this.
"""

import random
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from flashpy.cache.pathnames import Entry
from flashpy.config import Settings
from flashpy.http.dates import format_log_time
from flashpy.http.request import Request
from flashpy.http.response import Reply
from flashpy.http.tracing import RequestIds
from flashpy.logformat import TRACING, Format

MEMO, HIT, STALE, MISS, REFUSED, GONE = b"memo", b"hit", b"stale", b"miss", b"refused", b"gone"
"""How a request was served: by its whole head, otherwise from memory, from memory past its time, after waiting for a
helper, with an error page of ours, not at all since the client left.
"""

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_END_OF_PREFIX: Final = b" - - ["  # of what names the client elsewhere, see accesslog.prefix

# What was answered the short way: the client's part of the log line, the rest of it, the reply. The rest of a written
# one comes with its duration in seconds, and how it was served.
Answered = tuple[bytes, Any, Reply]


class Written(list[Answered]):
    """What was answered the short way since it was settled, with what its lines shall say. `now` tells when the present
    turn began (monotonic seconds): from then on what came in it is timed.
    """

    def __init__(self, form: Format, worker: int, now: Callable[[], float], revalidate: float = 1.0) -> None:
        super().__init__()
        self._form, self._now, self._revalidate = form, now, revalidate
        self._worker = b"%d" % worker
        self._values: dict[bytes, bytes] = {}
        self._clients: dict[bytes, bytes] = {}
        self._served = {word: form.own(word) for word in (MEMO, HIT, STALE, MISS, REFUSED, GONE)}
        self.traces = bool(form.needs & TRACING)
        self.wants_traceparent = "traceparent" in form.needs
        self.renew(0)

    def renew(self, seconds: int) -> None:
        """What lines say of the time, from now on."""
        moment = time.gmtime(seconds)
        iso = b"%04d-%02d-%02dT%02d:%02d:%02dZ" % moment[:6]
        own = self._form.own
        self._values = {b"time": own(iso), b"clf": own(format_log_time(seconds)), b"epoch": b"%d" % seconds}
        self._clients.clear()

    def append(self, answered: Answered) -> None:
        """One that was found by its whole head."""
        self._append(answered, MEMO)

    def append_hit(self, answered: Answered) -> None:
        """One that was answered from memory all the same."""
        self._append(answered, HIT)

    def _append(self, answered: Answered, served: bytes) -> None:
        prefix, rest, reply = answered
        now = self._now()
        if self.is_stale(reply.entry, now):
            served = STALE
        super().append((prefix, (rest, time.monotonic() - now, served), reply))

    def is_stale(self, entry: Entry, now: float) -> bool:
        """Whether what a reply depends on was last looked at more than `revalidate` seconds before."""
        return entry.source.checked + self._revalidate < now

    def rest(self, request: Request | bytes, outcome: bytes, scheme: bytes | None, user: bytes = b"") -> bytes:
        """The format with what a request says, or the first line of what was none, and its reply (see
        accesslog.said).
        """
        values: dict[str, bytes | None] = dict.fromkeys(_NAMES)
        values["status"], values["bytes"] = outcome.split()
        values["user"], values["scheme"], values["worker"] = user, scheme or b"http", self._worker
        if isinstance(request, bytes):
            values["request"] = request
        else:
            line = request.line
            path, _, query = line.target.partition(b"?")
            values |= {"method": line.method, "path": path, "query": query, "protocol": b"HTTP/1.%d" % line.minor}
            values |= {"request": _raw(line.quoted), "host": request.host}
            values |= {"referer": _raw(request.referer), "agent": _raw(request.agent)}
        return self._form.fill(values)

    def line(
        self, prefix: bytes, rest: bytes, duration: float, served: bytes, request_id: bytes = b"", trace: bytes = b""
    ) -> bytes:
        """A whole line; `duration` in seconds, to the microsecond."""
        values, own = self._values, self._form.own
        client = self._clients.get(prefix)
        if client is None:
            client = self._clients[prefix] = own(prefix.removesuffix(_END_OF_PREFIX))
        values[b"client"], values[b"served"] = client, self._served[served]
        values[b"duration"] = b"%.6f" % max(0.0, duration)
        if self.traces:
            values[b"request_id"], values[b"traceparent"] = own(request_id), own(trace)
        return rest % values


class Lines:
    """Which requests of a worker are logged, and how. `written` is None for the combined format. With `ids` each
    request has one, which its reply has too if it is to `echo` it.

    `traces`: something of a request that its reply does not depend on is to be logged or sent (see `traced`).
    """

    __slots__ = ("_sample", "echo", "ids", "on", "traces", "written")

    def __init__(
        self,
        *,
        on: bool = True,
        written: Written | None = None,
        sample: float = 1.0,
        ids: RequestIds | None = None,
        echo: bool = False,
    ) -> None:
        self.on, self.written, self.ids, self.echo = on, written, ids, echo
        self._sample = sample
        self.traces = echo or (written is not None and written.traces)

    @property
    def is_sampled(self) -> bool:
        """Whether some lines are left out."""
        return self._sample < 1.0

    def keeps(self, status: int) -> bool:
        """Whether a line is written: what went wrong always is, of the others a sample."""
        return status >= 400 or self._sample >= 1.0 or random.random() < self._sample


def lines_of(settings: Settings, worker: int, now: Callable[[], float]) -> Lines:
    """As the settings want them; `worker` is its number, for the rest see Written."""
    log, echo = settings.log, settings.server.request_id
    form = Format(log.format)
    written = None if log.access == "off" or form.is_combined else Written(form, worker, now, settings.cache.revalidate)
    named = echo or (written is not None and "request_id" in form.needs)
    ids = RequestIds(secrets.token_bytes(32)) if named else None
    return Lines(on=log.access != "off", written=written, sample=log.sample, ids=ids, echo=echo)


_NAMES: Final = ("request", "method", "path", "query", "protocol", "host", "referer", "agent")


def _raw(quoted: bytes) -> bytes:
    """What a client sent, from what accesstext.quote made of it; b"" for nothing."""
    text = quoted.strip(b" \n")[1:-1]
    return b"" if text == b"-" else _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text)
