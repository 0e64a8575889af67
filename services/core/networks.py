"""Networks that settings name, and addresses as they come from sockets and headers, in one spelling."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

UNIX = "unix"
"""A peer on a Unix socket, which has no address: who may connect is decided by the socket's file."""
UNKNOWN = "unknown"
"""An address that nobody can vouch for. It is in no network."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Networks:
    """Some networks, and perhaps Unix sockets."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def __contains__(self, address: str) -> bool:
        """Whether `address`, as `normal_address` spells it, is in one of them."""
        if address == UNIX:
            return self.unix
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)


def networks(texts: Iterable[str]) -> Networks:
    """`texts` as networks: CIDRs, single addresses, or `unix`.

    Raises:
        ValueError: one of them is none; an address with bits beyond its prefix is a mistake, too.
    """
    found, unix = [], False
    for text in texts:
        if text == UNIX:
            unix = True
            continue
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f"«{text}» is no network ({error}); write 192.0.2.0/24, 2001:db8::/32 or unix") from error
    return Networks(tuple(found), unix)


def normal_address(text: str) -> str:
    """The one spelling of an address: IPv4 in IPv6 as IPv4, without brackets, port and zone; UNKNOWN for anything else.

    A header's entry may carry a port: `192.0.2.1:443`, `[2001:db8::1]:443`.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = _parsed(text.partition("%")[0])
    return UNKNOWN if parsed is None else str(parsed)


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
