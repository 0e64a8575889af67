"""The answer that may be given once: SegInt-R deleted a result when it was fetched; here, only once it was sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 1 << 18


class OneShotResponse(Response):
    """`content` (bytes, or a file), and after its last byte was taken by the client's connection: `delivered`."""

    def __init__(self, content: Path | bytes, media_type: str, delivered: Callable[[], Awaitable[None]]) -> None:
        super().__init__(media_type=media_type)
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
            # The server notices a closed connection in its own turn of the loop.
            await anyio.lowlevel.checkpoint()
            if not gone.is_set():
                await self._delivered()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()

    async def _chunks(self) -> AsyncIterator[bytes]:
        if isinstance(self._content, bytes):
            for start in range(0, len(self._content), CHUNK_BYTES):
                yield self._content[start : start + CHUNK_BYTES]
            return
        async with await anyio.open_file(self._content, "rb") as file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk
