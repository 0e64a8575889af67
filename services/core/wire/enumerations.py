"""Names of the wire's enumerations, by number. proto3's are open: a number without a name here is no error."""

from collections.abc import Mapping

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from services.core.wire._pb import Model_pb2 as pb


def _names(enumeration: EnumTypeWrapper) -> Mapping[int, str]:
    return {number: name for name, number in enumeration.items()}


STRUCTURE_TYPES = _names(pb.Structure.StructureType)
BODY_PARTS = _names(pb.ModelConstraints.BodyPartExaminedType)
GENDERS = _names(pb.ModelConstraints.GenderType)
MODALITIES = _names(pb.ModelChannelConstraints.ModalityTypes)
FRAMEWORK_STATUSES = _names(pb.RegulatoryFramework.StatusEnum)
CLIENT_ERRORS = _names(pb.SegmentationTelemetry.ClientErrorType)


def name_of(names: Mapping[int, str], number: int | None) -> str:
    """The name, or the number itself where this version knows none; empty for None."""
    return "" if number is None else names.get(number, str(number))
