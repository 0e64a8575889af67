"""Whether the volume that is mounted here is the one that the database's jobs name files of."""

from anyio import to_thread

from services.core.blobs import Blobs
from services.core.db import volume_identity
from services.core.db.session import AsyncDatabase


class Mount:
    """The volume of one API process. The first volume that a database sees is its own from then on."""

    def __init__(self, database: AsyncDatabase, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs
        self._identity: str | None = None

    async def require(self) -> None:
        """Return where the volume is the right one.

        Raises:
            StorageAway: it is not there, not readable, or another one.
            DatabaseUnavailable: it cannot be told yet which one is right.
        """
        if self._identity is None:
            known = await self._database.run(volume_identity.known_identity)
            if known is None:  # once in the life of a deployment, so it may be done on this thread
                known = await self._database.run(volume_identity.settle_identity, self._blobs.mark)
            self._identity = known
        await to_thread.run_sync(self._blobs.require, self._identity)
