"""PostgreSQL and Redis of a test's own, and ways to hurt them. They are started from the main thread."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psutil
import psycopg
import redis

from services.client.local import children
from services.client.local.postgres import DATABASE, LocalPostgres
from services.client.local.redis import LocalRedis
from services.core.db import migrate

FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT
"""PostgreSQL's shutdowns: clients are disconnected, or everything is dropped as in a crash."""


class BreakablePostgres(LocalPostgres):
    """One PostgreSQL server with a migrated database."""

    @classmethod
    def copied(cls, template: Path, data_dir: Path) -> "BreakablePostgres":
        """A server on a copy of the stopped cluster in `template`; initdb and migrations take longer than all tests."""
        data_dir.mkdir(mode=0o700)
        subprocess.run(["cp", "-a", str(template / "pgdata"), str(data_dir / "pgdata")], check=True)
        return cls(data_dir, fsync=False)

    @classmethod
    def make_template(cls, template: Path) -> None:
        """A stopped cluster to copy from."""
        with cls(template, fsync=False) as server:
            server.create_database(DATABASE)
            migrate.upgrade(server.url(DATABASE))

    def command(self) -> list[str]:
        # What is committed must survive an immediate shutdown; only a power cut may cost something here.
        return [*super().command(), "-c", "synchronous_commit=on"]

    def end(self, stop_signal: signal.Signals) -> None:
        """Shut the server down in that way."""
        assert self._process is not None
        assert children.stop(self._process, stop_signal, self.STOP_LIMIT_SECONDS)
        self._process = None

    def restart(self, stop_signal: signal.Signals = FAST) -> None:
        """Shut the server down in that way, and start it again."""
        self.end(stop_signal)
        self.start()

    def processes(self) -> list[psutil.Process]:
        """The server and its backends."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        return [first, *first.children()]

    def backends_of(self, application: str) -> list[psutil.Process]:
        """The backends that serve clients of this application_name."""
        return self._processes("SELECT pid FROM pg_stat_activity WHERE application_name = %s", application)

    def locker_of(self, job_id: UUID) -> list[psutil.Process]:
        """The backend whose transaction, still open, has changed that job."""
        return self._processes(
            "SELECT a.pid FROM pg_stat_activity a JOIN segmentation_job j ON j.xmax = a.backend_xid WHERE j.id = %s",
            job_id,
        )

    def _processes(self, query: LiteralString, parameter: object) -> list[psutil.Process]:
        with psycopg.connect(self.url(DATABASE), autocommit=True) as connection:
            return [psutil.Process(pid) for (pid,) in connection.execute(query, (parameter,))]


class BreakableRedis(LocalRedis):
    """One Redis server."""

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        """SIGKILL; what was appended to its file stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def lose_everything(self) -> None:
        """Forget the data of a server that has ended, as if it had never been persisted."""
        for path in self.data_dir.glob("appendonly*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def processes(self) -> list[psutil.Process]:
        assert self._process is not None
        return [psutil.Process(self._process.pid)]
