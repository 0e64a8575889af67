"""Arbitrary messages for hypothesis, built from the descriptors: every field, open enumerations, any presence."""

from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from services.core.wire._pb import Model_pb2 as pb

M = TypeVar("M", bound=Message)

FIRST_SECOND = -62_135_596_800
"""0001-01-01T00:00:00Z, since 1970."""
LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z, since 1970."""

storable_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
"""Every character but NUL and surrogates."""
finite = st.floats(allow_nan=False, allow_infinity=False)
timestamps = st.builds(
    Timestamp,
    seconds=st.sampled_from([FIRST_SECOND, 0, LAST_SECOND]) | st.integers(FIRST_SECOND, LAST_SECOND),
    nanos=st.sampled_from([0, 999_999_999]) | st.integers(0, 999_999_999),
)

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: storable_text,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=12),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: finite,
    FieldDescriptor.TYPE_UINT32: st.sampled_from([0, 2**32 - 1]) | st.integers(0, 2**32 - 1),
    # Enumerations of proto3 are open: numbers that no schema names must survive too.
    FieldDescriptor.TYPE_ENUM: st.integers(0, 3) | st.integers(-(2**31), 2**31 - 1),
}


def messages(kind: type[M], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[M]:
    """Any message of `kind`; `fields` replace the strategy of a field of that name, at any depth."""
    return cast(st.SearchStrategy[M], _messages(cast(Descriptor, kind.DESCRIPTOR), fields))


def _messages(descriptor: Descriptor, fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Message]:
    if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
        return timestamps
    kind = GetMessageClass(descriptor)
    values = {field.name: _values(field, fields) for field in descriptor.fields}
    return st.fixed_dictionaries(values).map(lambda given: kind(**given))


def _values(field: FieldDescriptor, fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if field.name in fields:
        return fields[field.name]
    if field.message_type is None:
        one = _SCALARS[field.type]
        return st.lists(one, max_size=3) if field.is_repeated else one
    one = _messages(field.message_type, fields)
    return st.lists(one, max_size=2) if field.is_repeated else st.none() | one


def families(name: st.SearchStrategy[str] | None = None, prefix: str = "") -> st.SearchStrategy[pb.ModelFamily]:
    """Any ModelFamily that can be stored: it has a name, and its versions have identifiers of their own."""
    versions = st.lists(
        messages(pb.ModelVersion, ID=storable_text.map(lambda words: f"{prefix}{words}-")),
        unique_by=lambda version: version.ID,
        max_size=3,
    )
    if name is None:
        name = storable_text.map(lambda words: f"{words}!")
    return messages(pb.ModelFamily, CanonicalName=name, ModelVersions=versions)


def wire(message: Message) -> bytes:
    """The canonical bytes: unlike ==, they tell -0.0 from 0.0 and an absent message from an empty one."""
    return message.SerializeToString(deterministic=True)
