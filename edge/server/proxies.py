"""Reverse proxies before the server: which are trusted, whom they vouch for, and where their requests come from."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FORWARDED_FOR, FORWARDED_PROTO = "x-forwarded-for", "x-forwarded-proto"
MAX_NAME = 64
# the values of a header, in their order; the name is in lower case
Headers = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Proxies:
    """What is configured.

    Attributes:
        header: in lower case, in which a proxy tells who has logged in there; empty: in none.
        trusted: addresses, or networks as ``10.0.0.0/30``.
    """

    header: str = ""
    trusted: tuple[str, ...] = ()

    def is_trusted(self, address: str) -> bool:
        """Whether what comes from here may be believed."""
        if not self.trusted:
            return False
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in ipaddress.ip_network(network, strict=False) for network in self.trusted)

    def vouched(self, address: str, headers: Headers) -> tuple[str, bool]:
        """The user whom a trusted proxy names, and whether somebody else tried to name one.

        A header that is there twice names nobody: one of them is the client's own.
        """
        values = headers(self.header) if self.header else ()
        if not values:
            return "", False
        if not self.is_trusted(address):
            return "", True
        name = values[0].strip()
        return (name, False) if len(values) == 1 and len(name) <= MAX_NAME else ("", True)

    def client_of(self, address: str, headers: Headers) -> str:
        """Where a request comes from: through trusted proxies, the last address that is none of them."""
        if not self.is_trusted(address):
            return address
        told = [one.strip() for value in headers(FORWARDED_FOR) for one in value.split(",")][-16:]
        for one in reversed(told):
            try:
                ipaddress.ip_address(one)
            except ValueError:
                return address
            address = one
            if not self.is_trusted(one):
                return one
        return address

    def is_secure(self, address: str, headers: Headers) -> bool:
        """Whether a trusted proxy says that the browser speaks HTTPS with it."""
        if not self.is_trusted(address):
            return False
        told = headers(FORWARDED_PROTO)
        return len(told) == 1 and told[0].strip().lower() == "https"


NO_PROXIES = Proxies()


def is_same_origin(headers: Headers, *, is_told: bool) -> bool:
    """Whether a page of this server makes the request, by what the browser says of itself.

    Args:
        headers: of the request.
        is_told: whether the browser must say it; a program says nothing.
    """
    site, origin, host = (headers(name) for name in ("sec-fetch-site", "origin", "host"))
    if site:
        # "none": somebody has typed the address
        return set(site) <= {"same-origin"} | (set() if is_told else {"none"})
    if not origin:
        return not is_told
    # it has the port where that is not the usual one, as Host has
    return len(origin) == len(host) == 1 and origin[0].partition("://")[2].lower() == host[0].strip().lower()
