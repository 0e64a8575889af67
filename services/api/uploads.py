"""Request bodies: streamed to the volume or read whole, always within a limit, never for ever."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.errors import BodyTooLarge, UploadStalled
from services.core.pending_file import PendingFile

WRITE_BYTES = 1 << 20
"""Pieces arrive in tens or hundreds of kilobytes; in batches, they cost fewer trips to the thread that writes."""

DRAIN_BYTES = 256 * 1024**2
DRAIN_SECONDS = 30.0
"""How much of a refused body is read, and how long, so that its sender gets to see the refusal."""
DRAIN_BYTES_PER_SECOND = 200 * 1024**2
"""Of all refused bodies together: about a fifth of what one process can receive, so that it still answers others."""


def announced_bytes(request: Request, most_bytes: int) -> int | None:
    """What `Content-Length` says of a body before any of it is read; None for a chunked one, which says nothing.

    Raises:
        BodyTooLarge: it announces more than `most_bytes`.
    """
    announced = request.headers.get("content-length")
    if announced is None:
        return None
    if int(announced) > most_bytes:
        raise _too_large(most_bytes)
    return int(announced)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How large an upload may be, how long it may pause, and how long it may take."""

    most_bytes: int
    idle_seconds: float
    total_seconds: float


async def pieces(request: Request, limits: UploadLimits) -> AsyncIterator[bytes]:
    """The body as it arrives, chunked or not.

    Raises:
        BodyTooLarge: more than the limit came.
        UploadStalled: nothing came for too long, or it took too long in all.
        ClientDisconnect: the client went away.
    """
    received = 0
    stream = request.stream().__aiter__()
    ends_at = time.monotonic() + limits.total_seconds
    while True:
        patience = min(limits.idle_seconds, ends_at - time.monotonic())
        try:
            with anyio.fail_after(max(patience, 0)):
                piece = await anext(stream, None)
        except TimeoutError as error:
            if time.monotonic() >= ends_at:
                why = f"The body took more than {limits.total_seconds:g} s; {received} bytes had arrived by then"
            else:
                why = f"Nothing more of the body arrived for {limits.idle_seconds:g} s after {received} bytes"
            raise UploadStalled(f"{why}. Send it again, over a faster connection if you can.") from error
        if piece is None:
            return
        received += len(piece)
        if received > limits.most_bytes:
            raise _too_large(limits.most_bytes)
        yield piece


async def stream_to_file(
    request: Request, pending: PendingFile, limits: UploadLimits, wrote: Callable[[int], None]
) -> None:
    """Write the body to `pending` as it arrives: one batch of about a megabyte is written while the next is received.

    `wrote` is told in the writing thread how many bytes are on the volume after each batch, and ends the upload by
    what it raises.

    Raises: what `pieces` and `wrote` raise, and
        StorageFull: the volume has no room for it.
    """

    def write(pieces_of_batch: list[bytes]) -> None:
        pending.write_all(pieces_of_batch)
        wrote(pending.size_bytes)

    batch: list[bytes] = []
    batch_bytes = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in pieces(request, limits):
            batch.append(piece)
            batch_bytes += len(piece)
            if batch_bytes >= WRITE_BYTES:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(to_thread.run_sync(write, batch))
                batch, batch_bytes = [], 0
    finally:
        # Two threads must not write at once, and a fault of the last batch must be seen.
        if writing is not None:
            await writing
    await to_thread.run_sync(pending.write_all, batch)


async def read_whole(request: Request, limits: UploadLimits) -> bytes:
    """A small body.

    Raises: what `pieces` raises.
    """
    body = bytearray()
    async for piece in pieces(request, limits):
        body += piece
    return bytes(body)


def _too_large(most_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is over this server's limit of {most_bytes} bytes; send a smaller volume.")


class DrainRefusedBodies:
    """ASGI middleware: answer first, then read what is left of the body for a while, then end.

    Closing a connection with unread data makes the kernel reset it, and a client that is still sending would see
    the reset instead of the refusal (RFC 9112, section 9.6). Many who are refused at once share one pace: they have
    to wait anyway, and polls of those who were let in must not wait for them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._next_turn = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        body_comes = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        whole = not body_comes
        # A client that waits for «100 Continue» has sent nothing until the first receive.
        waits = b"100-continue" in headers.get(b"expect", b"").lower()
        asked = False

        async def watched_receive() -> Message:
            nonlocal whole, asked
            asked = True
            message = await receive()
            whole = whole or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            drained = 0
            with anyio.move_on_after(DRAIN_SECONDS):
                while not whole and drained < DRAIN_BYTES:
                    piece_bytes = len((await watched_receive()).get("body", b""))
                    drained += piece_bytes
                    await self._keep_pace(piece_bytes)

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                # What is not drained below would be taken for the next request of this connection.
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not whole and not (waits and not asked):
                await send({**message, "more_body": True})
                await drain()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(scope, watched_receive, watched_send)

    async def _keep_pace(self, drained_bytes: int) -> None:
        now = time.monotonic()
        self._next_turn = max(self._next_turn, now) + drained_bytes / DRAIN_BYTES_PER_SECOND
        await anyio.sleep(self._next_turn - now)
