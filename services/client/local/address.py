"""Where the API listens: a port that is free now, and the URL that people open."""

import errno
import ipaddress
import socket

from services.client.local.faults import AddressUnavailable


def free_port(host: str, port: int) -> int:
    """The port, after binding it once; with 0, any that is free.

    Raises:
        AddressUnavailable: it is taken, not allowed, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Connections of an earlier run may still be closing; the API itself binds like this too.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise AddressUnavailable(
                f"Port {port} on {host} is taken by another program; choose another with --port, or --port 0 for any."
            ) from error
        if isinstance(error, PermissionError):
            raise AddressUnavailable(f"Port {port} needs more rights; choose one above 1023 with --port.") from error
        raise AddressUnavailable(f"{host} port {port} cannot be bound: {error}. Correct --host or --port.") from error


def is_wildcard(host: str) -> bool:
    """Whether the host means every interface."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    """The URL at which this machine itself reaches the service."""
    if is_wildcard(host):
        host = "127.0.0.1" if ipaddress.ip_address(host).version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
