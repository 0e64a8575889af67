"""Identifiers as they stand in paths."""

from uuid import UUID

from starlette.requests import Request

from services.core.errors import SegmentationUnknown


def segmentation_id(request: Request) -> UUID:
    """The segmentation that the path names, in any spelling `uuid.UUID` takes.

    Raises:
        SegmentationUnknown: it is no identifier at all.
    """
    text = request.path_params["id"]
    try:
        return UUID(text)
    except ValueError as error:
        raise SegmentationUnknown(
            f"«{text}» is not a segmentation identifier; use the SegmentationID that the server gave."
        ) from error
