"""WORKER: by what a request is known to all who handle it: X-Request-ID, and traceparent of W3C Trace Context.

They are looked for in the bytes of a head that the parser has taken. No reply depends on them, so to the memos they are
lines without meaning, and only a worker whose log or replies name them looks at all.
"""

import hashlib
import re
from itertools import count

_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
# Long enough for what proxies make, and nothing that a log, a shell or a browser could take for something else.
_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(rb"\r\ntraceparent:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
# Later versions may append fields; ff is forbidden, and so are ids of zeros.
_VALID_TRACE = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[A-Za-z0-9._-]{1,64})?"
)


def request_id(head: bytes) -> bytes:
    """The one X-Request-ID of a head; b"" when there is none, more than one, or one that nobody should repeat."""
    return _only(_REQUEST_ID, _VALID_ID, head)


def traceparent(head: bytes) -> bytes:
    """The one traceparent of a head; b"" when there is none, or none that is valid."""
    return _only(_TRACEPARENT, _VALID_TRACE, head)


def _only(field: re.Pattern[bytes], valid: re.Pattern[bytes], head: bytes) -> bytes:
    found: list[bytes] = field.findall(head)
    return found[0] if len(found) == 1 and valid.fullmatch(found[0]) else b""


class RequestIds:
    """Makes ids: 128 bits as hexadecimal digits, as nginx's. Digests of a count under a secret `key` (16 to 64 bytes):
    none comes twice, whoever knows many cannot tell the next, and the kernel is not asked.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._numbers = count()

    def new(self) -> bytes:
        """Another one."""
        number = next(self._numbers).to_bytes(8, "big")
        return hashlib.blake2b(number, digest_size=16, key=self._key).hexdigest().encode("ascii")
