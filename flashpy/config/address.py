"""Listen addresses, "host:port", "[v6]:port", "unix:PATH", and those of proxies. Values only: nothing is resolved.

An address is brought to one form, so that the same one written in two ways is seen as the same:
lower-case names, IPv6 compressed, ports without leading zeros, paths absolute.
"""

import ipaddress
import re
from pathlib import Path

# struct sockaddr_un holds 108 bytes with the final NUL.
_LONGEST_PATH = 107
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

FORMS = '"host:port", "[v6]:port" or "unix:PATH"'


def parse_address(text: str, base: Path) -> str:
    """The one form of an address; a relative path of a socket is under `base`.

    Raises ValueError with a sentence about what is wrong.
    """
    if text.startswith("unix:"):
        return "unix:" + _socket_path(text.removeprefix("unix:"), base)
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise ValueError(f"expected {FORMS}, but {text!r} has no port")
    if host in ("", "*"):
        raise ValueError(f'to listen on all addresses write "0.0.0.0:{port}" or "[::]:{port}"')
    return f"{_host(host)}:{_port(port)}"


def parse_host(text: str) -> str:
    """The one form of a host name or address as in a Host field without port. Raises ValueError."""
    host = text.lower()
    if host.startswith("["):
        return _bracketed(host)
    if ":" in host:
        raise ValueError(f"expected a name without port (an IPv6 address in brackets), not {text!r}")
    if not text.isascii():
        raise ValueError(f"write {text!r} in its ASCII form, which begins with xn--")
    if "*" in host:
        raise ValueError(
            f"{text!r} is not a host name: name each host in full, or let the first site answer for the rest"
        )
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{text!r} is not a host name")
    return host


def parse_proxy(text: str) -> str:
    """The one form of a trusted proxy: an address, a network with its length, or "unix:". Raises ValueError.

    A network whose address has bits beyond its length is refused: which of the two is the mistake nobody can know.
    """
    if text == "unix:":
        return text
    if text.startswith("unix:"):
        raise ValueError('expected "unix:" alone, which means every peer on a unix socket: they have no addresses')
    address, slash, length = text.partition("/")
    try:
        network = ipaddress.ip_interface(text).network
    except ValueError:
        network = None
    if network is None or "%" in text or (slash and not length.isdecimal()):
        raise ValueError(f'expected an address, a network such as "10.0.0.0/8", or "unix:", not {text!r}')
    if ipaddress.ip_address(address) != network.network_address:
        raise ValueError(f'{text!r} has bits beyond its length; the network is "{network}"')
    if network.version == 6 and network.network_address.ipv4_mapped is not None and network.prefixlen >= 96:
        raise ValueError(f"write {text!r} as the IPv4 address or network that it means")
    return str(network) if slash else str(network.network_address)


def _host(text: str) -> str:
    if ":" in text and not text.startswith("["):
        raise ValueError(f'an IPv6 address needs brackets: "[{text}]:port"')
    host = parse_host(text)
    if host.replace(".", "").isdecimal():
        return _version_4(host)
    return host


def _version_4(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv4 address") from None


def _bracketed(host: str) -> str:
    try:
        if not host.endswith("]"):
            raise ValueError
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv6 address in brackets") from None


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"expected a port from 0 to 65535, not {text!r}")
    return int(text)


def _socket_path(text: str, base: Path) -> str:
    if not text or text.endswith("/") or "\0" in text:
        raise ValueError("expected the path of a socket after unix:")
    path = str(base / text)
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"the path of a socket may have {_LONGEST_PATH} bytes, and {path} has more")
    return path
