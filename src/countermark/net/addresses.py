"""Which addresses a request may go to. A name is resolved once; what it resolved to is checked, then connected to."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from countermark.model.errors import ConfigError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

NETWORKS_MAX = 64
# Ranges in which an IPv6 address leads to an IPv4 one through a translator, and so perhaps to a private one:
# NAT64 (RFC 6052, 8215), 6to4 (RFC 3056), Teredo (RFC 4380), IPv4-compatible (RFC 4291).
_TRANSLATED = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
# What the library takes for public beyond that (site-local fec0::/10, reserved space) is not: RFC 4291 section 2.5.4,
# RFC 9637 for documentation.
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")


def address_of(text: str) -> Address:
    """The address of what ``getaddrinfo`` answered; an IPv4 address in IPv6 clothes is the IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def may_reach(address: Address, *, local: bool, allowed: Sequence[Network]) -> bool:
    """Whether a request may go there: ``local`` names go to this machine only, others to the public internet or to
    ``allowed`` networks.
    """
    if local:
        return address.is_loopback
    if any(address.version == network.version and address in network for network in allowed):
        return True
    if address.is_multicast or any(address.version == net.version and address in net for net in _TRANSLATED):
        return False
    if address.version == 6 and (address not in _GLOBAL_IPV6 or address in _DOCUMENTATION):
        return False
    return address.is_global


def networks_of(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks or single addresses, as ``allow_addresses`` lists them. Raises ``ConfigError``."""
    if len(texts) > NETWORKS_MAX:
        raise ConfigError(f"allow_addresses lists more than {NETWORKS_MAX} networks")
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"allow_addresses: {error}", hint='Write networks like "10.20.0.0/16".') from None
