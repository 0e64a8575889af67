"""BadRequestResponse: how every refusal is told."""

from dataclasses import dataclass

from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import Encoding, parse, serialize


@dataclass(frozen=True, slots=True)
class Refusal:
    """`summary`: short and stable; `details`: one sentence on what was wrong and what to do."""

    summary: str
    details: str


def encode_refusal(refusal: Refusal, encoding: Encoding) -> bytes:
    """The BadRequestResponse message of `refusal`."""
    return serialize(pb.BadRequestResponse(ErrorMessage=refusal.summary, ExceptionDetails=refusal.details), encoding)


def decode_refusal(data: bytes) -> Refusal:
    """A serialized BadRequestResponse.

    Raises:
        MalformedMessage: it does not parse.
    """
    message = parse(pb.BadRequestResponse, data)
    return Refusal(message.ErrorMessage, message.ExceptionDetails)
