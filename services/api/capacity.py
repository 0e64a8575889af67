"""Whether this deployment can take another upload: slots, places in the queue, room on the volume.

All of it is asked before the body is read, so that a client that must come back later has sent nothing in vain.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread

from services.core.blobs import Blobs
from services.core.db import jobs as job_rows
from services.core.db.session import AsyncDatabase
from services.core.errors import QueueFull, StorageFull, TooManyUploads
from services.core.settings import Settings


class Capacity:
    """The limits of one API process on its uploads, and of the deployment on its queue and volume.

    The queue's limit may be passed by as many jobs as uploads were under way when it was reached: they had been let
    in before.
    """

    def __init__(self, settings: Settings, database: AsyncDatabase, blobs: Blobs) -> None:
        self._most_uploads = settings.max_concurrent_uploads
        self._most_queued = settings.max_queued_jobs
        self._least_free_bytes = settings.min_free_bytes
        self._database = database
        self._blobs = blobs
        self._uploads = 0
        self._announced_bytes = 0

    @asynccontextmanager
    async def upload(self, announced_bytes: int | None) -> AsyncIterator[None]:
        """Let one upload in, for as long as the context lasts.

        Args:
            announced_bytes: what its `Content-Length` says; None for a chunked body.

        Raises:
            TooManyUploads: this process takes as many as it may.
            QueueFull: as many jobs wait as may.
            StorageFull: the volume has no room for what this and the other uploads announce.
            DatabaseUnavailable, StorageAway: it cannot be told.
        """
        if self._uploads >= self._most_uploads:
            raise TooManyUploads(f"{self._most_uploads} uploads are under way already; try again in a few seconds.")
        announced = announced_bytes or 0
        self._uploads += 1
        self._announced_bytes += announced
        try:
            await self._check_queue()
            await to_thread.run_sync(self._check_room, self._announced_bytes)
            yield
        finally:
            self._uploads -= 1
            self._announced_bytes -= announced

    def check_room(self) -> None:
        """Whether what is written still leaves the room that results need.

        Raises:
            StorageFull: it does not.
        """
        self._check_room(0)

    async def _check_queue(self) -> None:
        waiting = await self._database.run(job_rows.count_queued)
        if waiting >= self._most_queued:
            raise QueueFull(
                f"{waiting} segmentations wait already, and this server lets {self._most_queued} wait; try again in "
                "some minutes."
            )

    def _check_room(self, wanted_bytes: int) -> None:
        free = self._blobs.free_bytes()
        if free is not None and free - wanted_bytes < self._least_free_bytes:
            raise StorageFull(
                f"The server's volume for payloads has {free} bytes left, too few for this upload above the "
                f"{self._least_free_bytes} it keeps for results; try again later, or ask its administrator to free "
                "space."
            )
