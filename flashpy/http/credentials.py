"""Basic credentials, and the files that know them (RFC 7617, htpasswd). Values only: master and worker.

The master reads a file at load, a worker takes Authorization fields apart. Whether a password is right takes a
processor, and is a heavy helper's job.
"""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]+={0,2})")
_LONGEST: Final = 1024
# The last of the salt's 22 characters has four bits to spare, which must be 0: the library takes no others.
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_COSTS: Final = range(4, 17)  # 16 takes 4 s of a processor, a step more twice that: heavy helpers refuse it
_NOBODY: Final = b"$2b$%02d$%b.%b"


class Credentials(NamedTuple):
    """A user's name and password, as they were sent."""

    user: bytes
    password: bytes


def parse_basic(value: bytes | None) -> Credentials | None:
    """The credentials of an Authorization field's value; None when it holds none that we can read."""
    found = _BASIC.fullmatch(value) if value is not None and len(value) <= _LONGEST else None
    if found is None:
        return None
    try:
        user, colon, password = b64decode(found[1], validate=True).partition(b":")
    except Error:
        return None
    return Credentials(user, password) if colon and b"\0" not in password else None


def challenge(realm: str) -> bytes:
    """The value of WWW-Authenticate; `realm` is printable ASCII without quote and backslash."""
    return b'Basic realm="%b", charset="UTF-8"' % realm.encode("ascii")


def dearest(hashes: Iterable[bytes]) -> int:
    """The highest cost of these hashes."""
    return max((int(hash[4:6]) for hash in hashes), default=10)


def hash_of_nobody(user: bytes, cost: int) -> bytes:
    """A hash that no password has, for a name that is not in the file: whoever gives one waits as long as the others.

    Each name has one of its own. With one for all, a password that was tried for some such name would be answered from
    memory for the next, and at a name that is there it would not: that would tell them apart.
    """
    return _NOBODY % (cost, blake2b(user, digest_size=11).hexdigest()[:21].encode("ascii"), b"." * 31)


def parse_htpasswd(text: str) -> dict[str, str]:
    """Names and bcrypt hashes of a file as `htpasswd -B` writes it; empty lines and comments (#) are passed over.

    Raises HtpasswdError, with the number of the line.
    """
    users: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        user, colon, hash = line.partition(":")
        hash = hash.partition(":")[0].strip()  # what follows a second colon is a comment
        problem = _problem(user, colon, hash)
        if user in users:
            problem = f"the user {user!r} is given twice"
        if problem:
            raise HtpasswdError(number, problem)
        users[user] = hash
    return users


def _problem(user: str, colon: str, hash: str) -> str:
    if not colon or not user or not user.isprintable():
        return 'expected "user:hash"'
    found = _HASH.fullmatch(hash)
    if found is None:
        return f"the hash of {user!r} is not bcrypt; make it with: htpasswd -B"
    if int(found[1]) not in _COSTS:
        return f"the hash of {user!r} has a cost of {found[1]}; expected {_COSTS[0]} to {_COSTS[-1]}"
    return ""


class HtpasswdError(ValueError):
    """A line that is none of an htpasswd file; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
