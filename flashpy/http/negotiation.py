"""Accept-Encoding -> the codings to offer, best first; Accept -> which of two forms (worker; RFC 9110, section 12.5).

Codings are numbers, those of `flashpy_helpers.wire`, in the order of what a server prefers when the client does not
mind: what is smallest first, the bare file last. Weights are compared as whole thousandths; an element that cannot be
read is passed over, so a doubt never sends a coding that was not asked for.
"""

import re
from typing import Final

BR, ZSTD, GZIP, IDENTITY = range(4)
CODINGS: Final = {BR: b"br", ZSTD: b"zstd", GZIP: b"gzip", IDENTITY: b"identity"}
"""Content codings as HTTP names them, by number."""

Preference = bytes
"""Numbers of codings, best first."""
BARE: Final[Preference] = bytes((IDENTITY,))
"""What a client gets that says nothing of codings: it may take any, and understands but this for certain."""

_NUMBERS: Final = {name: number for number, name in CODINGS.items()} | {b"x-gzip": GZIP}
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WEIGHT = rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?"
_ELEMENT = re.compile(rb"(%b(?:/%b)?)[ \t]*(?:;[ \t]*[qQ]=(%b)[ \t]*)?" % (_TOKEN, _TOKEN, _WEIGHT))
_ALL = 1000


def preference(value: bytes | None) -> Preference:
    """The acceptable codings, best first, of a field's value (several lines joined by commas; None: no field).

    Empty when nothing that we know is acceptable, not even the bare file.
    """
    if value is None:
        return BARE
    weights = _weights(value)
    rest = weights.pop(b"*", None)
    known = {_NUMBERS[name]: weight for name, weight in weights.items() if name in _NUMBERS}
    for number in CODINGS:
        if rest is not None:
            known.setdefault(number, rest)
    # Whoever lists codings would rather have one; unless it is excluded the bare file is always acceptable.
    known.setdefault(IDENTITY, 0 if rest == 0 else 1)
    wanted = sorted((-weight, number) for number, weight in known.items() if weight)
    return bytes(number for _, number in wanted)


def prefers_json(value: bytes | None) -> bool:
    """Whether a client would rather have JSON than HTML; who does not mind gets HTML (RFC 9110, section 12.5.1)."""
    if value is None or b"json" not in value.lower():
        return False
    weights = _weights(value)

    def weight(kind: bytes, family: bytes) -> int:
        return next((weights[name] for name in (kind, family, b"*/*") if name in weights), 0)

    return weight(b"application/json", b"application/*") > weight(b"text/html", b"text/*")


def _weights(value: bytes) -> dict[bytes, int]:
    """The weight of each name, in thousandths; of a name that comes twice, the last."""
    weights = {}
    for element in value.split(b","):
        found = _ELEMENT.fullmatch(element.strip(b" \t"))
        if found is not None:
            weights[found[1].lower()] = _thousandths(found[2])
    return weights


def _thousandths(weight: bytes | None) -> int:
    if weight is None:
        return _ALL
    whole, _, fraction = weight.partition(b".")
    return int(whole) * _ALL + int(fraction.ljust(3, b"0"))
