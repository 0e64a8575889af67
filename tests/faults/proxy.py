"""A proxy between a service and PostgreSQL or Redis that can be told to misbehave, after the idea of toxiproxy.

It runs on an event loop in a thread of its own; every public method may be called from any thread.
"""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote

from services.client.local.postgres import DATABASE, LocalPostgres
from services.client.local.redis import LocalRedis

T = TypeVar("T")

PIECE_BYTES = 64 * 1024
CALL_LIMIT_SECONDS = 10.0
SPRING_LIMIT_SECONDS = 60.0


class Listener(Protocol):
    """Understands what one client says."""

    def feed(self, piece: bytes) -> list[bytes]:
        """What the client asks for with the next `piece` that it sends, in the server's words."""


class EveryPiece:
    """Takes a piece for a request, which it is where clients wait for each reply, as with Redis here."""

    def feed(self, piece: bytes) -> list[bytes]:
        return [piece]


class Trap:
    """Waits for one request that holds every marker, and then does to it what it was set for."""

    def __init__(self, markers: tuple[str, ...], *, forward: bool) -> None:
        self.markers = [marker.encode() for marker in markers]
        self.forward = forward
        """Whether the server gets the request at once."""
        self.sprung = threading.Event()
        """Set once the request has come and, where it is forwarded, been answered."""
        self.released = asyncio.Event()

    def wait(self) -> None:
        """Until it has sprung."""
        assert self.sprung.wait(SPRING_LIMIT_SECONDS), f"no request with {self.markers} came"

    def catches(self, request: bytes) -> bool:
        """Whether this is the request it waits for."""
        return all(marker in request for marker in self.markers)


class _Connection:
    def __init__(self, listener: Listener, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.listener = listener
        self.client = client
        self.server = server
        self.losing: Trap | None = None
        self.pumps: list[asyncio.Task[None]] = []

    def close(self) -> None:
        """End both sides; what was not passed on yet is dropped."""
        for pump in self.pumps:
            pump.cancel()
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Listens on the Unix socket `path`, in a folder of its own, for the server behind the Unix socket `server`.

    As a context manager it opens and closes the socket. The server may be away, and come back.

    Args:
        server: the socket of the real server.
        socket_name: what the proxy's own socket is called.
        listener: makes what understands one client.
    """

    def __init__(self, server: Path, socket_name: str, listener: Callable[[], Listener] = EveryPiece) -> None:
        self._server_path = server
        self._folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/tmp"))  # short: a socket's path has a limit
        self.path = self._folder / socket_name
        self._listener = listener
        self._connections: set[_Connection] = set()
        self._traps: list[Trap] = []
        self._delay_seconds = 0.0
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{socket_name}", daemon=True)

    @property
    def folder(self) -> Path:
        return self.path.parent

    # What it can be told

    def cut(self) -> int:
        """End every connection, on both sides, at once. Returns how many there were."""
        return self._call(self._cut())

    def refuse(self, refusing: bool = True) -> None:
        """End every new connection as soon as it comes, until told otherwise; those that are open stay."""
        self._refusing = refusing

    def freeze(self) -> None:
        """Pass nothing on, in neither direction, and end nothing, until `thaw`: new connections are taken too."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Pass on what had to wait, and everything from now on."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def delay(self, seconds: float) -> None:
        """Hold every piece up for that long, in both directions; 0 for not at all."""
        self._delay_seconds = seconds

    def lose_reply(self, *markers: str) -> Trap:
        """Let the server have the next request that holds the markers, swallow its reply, end that connection."""
        return self._set(Trap(markers, forward=True))

    def hold(self, *markers: str) -> Trap:
        """Keep the next request that holds the markers from the server until `release`; other connections go on."""
        return self._set(Trap(markers, forward=False))

    def release(self, trap: Trap) -> None:
        """Pass on a request that is held, or forget a trap that nothing fell into."""
        self._call(self._release(trap))

    # How it does that

    def _set(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    async def _release(self, trap: Trap) -> None:
        if trap in self._traps:
            self._traps.remove(trap)
        trap.released.set()

    async def _cut(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        return len(connections)

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refusing:
            client.transport.abort()
            return
        await self._flowing.wait()
        try:
            server_reader, server = await asyncio.open_unix_connection(self._server_path)
        except OSError:
            client.transport.abort()
            return
        connection = _Connection(self._listener(), client, server)
        self._connections.add(connection)
        connection.pumps = [
            asyncio.create_task(self._requests(connection, client_reader)),
            asyncio.create_task(self._replies(connection, server_reader)),
        ]
        try:
            await asyncio.wait(connection.pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while piece := await self._next_piece(reader):
            trap = self._trap_for(connection.listener.feed(piece))
            if trap is not None and trap.forward:
                connection.losing = trap
            elif trap is not None:
                trap.sprung.set()
                await trap.released.wait()
            await _write(connection.server, piece)

    async def _replies(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while piece := await self._next_piece(reader):
            if connection.losing is not None:
                connection.losing.sprung.set()
                return  # which ends the connection
            await _write(connection.client, piece)

    async def _next_piece(self, reader: asyncio.StreamReader) -> bytes:
        """What comes next, once it may pass; empty at the end."""
        try:
            piece = await reader.read(PIECE_BYTES)
        except ConnectionError:
            return b""
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        await self._flowing.wait()
        return piece

    def _trap_for(self, requests: list[bytes]) -> Trap | None:
        for trap in self._traps:
            if any(map(trap.catches, requests)):
                self._traps.remove(trap)
                return trap
        return None

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_LIMIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self._call(asyncio.start_unix_server(self._serve, self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_LIMIT_SECONDS)
        self._loop.close()
        shutil.rmtree(self._folder)

    async def _end(self) -> None:
        self._listening.close()
        await self._cut()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _write(writer: asyncio.StreamWriter, piece: bytes) -> None:
    with suppress(ConnectionError):  # the other pump sees the end of that side, and ends both
        writer.write(piece)
        await writer.drain()


class PostgresProxy(Proxy):
    """A proxy for PostgreSQL, whose requests are statements: their text is looked at, also where they are prepared."""

    def __init__(self, server: LocalPostgres) -> None:
        super().__init__(server.socket_path, server.socket_path.name, Statements)

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self.folder), safe='')}&port=5432"


class RedisProxy(Proxy):
    """A proxy for Redis, whose requests are commands with their arguments."""

    def __init__(self, server: LocalRedis) -> None:
        super().__init__(server.socket_path, server.socket_path.name)

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.path))}"


def argument(word: str) -> str:
    """How a Redis command carries this argument; Dramatiq's are enqueue, fetch, ack and others."""
    return f"${len(word)}\r\n{word}\r\n"


class Statements:
    """Reads one client's side of PostgreSQL's protocol: which statements it executes.

    A driver sends a statement's text once and then only its name, so the texts are kept by name. A COMMIT is given
    with every statement that it commits.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._started = False
        self._texts: dict[bytes, bytes] = {}
        self._transaction: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        self._bytes += piece
        executed = []
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"Q":
                executed.append(self._executed(body))
            elif kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._texts[name] = text
            elif kind == b"B":
                _, name, _ = body.split(b"\0", 2)
                executed.append(self._executed(self._texts.get(name, b"")))
        return executed

    def _executed(self, statement: bytes) -> bytes:
        self._transaction.append(statement)
        whole = b"; ".join(self._transaction)
        if statement.startswith((b"COMMIT", b"ROLLBACK")):
            self._transaction.clear()
            return whole
        return statement

    def _next(self) -> tuple[bytes, bytes] | None:
        """The next whole message's kind and body. The first one of a connection has no kind."""
        head = 1 if self._started else 0
        if len(self._bytes) < head + 4:
            return None
        end = head + int.from_bytes(self._bytes[head : head + 4], "big")
        if len(self._bytes) < end:
            return None
        kind, body = bytes(self._bytes[:head]), bytes(self._bytes[head + 4 : end])
        del self._bytes[:end]
        self._started = True
        return kind, body
