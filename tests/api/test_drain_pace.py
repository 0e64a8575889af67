"""Bodies that were refused are read at one pace for all of them together."""

import asyncio
import time

from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from services.api.uploads import DRAIN_BYTES_PER_SECOND, DrainRefusedBodies

PIECE = bytes(1 << 18)
PIECES_OF_ONE = DRAIN_BYTES_PER_SECOND // 8 // len(PIECE)
"""Of a body that alone would take an eighth of a second."""


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", 503)(scope, receive, send)


async def send_body(app: DrainRefusedBodies) -> list[Message]:
    """A body as fast as it is read; gives what was answered."""
    left = PIECES_OF_ONE
    answered: list[Message] = []

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": PIECE, "more_body": left > 0}

    async def send(message: Message) -> None:
        # The refusal itself does not wait for the body.
        assert left == PIECES_OF_ONE or message.get("body") == b""
        answered.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"%d" % (len(PIECE) * left))]}
    await app(scope, receive, send)
    assert left == 0
    return answered


def test_refused_bodies_share_one_pace_and_each_is_read_whole() -> None:
    # Given four clients that were refused, and send at once
    async def four() -> list[list[Message]]:
        app = DrainRefusedBodies(refuse)
        return await asyncio.gather(*(send_body(app) for _ in range(4)))

    # When their bodies are drained
    started = time.monotonic()
    answers = asyncio.run(four())
    # Then that takes as long as the pace says for all four, and each was answered
    assert time.monotonic() - started > 0.9 * 4 / 8
    assert all(messages[0]["status"] == 503 and not messages[-1]["more_body"] for messages in answers)
