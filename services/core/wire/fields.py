"""Conversions of single fields, shared by the codecs of this package."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.core.catalogue import Instant
from services.core.errors import MalformedMessage
from services.core.volumes import Vector
from services.core.wire._pb import Primitives3D_pb2 as primitives

M = TypeVar("M", bound=Message)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Encoding(StrEnum):
    """How an answer is written: what the client's Accept header asked for."""

    PROTOBUF = "protobuf"
    JSON = "json"


def serialize(message: Message, encoding: Encoding) -> bytes:
    """`message` as protobuf, or as JSON with the schema's own field names and defaults written out."""
    if encoding is Encoding.PROTOBUF:
        return message.SerializeToString()
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, ensure_ascii=False
    )
    return text.encode()


def parse(kind: type[M], data: bytes) -> M:
    """Parse `data` as a message of `kind`.

    Raises:
        MalformedMessage: it is not one.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedMessage(
            f"The body does not parse as a protobuf {kind.DESCRIPTOR.full_name} ({error}); check that the whole "
            "message was sent, serialized by the protos of this API."
        ) from error


def text(value: str, field: str) -> str:
    """`value`, if it can be stored.

    Raises:
        MalformedMessage: it holds a NUL character, which PostgreSQL cannot keep.
    """
    if "\x00" in value:
        raise MalformedMessage(f"{field} holds a NUL character, which is not text; send it without.")
    return value


def vector_from(message: Message, field: str) -> Vector | None:
    """The Vector3D in `field` as (x, y, z); None when it is absent."""
    if not message.HasField(field):
        return None
    vector: primitives.Vector3D = getattr(message, field)
    return vector.X, vector.Y, vector.Z


def vector_to(vector: Vector | None) -> primitives.Vector3D | None:
    """The inverse of `vector_from`."""
    return None if vector is None else primitives.Vector3D(X=vector[0], Y=vector[1], Z=vector[2])


def score_from(message: Message, field: str) -> float | None:
    """The DoubleValue in `field`; None when it is absent."""
    if not message.HasField(field):
        return None
    return float(getattr(message, field).Value)


def instant_from(message: Message, field: str) -> Instant | None:
    """The Timestamp in `field`; None when it is absent.

    Raises:
        MalformedMessage: outside the years 1 to 9999, or with nanoseconds outside 0 to 999,999,999.
    """
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    if not 0 <= stamp.nanos < 1_000_000_000:
        raise MalformedMessage(f"{field} has {stamp.nanos} nanoseconds; a timestamp has 0 to 999,999,999.")
    try:
        at = _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError as error:
        raise MalformedMessage(f"{field} lies outside the years 1 to 9999 ({stamp.seconds} s since 1970).") from error
    return Instant(at, stamp.nanos % 1000)


def instant_to(instant: Instant | None) -> Timestamp | None:
    """The inverse of `instant_from`."""
    return None if instant is None else timestamp(instant.at, instant.nanoseconds)


def timestamp(at: datetime, nanoseconds: int = 0) -> Timestamp:
    """A UTC datetime, and the nanoseconds below its microsecond, as Timestamp."""
    since = at - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000 + nanoseconds)
