"""Which addresses the engine may call for somebody else, and which are this machine's own. Does no I/O."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

METADATA_ADDRESSES = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "fd00:ec2::254",  # Amazon, over IPv6
        "fd20:ce::254",  # Google, over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's own server, at an address like any other
        "192.0.0.192",  # Oracle, older machines
    )
)
"""Where clouds tell a machine its secrets."""

_SITE_LOCAL = ip_network("fec0::/10")  # RFC 3879
_THIS_NETWORK = ip_network("0.0.0.0/8")  # RFC 1122 §3.2.1.3; most systems take it for themselves
_EMBEDDING = (  # networks whose addresses stand for an IPv4 address, and how many bits follow it
    (IPv6Network("::/96"), 0),  # IPv4-compatible (RFC 4291 §2.5.5.1)
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped (RFC 4291 §2.5.5.2)
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of a site (RFC 8215)
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)
_TEREDO = IPv6Network("2001::/32")  # RFC 4380: the client's address, inverted
_ALL_ONES = 2**32 - 1


def literal_address(host: str) -> Address | None:
    """Return the address that a host of a URL is, also written as C libraries read it; None for a name.

    `2130706433`, `0x7f.1` and `0177.0.0.1` are all 127.0.0.1; a zone (`fe80::1%eth0`) is ignored.
    """
    host = host.strip("[]").rstrip(".")
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host)) if host.isascii() and not any(map(str.isspace, host)) else None
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Say whether a host, a name or an address, is reached from this machine alone."""
    address = literal_address(host)
    if address is None:
        return host.rstrip(".").lower() == "localhost"
    return _meant(address).is_loopback


def refusal(address: Address, *, private_allowed: bool) -> str | None:
    """Return what kind of address it is if it must not be called; None if it may.

    An IPv6 address that stands for an IPv4 one counts as that one.
    """
    meant = _meant(address)
    if meant in METADATA_ADDRESSES:
        return "a metadata address"
    if meant.is_link_local:
        return "a link-local address"
    if meant.is_multicast or meant.is_unspecified or meant in _THIS_NETWORK:
        return "no address of one machine"
    if meant.is_loopback:
        return None if private_allowed else "a loopback address"
    if meant.version == 4 and meant.is_reserved:
        return "a reserved address"
    if not meant.is_global or meant in _SITE_LOCAL:
        return None if private_allowed else "a private address"
    return None


def _meant(address: Address) -> Address:
    if isinstance(address, IPv4Address) or address == ipaddress.IPv6Address("::1") or int(address) == 0:
        return address
    for network, bits in _EMBEDDING:
        if address in network:
            return IPv4Address((int(address) >> bits) & _ALL_ONES)
    if address in _TEREDO:
        return IPv4Address(~int(address) & _ALL_ONES)
    return address
