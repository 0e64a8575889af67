"""Where voxel data lies in an encoded message, so that it can stay there.

A message is megabytes of compressed voxels around a few hundred bytes. One pass over its encoding
(https://protobuf.dev/programming-guides/encoding/) notes where each channel's `Data` lies and copies the rest, which
is all that a parser needs to see.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from services.core.errors import InvalidModelInput, MalformedMessage

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_VALUE_BYTES, _KEY_BYTES = 10, 5
"""Longest encodings that the parser takes of a value of 64 bits, and of a key or a length of 32."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where bytes lie in a buffer."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a message has its voxel data, and how much of anything else it may have."""

    message: str
    """Its name in the schema."""
    called: str
    """What a person calls it."""
    path_to_data: tuple[int, ...]
    """Field numbers from the message to the data of one channel; the first is the repeated one."""
    most_channels: int
    most_description_bytes: int
    most_fields: int


def without_voxels(buffer: memoryview, layout: Layout) -> tuple[bytes, list[Span]]:
    """The serialized message in `buffer` without its voxel data, and where that lies: one span per channel, in order.

    Raises:
        MalformedMessage: it is not the encoding of a message.
        InvalidModelInput: more channels, fields or description than `layout` allows.
    """
    return _Walk(buffer, layout).strip()


@dataclass(slots=True)
class _Walk:
    """One pass over an encoded message that copies everything but the voxel data."""

    buffer: memoryview
    layout: Layout
    fields: int = 0
    description_bytes: int = 0
    spans: list[Span] = field(default_factory=list)

    def strip(self) -> tuple[bytes, list[Span]]:
        """The message without its `Data` fields, and one span per channel, in order."""
        description = bytearray()
        for number, wire_type, key_at, value_at, end in self._fields(0, len(self.buffer)):
            if number == self.layout.path_to_data[0] and wire_type == _LENGTH_DELIMITED:
                if len(self.spans) == self.layout.most_channels:
                    raise InvalidModelInput(
                        f"The {self.layout.called} has more than {self.layout.most_channels} channels; send one volume "
                        "for each of the model's."
                    )
                channel, span = self._without_data(value_at, end, 1)
                self.spans.append(span or Span(value_at, 0))
                description += _length_delimited(number, channel)
            else:
                description += self._copy(key_at, end)
        return bytes(description), self.spans

    def _without_data(self, start: int, end: int, level: int) -> tuple[bytes, Span | None]:
        """The embedded message in [start, end) without its data. Repeated singular fields merge, the last data wins."""
        kept = bytearray()
        span = None
        for number, wire_type, key_at, value_at, value_end in self._fields(start, end):
            if number != self.layout.path_to_data[level] or wire_type != _LENGTH_DELIMITED:
                kept += self._copy(key_at, value_end)
            elif level == len(self.layout.path_to_data) - 1:
                span = Span(value_at, value_end - value_at)
            else:
                inner, inner_span = self._without_data(value_at, value_end, level + 1)
                span = inner_span or span
                kept += _length_delimited(number, inner)
        return bytes(kept), span

    def _copy(self, start: int, end: int) -> memoryview:
        self.description_bytes += end - start
        if self.description_bytes > self.layout.most_description_bytes:
            raise InvalidModelInput(
                f"The {self.layout.called} carries more than {self.layout.most_description_bytes} bytes besides its "
                f"voxel data; send only the fields of {self.layout.message}."
            )
        return self.buffer[start:end]

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (number, wire type, key position, value position, end) of each field in [start, end)."""
        position = start
        while position < end:
            self.fields += 1
            if self.fields > self.layout.most_fields:
                raise InvalidModelInput(
                    f"The {self.layout.called} has more than {self.layout.most_fields} fields; send only those of "
                    f"{self.layout.message}."
                )
            key_at = position
            key, position = self._varint(position, end, _KEY_BYTES)
            number, wire_type = key >> 3, key & 7
            value_at = position
            if wire_type == _VARINT:
                _, position = self._varint(position, end, _VALUE_BYTES)
            elif wire_type == _FIXED64:
                position += 8
            elif wire_type == _FIXED32:
                position += 4
            elif wire_type == _LENGTH_DELIMITED:
                length, value_at = self._varint(position, end, _KEY_BYTES)
                position = value_at + length
            else:
                raise MalformedMessage(
                    f"The body is not a {self.layout.message}: wire type {wire_type} at byte {key_at}."
                )
            if position > end:
                raise MalformedMessage(
                    f"The body is cut off: a field at byte {key_at} reaches past the end; send the whole message."
                )
            yield number, wire_type, key_at, value_at, position

    def _varint(self, position: int, end: int, most_bytes: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * most_bytes, 7):
            if position >= end:
                raise MalformedMessage("The body is cut off in the middle of a field; send the whole message.")
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise MalformedMessage(f"The body is not a {self.layout.message}: an endless number before byte {position}.")


def _length_delimited(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
