"""Part of a file as a response: its bytes go from the file to the network in pieces, and are never held whole."""

from collections.abc import AsyncIterator

import anyio
from starlette.responses import Response, StreamingResponse

from services.api.console.viewer.job_files import Excerpt

CHUNK_BYTES = 1 << 18


async def respond_with(excerpt: Excerpt, headers: dict[str, str]) -> Response:
    """The bytes of `excerpt`, as they lie there.

    Raises:
        FileNotFoundError: the file was deleted meanwhile. Once this has returned, its bytes stay until they are sent.
    """
    file = await anyio.open_file(excerpt.path, "rb")

    async def pieces() -> AsyncIterator[bytes]:
        async with file:
            await file.seek(excerpt.span.start)
            left = excerpt.span.length
            while left > 0 and (piece := await file.read(min(CHUNK_BYTES, left))):
                left -= len(piece)
                yield piece

    # Not «Content-Encoding: gzip»: the browser would inflate it unseen, and take a cut-off stream for a whole one.
    return StreamingResponse(
        pieces(),
        media_type="application/octet-stream",
        headers={"Content-Length": str(excerpt.span.length), **headers},
    )
