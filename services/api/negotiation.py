"""Content negotiation: what the client sent, and what it wants back."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from services.core.errors import UnsupportedContent
from services.core.wire.fields import Encoding

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def wanted_encoding(request: Request) -> Encoding:
    """Protobuf where `Accept` names it; JSON for anything else, `*/*` and no header included."""
    for value in request.headers.getlist("accept"):
        for item in value.split(","):
            media_type, *parameters = (part.strip().lower() for part in item.split(";"))
            if media_type == PROTOBUF and not any(_is_zero_quality(parameter) for parameter in parameters):
                return Encoding.PROTOBUF
    return Encoding.JSON


def answer(request: Request, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body`, encoded as `wanted_encoding` says, with the label that goes with it."""
    return Response(body, status, headers=headers, media_type=label(request, wanted_encoding(request)))


def label(request: Request, encoding: Encoding) -> str:
    """The `Content-Type` of an answer in `encoding`."""
    if encoding is Encoding.JSON:
        return JSON
    return str(request.app.state.settings.protobuf_content_type)


def require_protobuf(request: Request) -> None:
    """Refuse a body in another type or encoding.

    Raises:
        UnsupportedContent: `Content-Type` is not protobuf, or `Content-Encoding` not identity.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != PROTOBUF:
        raise UnsupportedContent(
            f"The body is labelled «{content_type}»; send a protobuf message as Content-Type: {PROTOBUF}."
        )
    encoding = ",".join(request.headers.getlist("content-encoding"))
    if {item.strip().lower() for item in encoding.split(",")} - {"", "identity"}:
        raise UnsupportedContent(
            f"The body has Content-Encoding «{encoding}»; send it as it is, only the voxels inside are compressed."
        )


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    try:
        return name.strip() == "q" and float(value) == 0
    except ValueError:
        return False
