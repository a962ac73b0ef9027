"""Addresses of machines: which of them are this one, and which belong together."""

from __future__ import annotations

import ipaddress

# an IPv6 user has a whole /64
HOST_BITS = 64


def network_of(address: str) -> str:
    """What one user has: an IPv4 address, or 64 bits of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped) if found.ipv4_mapped else f"{int(found) >> HOST_BITS:x}::/{HOST_BITS}"


def is_loopback(address: str) -> bool:
    """Whether an address, or ``localhost``, can only be this machine."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address.lower() == "localhost"
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def is_public(address: str) -> bool:
    """Whether an address is of the internet, and not of this machine or a network of its own."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (mapped is None or is_public(str(mapped)))
