"""What the console's scripts send: JSON objects."""

import json
from typing import Any

from starlette.requests import Request

from services.core.errors import InvalidParameter

MOST_BYTES = 2 * 1024**2


async def json_fields(request: Request) -> dict[str, Any]:
    """The fields of the request.

    Raises:
        InvalidParameter: it is no JSON object, or too large.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise InvalidParameter(f"The request is larger than {MOST_BYTES} bytes; send less.")
    try:
        fields = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise InvalidParameter("The request is no JSON; load the page again and repeat it.") from error
    if not isinstance(fields, dict):
        raise InvalidParameter("The request names no fields; load the page again and repeat it.")
    return fields


def text_field(fields: dict[str, Any], name: str) -> str:
    """A field as text; empty where it is missing."""
    value = fields.get(name)
    return "" if value is None else str(value)
