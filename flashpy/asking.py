"""WORKER: what a decision works with: what is asked, what is in hand already, what is wanted yet. Values only."""

from typing import NamedTuple

from flashpy.cache.pathnames import Entry
from flashpy.http.request import Request
from flashpy.http.target import Target
from flashpy.rules import Ruling
from flashpy.sites import Site
from flashpy.tasks import Trouble
from flashpy_helpers.wire import HeavyJob, List, Lookup


class InHand(NamedTuple):
    """What a request has that waited: what was found at a path, and which heavy jobs came to nothing, and why."""

    entry: Entry | None = None
    failed: tuple[tuple[HeavyJob, Trouble], ...] = ()

    def without(self, job: HeavyJob, trouble: Trouble) -> "InHand":
        """The same, and this job came to nothing."""
        return self._replace(failed=(*self.failed, (job, trouble)))

    def trouble(self, job: HeavyJob) -> Trouble | None:
        """Why the job came to nothing, if it did."""
        return next((trouble for failed, trouble in self.failed if failed == job), None)


NOTHING = InHand()


class Wanted(NamedTuple):
    """The reply needs this job's answer first; `in_hand` is kept meanwhile."""

    job: Lookup | List | HeavyJob
    in_hand: InHand = NOTHING


class Asked(NamedTuple):
    """A request under way: what it asks of which site, what the site's rules say of its path, and when it is now.

    `secure`: its client came over https. `now` is monotonic seconds, `wall` seconds since 1970. `more` are ready field
    lines beside those of the rules.
    """

    request: Request
    site: Site
    target: Target
    ruling: Ruling
    secure: bool
    now: float
    wall: float
    more: bytes = b""

    def extra(self, *, error: bool = False) -> bytes:
        """The field lines that rules add."""
        return self.ruling.extra(self.request.wishes.get(b"origin"), secure=self.secure, error=error) + self.more
