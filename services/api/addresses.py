"""Whose address a request comes from: the TCP peer's, or what a proxy that settings name says of it."""

from starlette.requests import Request

from services.core.networks import UNIX, UNKNOWN, Networks, normal_address

FORWARDED_FOR = "x-forwarded-for"
FORWARDING = (FORWARDED_FOR, "x-real-ip", "forwarded")
"""What a proxy adds. From a peer that is no proxy of ours, it tells only that there is one that nobody named."""


def client_address(request: Request, proxies: Networks) -> str:
    """The client's address, UNIX for a peer on a Unix socket, or UNKNOWN where nobody we trust names one.

    Behind a proxy it is the right-most entry of X-Forwarded-For that is no proxy itself: entries to its left are what
    the client says of itself.
    """
    peer = peer_address(request)
    if peer not in proxies:
        return peer
    entries = ",".join(request.headers.getlist(FORWARDED_FOR)).split(",")
    for entry in reversed(entries):
        address = normal_address(entry)
        if address not in proxies:
            return address
    return UNKNOWN


def peer_address(request: Request) -> str:
    """Of whoever opened the connection."""
    return UNIX if request.client is None else normal_address(request.client.host)


def is_vouched_for(request: Request, proxies: Networks) -> bool:
    """Whether the address may open anything: not where an unnamed proxy stands between, whose own address it is."""
    return peer_address(request) in proxies or not any(name in request.headers for name in FORWARDING)
