"""WORKER: what heavy helpers have found out: digests, sound siblings, what does not shrink, passwords.

Each costs a processor milliseconds and holds for ever: of a version of a file, or of a hash. So it is asked once and
remembered, whatever becomes of the entry of a path. Bounded: what is asked again stays.

No password is kept here. What is remembered is a digest of one and of the hash that it was held against, under a key
that this process alone has and that dies with it.
"""

import os
from hashlib import blake2b
from typing import Any, Final

from flashpy.cache.lru import Lru
from flashpy_helpers.wire import Compress, Digest, HeavyJob, Password, Verify

_FILES: Final = 16384
_PASSWORDS: Final = 4096


class Findings:
    """By job: of a Digest the digest (hex), of the others a bool. None: not known, ask."""

    def __init__(self) -> None:
        self._files: Lru[Any, Any] = Lru(_FILES)
        self._passwords: Lru[bytes, bool] = Lru(_PASSWORDS)
        self._secret = os.urandom(32)

    def get(self, job: HeavyJob) -> Any:
        """What was found; it is kept longer for having been asked for."""
        if isinstance(job, Password):
            key = self._digest(job)
            self._passwords.touch(key)
            return self._passwords.get(key)
        file = _key(job)
        self._files.touch(file)
        return self._files.get(file)

    def put(self, job: HeavyJob, found: Any) -> None:
        """The answer to this job, and to all that ask the same."""
        if isinstance(job, Password):
            self._passwords.put(self._digest(job), found)
        else:
            self._files.put(_key(job), found)

    def _digest(self, job: Password) -> bytes:
        # A bcrypt hash has one length, so no two pairs give the same bytes.
        return blake2b(job.hash + job.password, key=self._secret).digest()


def _key(job: Compress | Verify | Digest) -> Any:
    """By version: the same file under another name is the same."""
    match job:
        case Compress(identity=identity, coding=coding):
            return Compress, identity, coding
        case Verify(identity=identity, coding=coding, size=size):
            return Verify, identity, coding, size
    return Digest, job.identity
