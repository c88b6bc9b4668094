"""WORKER: the header of the PROXY protocol, with which a proxy says whose connection it passes on; versions 1 and 2.

Source: "The PROXY protocol, versions 1 and 2", haproxy.org, doc/proxy-protocol.txt. The header comes before the first
byte of the client, once in a connection. It is judged as it arrives, in whatever pieces: what cannot become a header is
refused with its first wrong byte, and no more than LONGEST bytes are waited for.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from flashpy.http.peers import UNIX, plain_address

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# Version 2 could have 65,551. nginx takes 4096 too; the largest that is seen has a TLS client's certificate in it.
LONGEST: Final = 4096
LONGEST_LINE: Final = 107  # section 2.1, with CRLF

_FIXED = 16  # signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_ADDRESSES: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
"""The bytes that the addresses of each family take."""
_CRC32C = 0x03
_PORT = rb"(?:0|[1-9][0-9]{0,4})"
_TCP = rb"(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (%b) (%b)" % (_PORT, _PORT)
_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|%b)" % _TCP)
_BEGINNING = b"PROXY "


class BadHeader(Exception):
    """What came is no PROXY header; the text says why."""


class Introduced(NamedTuple):
    """A whole header: the client's address, None when the peer's own holds (LOCAL, UNKNOWN), and the header's size."""

    address: str | None
    size: int


def parse(data: bytes) -> Introduced | None:
    """The header that `data` begins with; None while it is not all there. Raises BadHeader."""
    if data.startswith(SIGNATURE):
        return _binary(data)
    if data.startswith(_BEGINNING):
        return _line(data)
    if SIGNATURE.startswith(data) or _BEGINNING.startswith(data):
        return None
    raise BadHeader("no PROXY header")


# Version 1: one line


def _line(data: bytes) -> Introduced | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise BadHeader("a line that does not end")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise BadHeader("malformed line")
    if found[1] is None:
        return Introduced(None, end + 2)
    if int(found[4]) > 65535 or int(found[5]) > 65535:
        raise BadHeader("a port beyond 65535")
    kind = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        source, _ = (kind(text.decode("ascii")) for text in found.group(2, 3))
    except ValueError:
        raise BadHeader("an address that is none of its family") from None
    return Introduced(plain_address(str(source)), end + 2)


# Version 2: binary


def _binary(data: bytes) -> Introduced | None:
    if len(data) < _FIXED:
        _check_version(data)
        return None
    command = _check_version(data)
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > LONGEST:
        raise BadHeader(f"a header of more than {LONGEST} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL:  # the proxy's own connection (a health check): the rest is to be passed over
        return Introduced(None, size)
    return Introduced(_source(data[:size]), size)


def _check_version(data: bytes) -> int | None:
    """Version and command, when they are there already."""
    command = data[12] if len(data) > 12 else None
    if command not in (None, _LOCAL, _PROXY):
        raise BadHeader("an unknown version or command")
    return command


def _source(header: bytes) -> str | None:
    """The client of a whole PROXY header."""
    family, transport = header[13] >> 4, header[13] & 15
    if family not in _ADDRESSES or transport > 2 or (family == _UNSPEC) != (transport == 0):
        raise BadHeader("an unknown family or transport")
    if family == _UNSPEC:
        return None
    tlvs = _FIXED + _ADDRESSES[family]
    if len(header) < tlvs:
        raise BadHeader("too short for its addresses")
    _check_tlvs(header, tlvs)
    if transport == 2:  # datagrams, of which nobody can speak on a stream: section 2.2 allows to take it as UNSPEC
        return None
    if family == _UNIX:
        return UNIX
    if family == _INET:
        return str(IPv4Address(header[16:20]))
    return plain_address(str(IPv6Address(header[16:32])))


def _check_tlvs(header: bytes, place: int) -> None:
    """Pass over what else a proxy tells (type, length, value), but for a checksum, which has to be right."""
    checked = False
    while place < len(header):
        value = place + 3
        end = value + int.from_bytes(header[place + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise BadHeader("a TLV that is cut off")
        if header[place] == _CRC32C:
            blank = header[:value] + bytes(4) + header[end:]
            if checked or end - value != 4 or crc32c(blank) != int.from_bytes(header[value:end], "big"):
                raise BadHeader("a wrong checksum, or a second one")
            checked = True
        place = end


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum (RFC 3720 appendix B.4), which zlib does not have: 0.1 ms for 1,000 bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(map(_entry, range(256)))
