"""A model that wants to fetch something is told no at once: it has to carry what it needs.

Connections are refused where Python makes them, so that nobody waits for a name server that is not there.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.core.errors import ModelFailed


class NetworkRefused(ConnectionError):
    """What code that wants a connection gets; it may have another way and go on."""


@contextmanager
def without_network(what: str) -> Iterator[None]:
    """Refuse every connection but those within this machine's kernel (AF_UNIX), in the whole process, for a while.

    Args:
        what: the model, as the message calls it: The bundle.

    Raises ModelFailed, which names the host, for an error that follows a refused connection.
    """
    asked: list[str] = []
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(host: object) -> None:
        asked.append(str(host))
        raise NetworkRefused(f"there is no network here to reach {host}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            refuse(_host(address))
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family != socket.AF_UNIX:
            refuse(_host(address))
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *arguments: Any, **named: Any) -> Any:
        if host is not None:
            refuse(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *arguments, **named)

    guarded = {"connect": guarded_connect, "connect_ex": guarded_connect_ex}
    for name, method in guarded.items():
        setattr(socket.socket, name, method)
    socket.getaddrinfo = guarded_look_up
    try:
        yield
    except Exception as error:
        if not asked:
            raise
        raise ModelFailed(
            f"{what} wants to fetch something from {asked[-1]}, and models run without a network; put what it needs "
            "into its file, have its configuration read it from there, and attach it again."
        ) from error
    finally:
        for name in guarded:
            delattr(socket.socket, name)  # and both are again those of C's socket, from which Python's derives
        socket.getaddrinfo = look_up


def _host(address: Any) -> object:
    return address[0] if isinstance(address, tuple) and address else address
