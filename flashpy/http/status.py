"""Status codes, and the one exception that becomes a reply (worker).

An error is a reply like any other: whoever finds a fault in a request raises `Refusal` with the
status and says whether the connection can go on. It is caught in one place.
"""

from typing import Final

Fields = tuple[tuple[bytes, bytes], ...]
"""Field lines of a reply: names and values."""

REASONS: Final[dict[int, str]] = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    202: "Accepted",
    203: "Non-Authoritative Information",
    204: "No Content",
    205: "Reset Content",
    206: "Partial Content",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    451: "Unavailable For Legal Reasons",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}


class Refusal(Exception):
    """A request that is answered with an error status (RFC 9110, section 15).

    `close` tells whether the connection ends with the reply, which it must whenever the end of
    the request is not known for certain. `headers` are added to the reply (Allow, Retry-After,
    Content-Range), and `extra`, ready field lines of the path. `reason` is for the log only and
    never sent.
    """

    __slots__ = ("close", "extra", "headers", "reason", "status")

    def __init__(
        self, status: int, close: bool = True, headers: Fields = (), reason: str = "", extra: bytes = b""
    ) -> None:
        super().__init__(status, close, headers, reason)
        self.status = status
        self.close = close
        self.headers = headers
        self.reason = reason
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.status} {self.reason or REASONS.get(self.status, '')}".rstrip()
