"""Whether this deployment can take another upload: slots, places in the queue, room on the volume.

All of it is asked before the body is read, so that a client that must come back later has sent nothing in vain.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import to_thread

from services.api.mount import Mount
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

    def __init__(self, settings: Settings, database: AsyncDatabase, blobs: Blobs, mount: Mount) -> None:
        self._most_uploads = settings.max_concurrent_uploads
        self._most_queued = settings.max_queued_jobs
        self._least_free_bytes = settings.min_free_bytes
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._uploads: set[Upload] = set()

    @asynccontextmanager
    async def upload(self, announced_bytes: int | None) -> AsyncIterator["Upload"]:
        """Let one upload in, for as long as the context lasts.

        Args:
            announced_bytes: what its `Content-Length` says; None for a chunked body.

        Raises:
            TooManyUploads: this process takes as many as it may.
            QueueFull: as many jobs wait as may.
            StorageFull: the volume has no room for what this and the other uploads still announce.
            DatabaseUnavailable, StorageAway: it cannot be told.
        """
        if len(self._uploads) >= self._most_uploads:
            raise TooManyUploads(f"{self._most_uploads} uploads are under way already; try again in a few seconds.")
        upload = Upload(self._check_room, announced_bytes or 0)
        self._uploads.add(upload)
        try:
            await self._check_queue()
            await self._mount.require()
            await to_thread.run_sync(self._check_room, sum(other.to_come_bytes for other in self._uploads))
            yield upload
        finally:
            self._uploads.discard(upload)

    async def _check_queue(self) -> None:
        waiting = await self._database.read(job_rows.count_queued)
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


class Upload:
    """One upload under way: how much of it is still to come, and whether there is room for what came."""

    def __init__(self, check_room: Callable[[int], None], announced_bytes: int) -> None:
        self._check_room = check_room
        self._announced_bytes = announced_bytes
        self.to_come_bytes = announced_bytes
        """Of what was announced; 0 for a chunked body."""

    def wrote(self, written_bytes: int) -> None:
        """Note how much of it is on the volume by now.

        Raises:
            StorageFull: what is written does not leave the room that results need.
        """
        self.to_come_bytes = max(0, self._announced_bytes - written_bytes)
        self._check_room(0)
