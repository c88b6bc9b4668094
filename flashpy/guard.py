"""WORKER: who may pass where a rule asks for a password (`auth`; RFC 7617).

bcrypt takes a processor tens of milliseconds, so a password is held against its hash by a heavy helper, once; then the
answer is known. A reply that somebody had to pass for is never remembered for others.
"""

from flashpy.asking import Asked, InHand, Wanted
from flashpy.findings import Findings
from flashpy.http.credentials import parse_basic
from flashpy.http.status import Refusal
from flashpy.rules import Realm
from flashpy_helpers.wire import Password


class Guard:
    """Remembers in `findings` which passwords are right and which are wrong."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def admit(self, realm: Realm, asked: Asked, in_hand: InHand) -> bytes | Wanted:
        """The name of the user, or the job that tells. Raises Refusal 401, or what the job came to."""
        credentials = parse_basic(asked.request.wishes.get(b"authorization"))
        if credentials is None:
            raise _refusal(realm, "")
        job = Password(0, asked.site.root, realm.hash_of(credentials.user), credentials.password)
        is_right = self._findings.get(job)
        if is_right is None:
            trouble = in_hand.trouble(job)
            if trouble is not None:
                raise trouble.refusal()
            return Wanted(job, in_hand)
        if not is_right:
            raise _refusal(realm, f"wrong password, or no such user: {credentials.user.decode('utf-8', 'replace')!r}")
        return credentials.user


def _refusal(realm: Realm, reason: str) -> Refusal:
    return Refusal(401, close=False, headers=((b"WWW-Authenticate", realm.challenge),), reason=reason)
