"""The small HTML bodies of errors and redirects (worker).

All are made once, at import: an error under load must cost no more than a hit. Nothing that a
client sent is ever in them.
"""

from typing import Final

from flashpy.http.status import REASONS

_HINTS: Final = {
    301: "This page has a new address.",
    308: "This page has a new address.",
    400: "The server could not understand this request.",
    403: "You are not allowed to see this page.",
    404: "There is nothing at this address.",
    405: "This method cannot be used here.",
    406: "There is no form of this page that your program accepts.",
    408: "The request took too long to arrive.",
    412: "The file is not the version that was asked for.",
    413: "The request is larger than the server accepts.",
    414: "The address is longer than the server accepts.",
    416: "The file does not reach that far.",
    417: "The server cannot meet this expectation.",
    421: "This server does not answer for this address.",
    429: "Too many requests: please wait a moment.",
    431: "The request's header is larger than the server accepts.",
    500: "Something went wrong in the server.",
    501: "The server does not know this method or coding.",
    503: "The server is busy: please try again in a moment.",
    504: "The file could not be read in time.",
    505: "The server speaks HTTP/1.1 and HTTP/1.0.",
}

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{status} {reason}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 30rem }}
body {{ margin: 20vh auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem; font-weight: 600 }}
h1 span {{ opacity: .5; margin-right: .5rem }}
</style>
</head>
<body>
<h1><span>{status}</span>{reason}</h1>
<p>{hint}</p>
</body>
</html>
"""


def _render(status: int, reason: str) -> bytes:
    hint = _HINTS.get(status, "The server cannot answer this request.")
    return _PAGE.format(status=status, reason=reason, hint=hint).encode("ascii")


_PAGES: Final = {
    status: _render(status, reason) for status, reason in REASONS.items() if status >= 300 and status != 304
}


def page(status: int) -> bytes:
    """The HTML body for a status of 300 and above, except 304, which has none (KeyError)."""
    return _PAGES[status]
