"""A Unix socket shown as a port of this machine, for processes of users who may not reach the socket."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK_BYTES = 65536


@contextmanager
def as_port(socket_path: Path) -> Iterator[int]:
    """The port, on 127.0.0.1, behind which the server of that socket answers."""
    loop = asyncio.new_event_loop()
    listening = socket.create_server(("127.0.0.1", 0))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(socket_path))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def run(stopped: asyncio.Event) -> None:
        async with await asyncio.start_server(serve, sock=listening):
            await stopped.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(stopped),), daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
