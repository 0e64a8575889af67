"""Probes: is the process alive, and can it take work."""

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.api.mount import Mount
from services.core.blobs import Blobs
from services.core.db import migrate
from services.core.db.session import AsyncDatabase, refuses_writes
from services.core.errors import DatabaseUnavailable, StorageAway
from services.core.queue import Doorbell, DoorbellUnavailable

MOST_PROBING = 4
"""Probes at one time."""


class Health:
    """The routes of the probes. They answer JSON whatever is asked for: probes read statuses."""

    def __init__(self, database: AsyncDatabase, blobs: Blobs, mount: Mount, doorbell: Doorbell) -> None:
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._doorbell = doorbell
        # A volume that hangs may hold a thread for each probe, but none of those that requests need.
        self._probing = anyio.CapacityLimiter(MOST_PROBING)

    async def alive(self, _: Request) -> Response:
        """GET /healthz: the process answers. Touches nothing else."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """GET /readyz: 200 when requests can be served. Without Redis they can, only later: «degraded»."""
        database = await self._database_fault()
        checks = {
            "database": database,
            # Only the database knows which volume is the right one.
            "volume": "not looked at without the database" if database else await self._volume_fault(),
            "redis": await to_thread.run_sync(self._redis_fault, limiter=self._probing),
        }
        down = checks["database"] or checks["volume"]
        status = "unavailable" if down else "degraded" if checks["redis"] else "ready"
        body = {"status": status, "checks": {name: fault or "ok" for name, fault in checks.items()}}
        return JSONResponse(body, 503 if down else 200)

    async def _database_fault(self) -> str | None:
        try:
            current = await self._database.run(migrate.current)
            read_only = await self._database.run(refuses_writes)
        except DatabaseUnavailable as error:
            return error.details
        if read_only:
            return "it takes no writes: a standby, or set to read-only"
        if not migrate.schema_fits(current):
            return f"the schema is at {current or 'nothing'}, this version needs {migrate.head()}; run the migrations"
        return None

    async def _volume_fault(self) -> str | None:
        try:
            await self._mount.require()
        except (DatabaseUnavailable, StorageAway) as error:
            return error.details
        return await to_thread.run_sync(self._blobs.check, limiter=self._probing)

    def _redis_fault(self) -> str | None:
        try:
            self._doorbell.waiting()
        except DoorbellUnavailable as error:
            return str(error)
        return None
