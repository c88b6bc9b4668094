"""Who is behind the proxies: the walk through Forwarded and X-Forwarded-*, and what spoofed lists come to."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.forwarded import FORWARDED_FIELDS, LONGEST_CHAIN, Forwarded, client_of
from flashpy.http.peers import Trusted, plain_address

PROXIES = Trusted(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "unix:"])

# Entries of X-Forwarded-For as a trusted peer passes them on, and the client's address.
CHAINS = [
    ("203.0.113.7", "203.0.113.7"),
    ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
    ("6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
    ("203.0.113.7, 2001:db8::5, 192.0.2.1,10.0.0.1", "203.0.113.7"),
    ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ("203.0.113.7:4711", "203.0.113.7"),
    ("[2001:DB9::0:1]:80", "2001:db9::1"),
    ("[2001:db9::1]", "2001:db9::1"),
    ("2001:db9::1", "2001:db9::1"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ("203.0.113.7, ::ffff:10.0.0.1", "203.0.113.7"),
    ("203.0.113.7, unix:", "203.0.113.7"),
    (" ,203.0.113.7 , ,\t", "203.0.113.7"),
    ("6.6.6.6, garbage, 10.0.0.1", "10.0.0.1"),
    ("6.6.6.6, garbage", None),
    ("unknown", None),
    ("1.2.3", None),
    ("1.2.3.4.5", None),
    ("01.2.3.4", None),
    ("1.2.3.4:", None),
    ("1.2.3.4:123456", None),
    ("fe80::1%eth0", None),
    ("[::1", None),
    ("[1.2.3.4]x", None),
    ('"1.2.3.4"', None),
    ("1.2.3.4\x00", None),
    ("1.2.3.4 - - [forged] ", None),
    ("caf\xe9", None),
    ("", None),
    (",,,", None),
]


@pytest.mark.parametrize(("chain", "client"), CHAINS)
def test_chains(chain: str, client: str | None) -> None:
    assert client_of([(b"x-forwarded-for", chain.encode("latin-1"))], PROXIES) == Forwarded(client)


# Values of Forwarded and what they mean.
STANDARD: list[tuple[str, Forwarded]] = [
    ("for=203.0.113.7", Forwarded("203.0.113.7")),
    ("For=203.0.113.7;PROTO=HTTPS;Host=a.example", Forwarded("203.0.113.7", b"https", b"a.example")),
    ('for="[2001:db9::1]:4711" ; proto=http; by=10.0.0.1', Forwarded("2001:db9::1", b"http")),
    ('for="203.0.113.7:_port";host="a:8080"', Forwarded("203.0.113.7", None, b"a:8080")),
    ("for=203.0.113.7:80;host=a:80", Forwarded("203.0.113.7", None, b"a:80")),
    ('for="\\2\\03.0.113.7"', Forwarded("203.0.113.7")),
    (";for=203.0.113.7;;", Forwarded("203.0.113.7")),
    ("for=6.6.6.6;proto=https, for=203.0.113.7;proto=http", Forwarded("203.0.113.7", b"http")),
    ("for=203.0.113.7;proto=https;host=a, for=10.0.0.1;proto=http;host=b", Forwarded("203.0.113.7", b"https", b"a")),
    ("for=_hidden;proto=https", Forwarded(None, b"https")),
    ('for="_SEVKISEK:_x"', Forwarded(None)),
    ("for=6.6.6.6, for=unknown;proto=https, for=10.0.0.1", Forwarded("10.0.0.1", b"https")),
    ("proto=https;host=a", Forwarded(None, b"https", b"a")),
    ("for=6.6.6.6, for=, for=10.0.0.1;proto=http", Forwarded("10.0.0.1", b"http")),
    ("for=6.6.6.6, for=1.1.1.1;for=2.2.2.2", Forwarded()),
    ('for="', Forwarded()),
    ('for=", for="203.0.113.7"', Forwarded("203.0.113.7")),
    ('for=1.1.1.1;host="x, for=9.9.9.9"', Forwarded()),
    ('for=1.1.1.1;host="x, for=9.9.9.9;y=\\""', Forwarded()),
    ("for=1.1.1.1 for=2.2.2.2", Forwarded()),
    ("203.0.113.7", Forwarded()),
    ("for = 203.0.113.7", Forwarded()),
    ("for=203.0.113.7;proto=ftp;host=a/b", Forwarded("203.0.113.7")),
    ("for=203.0.113.7;host=user@a", Forwarded("203.0.113.7")),
]


@pytest.mark.parametrize(("value", "meaning"), STANDARD)
def test_the_standard_field(value: str, meaning: Forwarded) -> None:
    assert client_of([(b"forwarded", value.encode("latin-1"))], PROXIES) == meaning


def test_several_lines_are_one_list() -> None:
    lines = [(b"x-forwarded-for", b"6.6.6.6, 203.0.113.7"), (b"x-forwarded-for", b"10.0.0.1")]
    assert client_of(lines, PROXIES).address == "203.0.113.7"
    standard = [(b"forwarded", b"for=203.0.113.7;proto=https"), (b"forwarded", b"for=10.0.0.1")]
    assert client_of(standard, PROXIES) == Forwarded("203.0.113.7", b"https")


def test_what_nearly_every_proxy_sets_goes_before_the_standard_field() -> None:
    """A client's own Forwarded, which such a proxy passes on, is not believed."""
    fields = [
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"b"),
        (b"forwarded", b"for=203.0.113.7;host=a"),
    ]
    assert {name for name, _ in fields} == FORWARDED_FIELDS
    assert client_of(fields, PROXIES) == Forwarded("6.6.6.6", b"https", b"b")
    assert client_of(fields[1:], PROXIES) == Forwarded("203.0.113.7", None, b"a")


@pytest.mark.parametrize(
    ("scheme", "host", "meaning"),
    [
        (b"HTTPS", b"A.example:443", (b"https", b"A.example:443")),
        (b"https, http", b"a, b", (b"http", b"b")),
        (b"wss", b"a b", (None, None)),
        (b"", b"", (None, None)),
        (b"https\x00", b"user@a", (None, None)),
    ],
)
def test_scheme_and_host(scheme: bytes, host: bytes, meaning: tuple[bytes | None, bytes | None]) -> None:
    fields = [(b"x-forwarded-proto", scheme), (b"x-forwarded-host", host)]
    assert client_of(fields, PROXIES) == Forwarded(None, *meaning)


def test_a_chain_is_looked_at_so_far_and_no_farther() -> None:
    chain = ", ".join(["203.0.113.7", *["10.0.0.1"] * (LONGEST_CHAIN - 1)])
    assert client_of([(b"x-forwarded-for", chain.encode())], PROXIES).address == "203.0.113.7"
    assert client_of([(b"x-forwarded-for", f"{chain}, 10.0.0.2".encode())], PROXIES).address == "10.0.0.1"


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(st.lists(st.one_of(ADDRESSES, st.sampled_from(["10.9.9.9", "::1", "2001:db8::9"])), max_size=8))
def test_the_client_is_the_last_that_is_not_trusted(chain: list[str]) -> None:
    """Against the definition, whatever the client put in front."""
    plain = [plain_address(address) for address in chain]
    strangers = [address for address in plain if address not in PROXIES]
    expected = strangers[-1] if strangers else (plain[0] if plain else None)
    plainly = client_of([(b"x-forwarded-for", ", ".join(chain).encode())], PROXIES)
    elements = [f'for="[{address}]:1";proto=https' if ":" in address else f"for={address}" for address in chain]
    standard = client_of([(b"forwarded", ",".join(elements).encode())], PROXIES)
    assert plainly.address == standard.address == expected


@given(st.sampled_from(sorted(FORWARDED_FIELDS)), st.binary(max_size=80))
def test_what_a_client_sends_before_the_proxy_never_matters(name: bytes, invented: bytes) -> None:
    """A proxy that is trusted has the last word, whatever stands before it."""
    end = {
        b"forwarded": b"for=203.0.113.7;proto=https;host=a",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"a",
    }
    own = end.get(name, b"203.0.113.7")
    assert client_of([(name, invented + b"," + own)], PROXIES) == client_of([(name, own)], PROXIES)


@given(st.lists(st.tuples(st.sampled_from(sorted(FORWARDED_FIELDS)), st.binary(max_size=60)), max_size=4))
def test_whatever_comes_an_address_is_an_address(fields: list[tuple[bytes, bytes]]) -> None:
    found = client_of(fields, PROXIES)
    assert found.address in (None, "unix:") or plain_address(str(found.address)) == found.address


def test_who_is_trusted() -> None:
    assert all(peer in PROXIES for peer in ("10.255.0.1", "192.0.2.1", "2001:db8:ffff::1", "::1", "unix:"))
    assert not any(
        peer in PROXIES for peer in ("11.0.0.0", "192.0.2.2", "2001:db9::", "::", "0.0.0.1", "unix", "x", "")
    )
    assert "fe80::1%eth0" in Trusted(["fe80::/10"])
    assert "unix:" not in Trusted(["0.0.0.0/0", "::/0"])
    assert "8.8.8.8" in Trusted(["0.0.0.0/0"])
    assert "8.8.8.8" not in Trusted(["::/0"])


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_networks_hold_what_shares_their_bits(network: IPv4Address, length: int, address: IPv4Address) -> None:
    shift = 32 - length
    base = IPv4Address(int(network) >> shift << shift)
    expected = int(address) >> shift == int(network) >> shift
    assert (str(address) in Trusted([f"{base}/{length}"])) == expected
    assert str(base) in Trusted([f"{base}/{length}"])


@given(st.ip_addresses(v=6))
def test_the_one_form_is_stable(address: IPv6Address) -> None:
    plain = plain_address(address.exploded.upper())
    assert plain_address(plain) == plain == plain.lower()
