"""The deployment that is hurt: two API processes, two workers, servers behind proxies, a volume of a few megabytes."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from services.client.local.postgres import DATABASE
from services.core.db import migrate
from services.core.settings import Settings
from tests.chaos.model import Behaviour, attach_chaos_model
from tests.chaos.supervision import Supervisor
from tests.deployment import wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.full_volume import small_volume_dir
from tests.faults.proxy import PostgresProxy, RedisProxy
from tests.faults.servers import BreakablePostgres, BreakableRedis

APIS = ("api1", "api2")
WORKERS = ("worker1", "worker2")

LEASE_SECONDS = 4.0
ORPHAN_SECONDS = 15.0
DRAIN_SECONDS = 5
ATTEMPT_LIMIT = 3
MIN_FREE_BYTES = 1024**2
VOLUME_BYTES = 64 * 1024**2
MEMORY_BYTES = 700 * 1024**2
"""A host with PyTorch takes about a third of it."""

SETTINGS: dict[str, object] = {
    "lease_seconds": LEASE_SECONDS,
    "heartbeat_seconds": 1,
    "attempt_limit": ATTEMPT_LIMIT,
    "retry_delay_seconds": 0.2,
    "upload_idle_seconds": 5,
    "upload_limit_seconds": 10,
    "orphan_seconds": ORPHAN_SECONDS,
    "drain_seconds": DRAIN_SECONDS,
    "min_free_bytes": MIN_FREE_BYTES,
    "model_memory_bytes": MEMORY_BYTES,
    "model_time_limit_seconds": 60,
}


class Nothing(Exception):
    """There is nothing here, or nothing now, that this fault could hit."""


@dataclass
class World:
    """All that a fault may reach."""

    deployment: BreakableDeployment
    supervisor: Supervisor
    small_volume: bool
    """False where no volume could be mounted: then it cannot be filled either."""
    volume_holders: frozenset[int]
    """Processes that keep the volume mounted."""
    scratch_dir: Path
    """Below it, the model hosts write."""
    wanted: "SimpleQueue[Behaviour]" = field(default_factory=SimpleQueue)
    """Volumes with which clients shall make the model misbehave."""

    def servers(self) -> set[int]:
        """Processes of what is not under test: PostgreSQL, Redis, the mount."""
        servers = [*self.deployment.postgres.processes(), *self.deployment.redis.processes()]
        return {process.pid for process in servers} | self.volume_holders

    @property
    def volume_dir(self) -> Path:
        return self.deployment.volume_dir


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """A deployment below `folder` that works. Call it from the main thread.

    PostgreSQL hands to the kernel what it acknowledges, and does not wait for the disk: that would only matter where
    a machine loses power, which none does here, and make each recovery some seconds longer.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(BreakablePostgres(folder / "pg", fsync=False))
        postgres.create_database(DATABASE)
        migrate.upgrade(postgres.url(DATABASE))
        redis = stack.enter_context(BreakableRedis(folder / "redis"))
        postgres_proxy = stack.enter_context(PostgresProxy(postgres))
        redis_proxy = stack.enter_context(RedisProxy(redis))
        volume_dir = folder / "volume"
        volume_dir.mkdir()
        servers = _children()
        small_volume = True
        try:
            volume_dir = stack.enter_context(small_volume_dir(volume_dir, VOLUME_BYTES))
        except pytest.skip.Exception:
            small_volume = False
        holders = _children() - servers
        for name in ("tmp", "logs", "model"):
            (folder / name).mkdir()
        environment = {f"SEGINT_{key.upper()}": str(value) for key, value in SETTINGS.items()}
        deployment = stack.enter_context(
            BreakableDeployment(
                Settings(database_url=postgres.url(DATABASE), redis_url=redis.url, volume_dir=volume_dir),
                environment | {"TMPDIR": str(folder / "tmp")},
                log_dir=folder / "logs",
                postgres=postgres,
                redis=redis,
                postgres_proxy=postgres_proxy,
                redis_proxy=redis_proxy,
            )
        )
        deployment.import_sample()
        attach_chaos_model(deployment, folder / "model")
        for name in APIS:
            deployment.start_api(name, until_ready=False)
        for name in WORKERS:
            deployment.start_worker(name)
        for name in APIS:
            wait_for(lambda name=name: deployment.ready(name), name)  # type: ignore[misc] # mypy and a default
        supervisor = stack.enter_context(Supervisor(deployment))
        scratch_dir = folder / "tmp" / f"segint-scratch-{os.getuid()}"
        yield World(deployment, supervisor, small_volume, holders, scratch_dir)


def _children() -> frozenset[int]:
    return frozenset(process.pid for process in psutil.Process().children())
