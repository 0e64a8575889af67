"""The answer that may be given once: SegInt-R deleted a result before it was sent; here, after its last byte was.

«Sent» is what a server can know: the last byte left this process for the kernel, and the connection still stood. A
client that breaks off then, with a small result still in the kernel's buffers, must submit again.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.core.errors import SegIntError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18


class OneShotResponse(Response):
    """`content` (bytes, or a file), and after its last byte was taken by the client's connection: `delivered`."""

    def __init__(
        self,
        content: Path | bytes,
        media_type: str,
        headers: Mapping[str, str],
        delivered: Callable[[], Awaitable[None]],
    ) -> None:
        # No ranges: what is given once is given whole.
        super().__init__(media_type=media_type, headers={**headers, "Accept-Ranges": "none"})
        self._content = content
        self._delivered = delivered
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.headers["content-length"] = str(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and tell `delivered` only if the client was still there after the last byte."""
        gone = anyio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if gone.is_set():
                    break
            # Waits until the server's own buffer is empty, and lets it notice a connection that was closed.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await anyio.lowlevel.checkpoint()
            if not gone.is_set():
                await self._delivered_or_logged()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()

    async def _delivered_or_logged(self) -> None:
        try:
            await self._delivered()
        except SegIntError as error:
            # The answer is given; the result stays until it expires.
            logger.warning("one-shot result not deleted", extra={"reason": error.details})

    async def _chunks(self) -> AsyncIterator[bytes]:
        if isinstance(self._content, bytes):
            for start in range(0, len(self._content), CHUNK_BYTES):
                yield self._content[start : start + CHUNK_BYTES]
            return
        async with await anyio.open_file(self._content, "rb") as file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk
