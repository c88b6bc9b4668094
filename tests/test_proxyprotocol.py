"""The PROXY header, both versions: in any pieces, and whatever hostile bytes come instead."""

import re
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.peers import plain_address
from flashpy.http.proxyprotocol import LONGEST, LONGEST_LINE, SIGNATURE, BadHeader, Introduced, crc32c, parse

TCP4, TCP6, UNIX = 0x11, 0x21, 0x31


def line(source: str, target: str = "192.0.2.9", port: int | str = 4711) -> bytes:
    kind = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {kind} {source} {target} {port} 80\r\n".encode()


def binary(kind: int, block: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block


def inet(source: str, *tlvs: bytes) -> bytes:
    """A header of version 2 for a client over TCP."""
    packed = ip_address(source).packed
    block = packed + bytes(len(packed)) + struct.pack("!HH", 4711, 80)
    return binary(TCP4 if len(packed) == 4 else TCP6, block + b"".join(tlvs))


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(header: bytes) -> bytes:
    """The header with its checksum, which was left blank."""
    blank = tlv(3, bytes(4))
    assert header.count(blank) == 1
    return header.replace(blank, tlv(3, struct.pack("!I", crc32c(header))))


GOOD = {
    "line4": (line("203.0.113.7"), "203.0.113.7"),
    "line6": (line("2001:DB8:0::7", "::1"), "2001:db8::7"),
    "mapped line": (line("::ffff:203.0.113.7", "::1"), "203.0.113.7"),
    "highest port": (line("203.0.113.7", port=65535), "203.0.113.7"),
    "unknown": (b"PROXY UNKNOWN\r\n", None),
    "unknown with words": (b"PROXY UNKNOWN ffff::1 what ever\r\n", None),
    "longest line": (b"PROXY UNKNOWN".ljust(LONGEST_LINE - 2, b" ") + b"\r\n", None),
    "v4": (inet("203.0.113.7"), "203.0.113.7"),
    "v6": (inet("2001:db8::7"), "2001:db8::7"),
    "mapped": (inet("::ffff:203.0.113.7"), "203.0.113.7"),
    "unix": (binary(UNIX, b"/run/x".ljust(216, b"\0")), "unix:"),
    "local": (binary(0, b"", 0x20), None),
    "local, whatever follows": (binary(0xFF, b"any", 0x20), None),
    "unspecified": (binary(0, b""), None),
    "unspecified with a block": (binary(0, b"any"), None),
    "datagrams": (binary(0x12, bytes(12)), None),
    "tlvs": (inet("203.0.113.7", tlv(4, b"pad"), tlv(0xEA, b""), tlv(2, b"name" * 50)), "203.0.113.7"),
    "checksum": (checked(inet("203.0.113.7", tlv(4, b"x"), tlv(3, bytes(4)), tlv(5, b"id"))), "203.0.113.7"),
    "longest": (inet("203.0.113.7", tlv(4, bytes(LONGEST - 16 - 12 - 3))), "203.0.113.7"),
}
HOSTILE = {
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "a letter": b"X",
    "lower case": b"proxy TCP4 ",
    "almost": SIGNATURE[:-1] + b"\r",
    "no family": b"PROXY \r\n",
    "other family": b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    "family and address": b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
    "address and family": b"PROXY TCP4 ::1 ::2 1 2\r\n",
    "one of each": b"PROXY TCP4 1.1.1.1 ::2 1 2\r\n",
    "no address": b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
    "octal": b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "a port too high": line("1.1.1.1", port=65536),
    "a port with zeros": line("1.1.1.1", port="01"),
    "no port": b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    "two spaces": b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
    "a space at the end": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
    "LF alone": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n".ljust(LONGEST_LINE, b"x"),
    "CR within": b"PROXY UNKNOWN a\rb\r\n",
    "a name that begins so": b"PROXY UNKNOWNS\r\n",
    "no end": b"PROXY UNKNOWN ".ljust(LONGEST_LINE, b"a"),
    "a line too long": b"PROXY UNKNOWN ".ljust(LONGEST_LINE - 1, b"a") + b"\r\n",
    "version 1 in binary": binary(TCP4, bytes(12), 0x11),
    "version 3": binary(TCP4, bytes(12), 0x31),
    "an unknown command": binary(TCP4, bytes(12), 0x22),
    "an unknown family": binary(0x41, bytes(216)),
    "an unknown transport": binary(0x13, bytes(12)),
    "half unspecified": binary(0x01, b""),
    "half specified": binary(0x10, bytes(12)),
    "too short for v4": binary(TCP4, bytes(11)),
    "too short for v6": binary(TCP6, bytes(35)),
    "too short for unix": binary(UNIX, bytes(215)),
    "too large": SIGNATURE + b"\x21\x11\xff\xff",
    "too large, local": SIGNATURE + b"\x20\x00\xff\xff",
    "half a tlv": inet("1.1.1.1", b"\x04\x00"),
    "a tlv cut off": inet("1.1.1.1", b"\x04\x00\x09abc"),
    "a wrong checksum": inet("1.1.1.1", tlv(3, b"abcd")),
    "a short checksum": inet("1.1.1.1", tlv(3, b"abc")),
    "a changed address": checked(inet("1.1.1.1", tlv(3, bytes(4)))).replace(
        b"\x01\x01\x01\x01", b"\x02\x01\x01\x01", 1
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_in_any_pieces(name: str) -> None:
    header, address = GOOD[name]
    for size in range(len(header)):
        assert parse(header[:size]) is None, size
    for rest in (b"", b"GET / HTTP/1.1\r\n", header, b"\0"):
        assert parse(header + rest) == Introduced(address, len(header))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_header(name: str) -> None:
    with pytest.raises(BadHeader, match=r"\w"):
        parse(HOSTILE[name])


def test_a_second_checksum_is_refused() -> None:
    """Each costs a look at the whole header, so a header full of them would be work for nothing."""
    header = checked(inet("1.1.1.1", tlv(3, bytes(4)), tlv(3, b"abcd")))
    with pytest.raises(BadHeader, match="second"):
        parse(header)


def test_the_checksum_is_castagnolis() -> None:
    """Test vectors of RFC 3720, appendix B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.ip_addresses(), st.integers(0, 65535), st.lists(st.binary(max_size=20), max_size=3), st.binary(max_size=30))
def test_what_was_said_is_understood(source: object, port: int, values: list[bytes], rest: bytes) -> None:
    address = plain_address(str(source))
    text = line(str(source), "::2" if ":" in str(source) else "2.2.2.2", port)
    assert parse(text + rest) == Introduced(address, len(text))
    header = inet(str(source), *[tlv(0xE0 + number, value) for number, value in enumerate(values)])
    assert parse(header + rest) == Introduced(address, len(header))


BEGINNINGS = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21", *[x for x, _ in GOOD.values()]]
)


@given(BEGINNINGS, st.binary(max_size=60), st.integers(0, 300))
def test_any_bytes_are_a_header_or_none(beginning: bytes, noise: bytes, place: int) -> None:
    """Never another exception, never more waited for than the limit, and the same answer when more follows."""
    data = beginning[:place] + noise + beginning[place + len(noise) :]
    try:
        found = parse(data)
    except BadHeader:
        with pytest.raises(BadHeader):
            parse(data + b"more")
        return
    if found is None:
        assert len(data) < LONGEST
    else:
        assert found.size <= len(data)
        assert parse(data + b"more") == found
        assert found.address is None or re.fullmatch(r"[0-9a-f.:]+|unix:", found.address)
