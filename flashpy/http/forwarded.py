"""WORKER: who a request is from when it came through proxies: Forwarded and X-Forwarded-* -> client, scheme, host.

Each proxy adds at the end of a list whom it got the request from, so a list is read from its end: what a trusted proxy
wrote is believed, and the first address that is not itself a trusted proxy is the client. What stands before it the
client may have invented. What cannot be read stops the walk, and the last good address counts.

X-Forwarded-For goes before Forwarded (RFC 7239), though in the latter address, scheme and host of a hop stand together:
nearly every proxy sets the former, and passes on unread what a client wrote into the latter. With Forwarded alone
believed first, that client would choose its own address. Still a proxy should remove whichever of these fields it does
not set itself; the examples in conf/examples do.

The peer has no part in what is found: one head means the same from every trusted peer, so its reply can be remembered
together with the client's address. Whether the peer is trusted is asked once, when it connects.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from flashpy.http.framing import TCHAR
from flashpy.http.peers import UNIX, Trusted, plain_address
from flashpy.http.target import valid_host

FORWARDED_FIELDS: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
"""The fields that are heeded when they come from a trusted peer; names in lower case."""

# Entries that are looked at: more than any real chain has, and a head of trusted addresses alone costs no more time.
LONGEST_CHAIN = 64

_SCHEMES = (b"http", b"https")
_PORT = rb"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))%b|([0-9A-Fa-f:.]+)" % _PORT)
_HIDDEN = re.compile(rb"(?:(?i:unknown)|_[A-Za-z0-9._-]+)%b" % _PORT)
# RFC 7239 wants quotes around whatever has a colon or brackets. Proxies forget them, and no doubt can come of it.
_PAIR = re.compile(rb'[ \t]*(?:([%b]+)=(?:([!#-+\--:<-\[\]-~]+)|"((?:[^"\\]|\\.)*)"))?[ \t]*(?:;|\Z)' % TCHAR)
_ESCAPED = re.compile(rb"\\(.)")


class Forwarded(NamedTuple):
    """What trusted proxies say of a request; None where they say nothing that can be used.

    `address` as it is logged; `scheme` is b"http" or b"https", as the client spoke to the outermost trusted proxy;
    `host` is a valid Host (RFC 9110 section 7.2), port included.
    """

    address: str | None = None
    scheme: bytes | None = None
    host: bytes | None = None


def client_of(fields: Iterable[tuple[bytes, bytes]], trusted: Trusted) -> Forwarded:
    """Who is behind the proxies. From a peer that is not trusted itself the fields mean nothing: do not ask then.

    `fields` are FORWARDED_FIELDS in their order, names in lower case. Several lines of a name are one list.
    """
    lists: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lists.setdefault(name, []).extend(filter(None, [entry.strip(b" \t") for entry in value.split(b",")]))
    standard = lists.get(b"forwarded")
    if standard is not None and b"x-forwarded-for" not in lists:
        return _walk(map(_element, _from_end(standard)), trusted)
    found = _walk(map(_hop, _from_end(lists.get(b"x-forwarded-for", []))), trusted)
    # Of these the last entry counts, which is what the nearest proxy says or lets pass.
    scheme, host = (lists.get(name, [b""])[-1:] for name in (b"x-forwarded-proto", b"x-forwarded-host"))
    return Forwarded(found.address, *_checked(b"".join(scheme), b"".join(host)))


def _from_end(entries: list[bytes]) -> list[bytes]:
    return entries[: -LONGEST_CHAIN - 1 : -1]


def _walk(hops: Iterable[Forwarded | None], trusted: Trusted) -> Forwarded:
    """The farthest hop that can be believed; one without an address has the address before it. None: not readable."""
    last = Forwarded()
    for hop in hops:
        if hop is None:
            break
        last = hop if hop.address else hop._replace(address=last.address)
        if not hop.address or hop.address not in trusted:
            break
    return last


def _hop(entry: bytes) -> Forwarded | None:
    """An entry of X-Forwarded-For; with a port as some proxies write it."""
    address = _address(entry)
    return None if address is None else Forwarded(address)


def _element(entry: bytes) -> Forwarded | None:
    """A forwarded-element (RFC 7239 section 4); None for a malformed one.

    The list was cut at every comma. One within quotes leaves a quote without its partner, and no address, scheme or
    host has a comma: such an element is as good as malformed.
    """
    pairs: dict[bytes, bytes] = {}
    place = 0
    while place < len(entry):
        found = _PAIR.match(entry, place)
        if found is None:
            return None
        name, token, quoted = found.groups()
        if name is not None:
            if name.lower() in pairs:
                return None  # section 4: each parameter at most once
            pairs[name.lower()] = token if token is not None else _ESCAPED.sub(rb"\1", quoted)
        place = found.end()
    return _of_pairs(pairs)


def _of_pairs(pairs: dict[bytes, bytes]) -> Forwarded | None:
    node = pairs.get(b"for", b"unknown")
    address = _address(node)
    if address is None and _HIDDEN.fullmatch(node) is None:
        return None
    return Forwarded(address, *_checked(pairs.get(b"proto", b""), pairs.get(b"host", b"")))


def _checked(scheme: bytes, host: bytes) -> tuple[bytes | None, bytes | None]:
    """A scheme and a host as far as they are any."""
    scheme = scheme.lower()
    return scheme if scheme in _SCHEMES else None, host if valid_host(host) else None


def _address(node: bytes) -> str | None:
    """The address of a node, without brackets and port; None for what is no address."""
    if node == UNIX.encode():  # as nginx names a client of its unix socket
        return UNIX
    found = _NODE.fullmatch(node)
    if found is None:
        return None
    try:
        return plain_address((found[1] or found[2] or found[3]).decode("ascii"))
    except ValueError:
        return None
