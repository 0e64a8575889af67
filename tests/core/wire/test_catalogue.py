"""ModelFamily messages survive the way into values and back, byte for byte."""

import json
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.catalogue import Instant
from services.core.errors import MalformedMessage
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.catalogue import (
    decode_family,
    decode_family_json,
    decode_models,
    encode_family,
    encode_models,
)
from services.core.wire.fields import Encoding
from tests.core.messages import FIRST_SECOND, LAST_SECOND, families, wire
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL


def test_the_peers_own_family_survives_byte_for_byte() -> None:
    message = SAMPLE_FAMILY.read_bytes()
    family = decode_family(message)
    assert encode_family(family) == message
    assert [version.model_id for version in family.versions] == [SAMPLE_MODEL]


@settings(max_examples=150, deadline=None)
@given(families())
def test_any_family_survives(message: pb.ModelFamily) -> None:
    assert encode_family(decode_family(wire(message))) == wire(message)


@settings(max_examples=40, deadline=None)
@given(families())
def test_any_family_survives_as_json(message: pb.ModelFamily) -> None:
    family = decode_family(wire(message))
    assert decode_family_json(encode_family(family, Encoding.JSON).decode()) == family


@settings(max_examples=20, deadline=None)
@given(st.lists(families(), max_size=3))
def test_any_collection_survives(messages: list[pb.ModelFamily]) -> None:
    collection = pb.ModelsCollection(Models=messages)
    assert encode_models(decode_models(wire(collection)), Encoding.PROTOBUF) == wire(collection)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0])
def test_numbers_that_are_no_number_survive(value: float) -> None:
    message = wire(pb.ModelFamily(CanonicalName="f", ModelVersions=[{"ID": "v", "NumberOfCreditsRequired": value}]))
    family = decode_family(message)
    assert encode_family(family) == message
    assert encode_family(decode_family_json(encode_family(family, Encoding.JSON).decode())) == message


def test_absent_and_empty_messages_stay_two_things() -> None:
    absent = pb.ModelFamily(CanonicalName="f")
    empty = pb.ModelFamily(CanonicalName="f", FamilyDescription=pb.ModelFamilyDescription())
    assert decode_family(wire(absent)).description is None
    assert decode_family(wire(empty)).description is not None
    assert encode_family(decode_family(wire(empty))) == wire(empty) != wire(absent)


def test_timestamps_keep_their_nanoseconds() -> None:
    message = family_created(Timestamp(seconds=1, nanos=123_456_789))
    (version,) = decode_family(wire(message)).versions
    assert version.created_on == Instant(datetime(1970, 1, 1, 0, 0, 1, 123_456, tzinfo=UTC), 789)


def test_timestamps_reach_from_year_1_to_year_9999() -> None:
    for seconds, year in ((FIRST_SECOND, 1), (LAST_SECOND, 9999)):
        message = family_created(Timestamp(seconds=seconds, nanos=999_999_999))
        family = decode_family(wire(message))
        created_on = family.versions[0].created_on
        assert created_on is not None
        assert created_on.at.year == year
        assert encode_family(family) == wire(message)


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(FIRST_SECOND - 1, 0), (LAST_SECOND + 1, 0), (2**63 - 1, 0), (-(2**63), 0), (0, -1), (0, 1_000_000_000)],
)
def test_a_timestamp_out_of_range_is_malformed(seconds: int, nanos: int) -> None:
    message = family_created(Timestamp())
    message.ModelVersions[0].CreatedOn.seconds = seconds
    message.ModelVersions[0].CreatedOn.nanos = nanos
    with pytest.raises(MalformedMessage, match="CreatedOn"):
        decode_family(wire(message))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (pb.ModelFamily(), "no CanonicalName"),
        (pb.ModelFamily(CanonicalName="f", ModelVersions=[pb.ModelVersion()]), "no ID"),
        (pb.ModelFamily(CanonicalName="f", ModelVersions=[{"ID": "v"}, {"ID": "w"}, {"ID": "v"}]), "have the ID v;"),
        (pb.ModelFamily(CanonicalName="f\0"), "CanonicalName holds a NUL"),
        (pb.ModelFamily(CanonicalName="f", LanguageCode="\0"), "LanguageCode holds a NUL"),
        (pb.ModelFamily(CanonicalName="f", ModelVersions=[{"ID": "\0"}]), "ModelVersion.ID holds a NUL"),
        (
            pb.ModelFamily(CanonicalName="f", FamilyDescription={"InputChannels": [{"ChannelID": "\0"}]}),
            "ChannelID holds a NUL",
        ),
        (
            pb.ModelFamily(CanonicalName="f", ModelVersions=[{"ID": "v", "Structures": [{"Name": "\0"}]}]),
            "Structure.Name holds a NUL",
        ),
    ],
)
def test_a_family_that_cannot_be_stored_or_offered_is_malformed(message: pb.ModelFamily, said: str) -> None:
    with pytest.raises(MalformedMessage, match=said):
        decode_family(wire(message))


def test_no_text_of_a_family_escapes_the_check_for_nul() -> None:
    # Given a family with every text set, as the JSON mapping shows it
    filled = json.loads(encode_family(decode_family(SAMPLE_FAMILY.read_bytes()), Encoding.JSON))
    filled["ModelVersions"][0]["RegulatoryFrameworks"] = [
        dict.fromkeys(("Framework", "UDI", "Manufacturer", "DetailsURL"), "")
    ]
    places = list(text_places(filled))
    assert len(places) > 15
    # When each text in turn holds a NUL, Then it is refused
    for place in places:
        document = json.loads(json.dumps(filled))
        parent = document
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = "a\0b"
        with pytest.raises(MalformedMessage, match="NUL"):
            decode_family_json(json.dumps(document))


def test_a_value_that_an_enum_does_not_have_is_told_with_those_it_has() -> None:
    channel = {"ChannelID": "1", "Constraints": {"AcceptedModalities": ["CT", "MR"]}}
    document = {"CanonicalName": "f", "FamilyDescription": {"InputChannels": [channel]}}
    with pytest.raises(MalformedMessage) as refused:
        decode_family_json(json.dumps(document))
    assert str(refused.value) == (
        "The document is not a ModelFamily in protobuf's JSON mapping: Invalid enum value MR for enum type "
        "Radiomics.ModelChannelConstraints.ModalityTypes at "
        "ModelFamily.FamilyDescription.InputChannels[0].Constraints.AcceptedModalities[1]; it has to be one of CT, "
        "CTA, MR_T1, MR_T2, MR_GAD, MR_FLAIR, PET."
    )


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0a\x01\xff", b"<html>"])
def test_bytes_that_are_no_family_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="does not parse"):
        decode_family(data)


@pytest.mark.parametrize(
    "document",
    [
        *("", "{", "null", '"x"', "[1]", '{"Nonsense": 1}', '{"CanonicalName": 5}', '{"CanonicalName": "\\ud800"}'),
        '{"CanonicalName": "f", "ModelVersions": [{"ID": "v", "CreatedOn": "yesterday"}]}',
        '{"CanonicalName": "f", "ModelVersions": [{"ID": "v", "CreatedOn": "10000-01-01T00:00:00Z"}]}',
        '{"CanonicalName": "f", "ModelVersions": [{"ID": "v", "MajorVersion": -1}]}',
        "[" * 100_000,
    ],
    ids=lambda document: document[:40],
)
def test_a_document_that_is_no_family_is_malformed(document: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_family_json(document)


def test_json_has_the_schemas_names_and_names_enumerations() -> None:
    family = decode_family(
        wire(pb.ModelFamily(CanonicalName="Å", ModelVersions=[{"ID": "v", "Structures": [{"Type": 1}]}]))
    )
    document = json.loads(encode_family(family, Encoding.JSON))
    assert document["CanonicalName"] == "Å"
    assert document["LanguageCode"] == "", "fields at their default are written too"
    assert "FamilyDescription" not in document, "absent messages are not"
    assert document["ModelVersions"][0]["Structures"][0]["Type"] == "Organ"


def test_models_are_a_collection_in_order() -> None:
    collection = pb.ModelsCollection(Models=[{"CanonicalName": name} for name in "bac"])
    assert [family.canonical_name for family in decode_models(wire(collection))] == ["b", "a", "c"]


def family_created(on: Timestamp) -> pb.ModelFamily:
    return pb.ModelFamily(CanonicalName="f", ModelVersions=[pb.ModelVersion(ID="v", CreatedOn=on)])


def text_places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of the texts in a JSON document that are no enumeration and no timestamp."""
    other = {"Type", "Status", "Gender", "CreatedOn", "ReleaseDate", "AcceptedModalities", "BodyPartsExamined"}
    if isinstance(value, dict):
        return [p for key, item in value.items() if key not in other for p in text_places(item, (*path, key))]
    if isinstance(value, list):
        return [p for index, item in enumerate(value) for p in text_places(item, (*path, index))]
    return [path] if isinstance(value, str) else []
