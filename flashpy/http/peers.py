"""WORKER: addresses of clients and proxies: their one form, and which of them are trusted.

An address is a text as it stands in the access log: IPv4, IPv6 compressed and in lower case, or `unix:` for whoever
came through a unix socket. An IPv4 address wrapped in IPv6 (`::ffff:192.0.2.1`) is the same client, so it is unwrapped:
it would otherwise be trusted by one name and not by the other.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

UNIX: Final = "unix:"
_REMEMBERED = 4096


def plain_address(text: str) -> str:
    """The one form of an IP address. Raises ValueError for what is none, and for one with a zone (`fe80::1%eth0`)."""
    if "%" in text:
        raise ValueError("an address with a zone")
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


class Trusted:
    """The proxies whose word is taken: `address in trusted`.

    `proxies` are addresses, networks (`10.0.0.0/8`) and `unix:`, as the configuration has checked them. How long a look
    takes depends on how many lengths of networks there are, not on how many networks.
    """

    def __init__(self, proxies: Iterable[str]) -> None:
        self._unix = False
        self._networks: dict[tuple[int, int], set[int]] = {}
        for text in proxies:
            if text == UNIX:
                self._unix = True
            else:
                network = ip_network(text)
                shift = network.max_prefixlen - network.prefixlen
                self._networks.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._known = lru_cache(maxsize=_REMEMBERED)(self._holds)

    def __contains__(self, address: str) -> bool:
        return self._known(address)

    def _holds(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        try:
            peer = ip_address(address.partition("%")[0])  # the kernel names the zone of a link-local peer
        except ValueError:
            return False
        number = int(peer)
        return any(
            number >> shift in networks
            for (version, shift), networks in self._networks.items()
            if version == peer.version
        )
