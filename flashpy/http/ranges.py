"""Byte ranges: a Range field to spans, spans to the frame of a multipart reply (worker).

A Range that is broken or greedy is ignored and the whole file sent, which RFC 9110, section 14.2,
always allows. Spans are half open, (start, stop), and lie inside the file. They never overlap, so
a reply holds no byte of the file twice however many ranges asked for it.
"""

import re
from typing import Final

Span = tuple[int, int]

MOST: Final = 16
"""Ranges in one field; with more it is ignored."""

_FIELD = re.compile(rb"(?i:bytes)=([0-9\-, \t]+)")
_SPEC = re.compile(rb"([0-9]*)-([0-9]*)")
_HUGE: Final = 1 << 64


def parse_range(value: bytes, size: int) -> tuple[Span, ...] | None:
    """What a Range field selects of `size` bytes (RFC 9110, section 14.1.2).

    None: ignore the field. (): no range can be satisfied (416). Else the spans: in the order asked
    for when they lie apart, ascending when some had to be joined.
    """
    field = _FIELD.fullmatch(value)
    if field is None:
        return None
    specs = [spec for spec in (part.strip(b" \t") for part in field[1].split(b",")) if spec]
    if not specs or len(specs) > MOST:
        return None
    spans: list[Span] = []
    for spec in specs:
        span = _span(spec, size)
        if span is None:
            return None
        if span[0] < span[1]:
            spans.append(span)
    return _coalesce(spans)


def multipart(
    spans: tuple[Span, ...], size: int, content_type: bytes, boundary: bytes
) -> tuple[list[tuple[bytes, int, int]], bytes, int]:
    """The frame of a multipart/byteranges body (RFC 9110, section 14.6).

    Returns the parts as (head, start, stop), the closing line, and the length of the whole body in
    bytes. The caller names a boundary that the file is not known to hold.
    """
    parts: list[tuple[bytes, int, int]] = []
    for start, stop in spans:
        head = b"%b--%b\r\nContent-Type: %b\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (
            b"\r\n" if parts else b"", boundary, content_type, start, stop - 1, size,
        )  # fmt: skip
        parts.append((head, start, stop))
    closing = b"\r\n--%b--\r\n" % boundary
    length = sum(len(head) + stop - start for head, start, stop in parts) + len(closing)
    return parts, closing, length


def _span(spec: bytes, size: int) -> Span | None:
    """One range as a span, an empty one when it cannot be satisfied; None when it is broken."""
    found = _SPEC.fullmatch(spec)
    if found is None or spec == b"-":
        return None
    first, last = found.groups()
    if not first:
        # The end of an empty file can be satisfied by the RFC, but no Content-Range can say so.
        length = _number(last)
        return (max(size - length, 0), size) if size or not length else None
    start = _number(first)
    if not last:
        return min(start, size), size
    if _number(last) < start:
        return None
    return min(start, size), min(_number(last) + 1, size)


def _number(digits: bytes) -> int:
    """The value of any number of digits; int() refuses more than 4300 and is slow below that."""
    digits = digits.lstrip(b"0")
    return _HUGE if len(digits) > 18 else int(digits or b"0")


def _coalesce(spans: list[Span]) -> tuple[Span, ...]:
    """Join spans that overlap or touch."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return tuple(spans if len(joined) == len(spans) else joined)
