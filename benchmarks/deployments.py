"""Deployments to measure: real processes on PostgreSQL and Redis of their own, which flush as they do in earnest."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from services.core.db import migrate
from services.core.settings import Settings
from tests.deployment import Deployment


class Deployments:
    """Makes deployments of the sample model on one pair of servers. Everything ends with the context."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="segint-bench-")))
            self._postgres = self._stack.enter_context(LocalPostgres(self.folder / "postgres"))
            self._redis = self._stack.enter_context(LocalRedis(self.folder / "redis"))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, worker_module: str = "services.worker", **environment: str) -> Deployment:
        """A database, API and worker named `name`; `environment` adds SEGINT_ settings by their whole names."""
        self._postgres.create_database(name)
        migrate.upgrade(self._postgres.url(name))
        (self.folder / name).mkdir()
        settings = Settings(
            database_url=self._postgres.url(name),
            redis_url=self._redis.url,
            redis_namespace=name,
            volume_dir=self.folder / name / "volume",
        )
        variables = {"SEGINT_LOG_LEVEL": "WARNING", **environment}
        made = self._stack.enter_context(Deployment(settings, variables, log_dir=self.folder / name))
        return made.import_sample().start_api().start_worker(module=worker_module)
