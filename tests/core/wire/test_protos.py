"""The schema against the contract: a second, independent writing of every name and number."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.core.wire._pb import Model_pb2, Primitives3D_pb2

GENERATE = Path(__file__).parents[3] / "protos" / "generate.py"

MESSAGES = {
    "Vector3D": "1 X: double; 2 Y: double; 3 Z: double",
    "Transform3D": "1 XAxisDirection: Vector3D; 2 YAxisDirection: Vector3D; 3 ZAxisDirection: Vector3D; "
    "4 VoxelScalingInMM: Vector3D; 5 Origin: Vector3D",
    "CalibratedVolume3D": "4 DataTransform: Transform3D; 2 Volume: VolumeData3D",
    "VolumeData3D": "1 Width: uint32; 2 Height: uint32; 3 Depth: uint32; 4 Data: bytes; "
    "5 DataType: VolumeData3D.DataTypes; 6 CompressionMethod: VolumeData3D.CompressionMethods",
    "DoubleValue": "1 Value: double",
    "ModelChannelConstraints": "1 AcceptedModalities: repeated ModelChannelConstraints.ModalityTypes; "
    "2 SpacingMinInMillimeters: Vector3D; 3 SpacingMaxInMillimeters: Vector3D; 4 DimensionsMinInPixels: Vector3D; "
    "5 DimensionsMaxInPixels: Vector3D; 6 OriginalDataRequired: bool; 7 IsAxial: bool",
    "ModelConstraints": "1 BodyPartsExamined: repeated ModelConstraints.BodyPartExaminedType; "
    "2 Gender: ModelConstraints.GenderType",
    "ModelChannelDescription": "1 ChannelID: string; 2 Constraints: ModelChannelConstraints",
    "ColorRGB": "1 R: uint32; 2 G: uint32; 3 B: uint32",
    "Structure": "1 Name: string; 2 Color: ColorRGB; 3 Type: Structure.StructureType; 4 FMACode: uint32; "
    "5 InputChannelID: string; 6 StructureID: string",
    "RegulatoryFramework": "1 Framework: string; 4 Status: RegulatoryFramework.StatusEnum; 5 UDI: string; "
    "6 Manufacturer: string; 7 DetailsURL: string; 8 ReleaseDate: google.protobuf.Timestamp",
    "ModelVersion": "1 ID: string; 2 VersionDescription: string; 3 CreatedOn: google.protobuf.Timestamp; "
    "5 Structures: repeated Structure; 6 NumberOfCreditsRequired: double; 7 MajorVersion: uint32; "
    "8 MinorVersion: uint32; 9 RegulatoryFrameworks: repeated RegulatoryFramework; 10 LanguageCode: string",
    "ModelFamily": "1 CanonicalName: string; 2 FamilyDescription: ModelFamilyDescription; "
    "3 ModelVersions: repeated ModelVersion; 4 LanguageCode: string",
    "ModelFamilyDescription": "2 Name: string; 3 Description: string; 4 ClinicalDomain: string; "
    "5 AnatomicalRegion: string; 6 PrimaryStructure: string; 7 Modalities: string; "
    "8 InputChannels: repeated ModelChannelDescription; 9 Constraints: ModelConstraints",
    "ModelsCollection": "1 Models: repeated ModelFamily",
    "ModelInputChannel": "1 ChannelID: string; 2 CalibratedVolume: CalibratedVolume3D; 3 VolumeID: string",
    "ModelInput": "1 ClientInformation: ClientInformation; 2 Channels: repeated ModelInputChannel",
    "ModelOutputChannel": "1 Structure: Structure; 2 Volume: VolumeData3D",
    "ModelOutput": "1 Channels: repeated ModelOutputChannel; 2 ModelID: string; 3 ProcesserVersion: string; "
    "4 LanguageCode: string",
    "SegmentationProgress": "1 Progress: uint32; 2 Errors: string; 3 ErrorCode: SegmentationProgress.ErrorCodes",
    "SegmentationTask": "1 SegmentationID: string; 2 StartTime: google.protobuf.Timestamp",
    "ClientInformation": "1 SoftwareVersion: string",
    "StructureComment": "1 StructureID: string; 2 Comments: string; 3 Score: DoubleValue",
    "SegmentationFeedback": "1 ClientInformation: ClientInformation; 2 SegmentationID: string; "
    "3 SegmentationAccepted: bool; 4 GeneralComments: string; 5 GeneralScore: DoubleValue; "
    "6 StructureComments: repeated StructureComment",
    "Credits": "1 TotalCredits: double; 2 DisplayCreditsWarning: bool; 3 CreditsWarningMessage: string; "
    "4 LanguageCode: string",
    "SegmentationTelemetry": "1 ClientInformation: ClientInformation; 2 UploadTimeInMilliseconds: uint32; "
    "3 SegmentationWaitInMilliseconds: uint32; 4 SegmentationDownloadInMilliseconds: uint32; "
    "5 NumberOfRetries: uint32; 6 ModelID: string; 7 SegmentationID: string; "
    "8 ClientError: SegmentationTelemetry.ClientErrorType; 9 ClientErrorInformation: string",
    "BadRequestResponse": "1 ErrorMessage: string; 2 ExceptionDetails: string",
    "ApiInformation": "1 Version: string",
    "VendorStatus": "1 TotalCredits: double; 2 LowCreditsWarningMessage: string; 3 ClientCountryCode: string; "
    "4 SegmentationServiceStatus: VendorStatus.VendorServiceStatus; 5 SegmentationServiceUrl: string; "
    "6 AvailableSegmentationServiceLocations: repeated string; 7 VendorName: string; "
    "8 VendorDescriptionHtml: string; 9 LanguageCode: string",
}

ENUMS = {
    "VolumeData3D.DataTypes": "0 LittleEndianSignedInt16, 1 Byte",
    "VolumeData3D.CompressionMethods": "0 Gzip",
    "ModelChannelConstraints.ModalityTypes": "0 CT, 1 CTA, 2 MR_T1, 3 MR_T2, 4 MR_GAD, 5 MR_FLAIR, 6 PET",
    "ModelConstraints.GenderType": "0 Male, 1 Female, 2 Any",
    "Structure.StructureType": "0 External, 1 Organ, 2 Unknown",
    "RegulatoryFramework.StatusEnum": "0 Clinical, 1 Investigational, 2 Recalled, 3 Withdrawn",
    "SegmentationProgress.ErrorCodes": "0 None, 1 InternalError, 2 UnknownClientError, 3 DecompressionError, "
    "4 DecompressionBufferSizeMismatch",
    "SegmentationTelemetry.ClientErrorType": "0 None, 1 ConnectionError, 2 InternalClientError, 3 ProgressTimeout",
    "VendorStatus.VendorServiceStatus": "0 NotAvailableInCountrySpecified, 1 Available",
}

BODY_PARTS = {
    **{0: "Abdomen", 8: "Brain", 16: "Cspine", 17: "CtSpine", 32: "WholeBody", 50: "IAC", 58: "LSpine", 59: "LSSpine"},
    **{77: "Prostate", 80: "SSPine", 91: "SumMandibular", 92: "TMJoint", 95: "TSpine", 96: "TLSpine", 110: "Zygoma"},
}

SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
}
FILES = (Primitives3D_pb2.DESCRIPTOR, Model_pb2.DESCRIPTOR)
DECLARED: dict[str, Descriptor] = {
    name: message for file in FILES for name, message in file.message_types_by_name.items()
}


def declared_enums() -> dict[str, EnumDescriptor]:
    return {f"{message.name}.{enum.name}": enum for message in DECLARED.values() for enum in message.enum_types}


def written(field: FieldDescriptor) -> str:
    """A field as the contract's table writes it."""
    named = field.message_type or field.enum_type
    kind = SCALARS[field.type] if named is None else named.full_name.removeprefix("Radiomics.")
    return f"{field.number} {field.name}: {'repeated ' if field.is_repeated else ''}{kind}"


def test_generating_again_changes_nothing() -> None:
    ran = subprocess.run([sys.executable, str(GENERATE), "--check"], capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 0, ran.stderr


def test_there_are_exactly_the_messages_of_the_contract() -> None:
    assert set(DECLARED) == set(MESSAGES)
    assert {message.full_name for message in DECLARED.values()} == {f"Radiomics.{name}" for name in MESSAGES}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_has_its_number_name_label_and_type(name: str) -> None:
    assert {written(field) for field in DECLARED[name].fields} == set(MESSAGES[name].split("; "))


def test_numbers_that_the_contract_skips_stay_unused() -> None:
    assert 4 not in DECLARED["ModelVersion"].fields_by_number
    assert {2, 3}.isdisjoint(DECLARED["RegulatoryFramework"].fields_by_number)
    assert {1, 3}.isdisjoint(DECLARED["CalibratedVolume3D"].fields_by_number)
    assert 1 not in DECLARED["ModelFamilyDescription"].fields_by_number


def test_there_are_exactly_the_enumerations_of_the_contract() -> None:
    assert set(declared_enums()) == {*ENUMS, "ModelConstraints.BodyPartExaminedType"}


@pytest.mark.parametrize("name", ENUMS)
def test_every_enumeration_has_its_numbers_and_names(name: str) -> None:
    values = {f"{value.number} {value.name}" for value in declared_enums()[name].values}
    assert values == set(ENUMS[name].split(", "))


def test_body_parts_run_from_0_to_110_in_the_contracts_spelling() -> None:
    enum = declared_enums()["ModelConstraints.BodyPartExaminedType"]
    assert [value.number for value in enum.values] == list(range(111))
    assert {number: enum.values_by_number[number].name for number in BODY_PARTS} == BODY_PARTS


def test_scores_can_be_absent() -> None:
    for message, field in (("StructureComment", "Score"), ("SegmentationFeedback", "GeneralScore")):
        kind = DECLARED[message].fields_by_name[field].message_type
        assert kind is not None
        assert kind.full_name == "Radiomics.DoubleValue"


def test_clients_in_c_sharp_find_their_namespace() -> None:
    for file in FILES:
        assert file.GetOptions().csharp_namespace == "Microsoft.Radiomics.Segmentation.API.Proto3"
