"""A deployment with PostgreSQL and Redis of its own, whose processes reach both through proxies only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.client.local.postgres import DATABASE
from services.core.settings import Settings
from tests.deployment import Deployment
from tests.faults.proxy import PostgresProxy, RedisProxy
from tests.faults.servers import BreakablePostgres, BreakableRedis


@dataclass(kw_only=True)
class BreakableDeployment(Deployment):
    """The tests themselves, and what they do as an administrator, go to the servers directly."""

    postgres: BreakablePostgres
    redis: BreakableRedis
    postgres_proxy: PostgresProxy
    redis_proxy: RedisProxy

    def surroundings_of(self, name: str) -> dict[str, str]:
        return super().surroundings_of(name) | {
            # The name tells which of PostgreSQL's backends serve this process.
            "SEGINT_DATABASE_URL": f"{self.postgres_proxy.url()}&application_name={name}",
            "SEGINT_REDIS_URL": self.redis_proxy.url,
        }


@contextmanager
def breakable_deployment(
    folder: Path, template: Path, volume_dir: Path | None = None, **environment: object
) -> Iterator[BreakableDeployment]:
    """A deployment below `folder`, without any process yet. Call it from the main thread.

    Args:
        folder: a folder of its own, which exists.
        template: where `BreakablePostgres.make_template` made a cluster.
        volume_dir: the volume, if not below `folder`.
        environment: settings of all processes, without SEGINT_.
    """
    with (
        BreakablePostgres.copied(template, folder / "pg") as postgres,
        BreakableRedis(folder / "redis") as redis,
        PostgresProxy(postgres) as postgres_proxy,
        RedisProxy(redis) as redis_proxy,
    ):
        settings = Settings(
            database_url=postgres.url(DATABASE), redis_url=redis.url, volume_dir=volume_dir or folder / "volume"
        )
        (folder / "logs").mkdir()
        with BreakableDeployment(
            settings,
            {f"SEGINT_{key.upper()}": str(value) for key, value in environment.items()},
            log_dir=folder / "logs",
            postgres=postgres,
            redis=redis,
            postgres_proxy=postgres_proxy,
            redis_proxy=redis_proxy,
        ) as deployment:
            yield deployment
