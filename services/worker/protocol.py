"""What worker and model host say to each other: JSON objects with a length before them, on a Unix socket.

JSON and not pickle, because the host runs code that nobody checked and the worker reads what it sends.

Worker to host: `load` {spec} and `segment` {volumes}, the latter followed by one byte that carries the workspace's
descriptor. Host to worker: `progress` {fraction} and `note` {text}, then `done` {device_bytes, stage_seconds}, or
`failed` {kind, details, reusable}.
"""

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.volumes import Geometry, Volume

Message = dict[str, Any]

MESSAGE_LIMIT_BYTES = 1024**2
"""Far above any spec; a host that announces more is not speaking this protocol."""

_LENGTH = struct.Struct("!I")


class ProtocolError(Exception):
    """Bytes that are no message."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message with its length."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def _decode(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


def _checked_length(header: bytes) -> int:
    length: int = _LENGTH.unpack(header)[0]
    if length > MESSAGE_LIMIT_BYTES:
        raise ProtocolError(f"a message of {length} bytes")
    return length


def receive(connection: socket.socket) -> Message | None:
    """The next message, waiting for it; None when the other side is gone. Raises ProtocolError."""
    header = _receive_exactly(connection, _LENGTH.size)
    if header is None:
        return None
    body = _receive_exactly(connection, _checked_length(header))
    return None if body is None else _decode(body)


def _receive_exactly(connection: socket.socket, count: int) -> bytes | None:
    """`count` bytes and not one more: the byte after a message may carry a descriptor."""
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            return None
        received += chunk
    return bytes(received)


class MessageBuffer:
    """Puts messages together from whatever pieces arrive, so that half a message blocks nobody."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that `chunk` completes. Raises ProtocolError."""
        self._bytes += chunk
        while len(self._bytes) >= _LENGTH.size:
            length = _checked_length(bytes(self._bytes[: _LENGTH.size]))
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield _decode(body)


def volume_to_json(volume: Volume) -> Message:
    """A volume without its voxels: their shape, and where they lie."""
    geometry = volume.geometry
    return {
        "shape": volume.shape,
        "channel_id": volume.channel_id,
        "geometry": [geometry.origin, geometry.x_axis, geometry.y_axis, geometry.z_axis, geometry.spacing],
    }


def volume_from_json(values: Message, voxels: NDArray[np.int16]) -> Volume:
    """The volume that `volume_to_json` described."""
    return Volume(voxels, Geometry(*(tuple(vector) for vector in values["geometry"])), values["channel_id"])
