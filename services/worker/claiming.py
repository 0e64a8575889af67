"""When a worker claims which jobs."""

from services.core.blobs import Blobs
from services.core.db import claims, volume_identity
from services.core.db.session import Database
from services.core.jobs import Claim, Priority
from services.core.settings import Settings

IDLE_PICK_UP_SECONDS = 0.5
"""What an idle worker that was rung for takes at most to claim, with room to spare; it looks every 50 ms."""


class Claiming:
    """Claims for one worker, never while its volume is not there. Each method raises Unavailable."""

    def __init__(self, settings: Settings, database: Database, blobs: Blobs, worker: str) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._worker = worker
        self._volume_identity: str | None = None

    def as_idle_worker(self) -> Claim | None:
        """The next job of all that are ready."""
        self.require_volume()
        return self._database.run(
            claims.claim,
            worker=self._worker,
            lease_seconds=self._settings.lease_seconds,
            pool=self._settings.pool,
        )

    def as_busy_worker(self, least_priority: Priority) -> Claim | None:
        """The next job that no idle worker wants.

        Were one idle, it would have been rung for when the job became ready, or at the latest by the janitor's next
        round, and would have claimed it since. None while the next one has lost an attempt: that one is run alone, so
        that a model which kills its worker costs another job one attempt at most.
        """
        self.require_volume()
        return self._database.run(
            claims.claim,
            worker=self._worker,
            lease_seconds=self._settings.lease_seconds,
            pool=self._settings.pool,
            ready_for_seconds=self._settings.janitor_interval_seconds + IDLE_PICK_UP_SECONDS,
            least_priority=least_priority,
            untried_only=True,
        )

    def require_volume(self) -> None:
        """A worker whose mount is missing must not take jobs: it would fail one after the other."""
        if self._volume_identity is None:
            self._volume_identity = self._database.run(volume_identity.known_identity)
        if self._volume_identity is not None:  # else no job can be there yet
            self._blobs.require(self._volume_identity)
