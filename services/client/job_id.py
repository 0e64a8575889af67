"""The identifier of a segmentation, as an argument of commands."""

from typing import Annotated
from uuid import UUID

import typer

from services.core.errors import InvalidParameter

# Text at first: what is no identifier is told in one line, and as JSON on request.
JobIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Identifier of the segmentation, as `segint segment` prints it.")
]


def job_id_in(text: str) -> UUID:
    """The identifier in `text`.

    Raises:
        InvalidParameter: it is none.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidParameter(
            f"«{text}» is not the identifier of a segmentation; `segint segment` prints it."
        ) from error
