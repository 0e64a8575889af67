"""A worker tells the database that it is there, so that an operator sees which pools have workers."""

import logging
import threading

from services.core.db import worker_presence
from services.core.db.session import Database
from services.core.errors import DatabaseUnavailable
from services.core.pools import Pool

logger = logging.getLogger(__name__)

STOP_SECONDS = 3.0
"""For the last word; a database that is away does not hold up the end of a worker."""


class Presence:
    """Tells it again and again, in a thread of its own. What cannot be told is a line in the log."""

    def __init__(self, database: Database, worker: str, pool: Pool) -> None:
        self._database = database
        self._worker = worker
        self._pool = pool
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tell_again_and_again, name="presence", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Say that the worker ends."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _tell_again_and_again(self) -> None:
        self._tell()
        while not self._stopping.wait(worker_presence.TELL_SECONDS):
            self._tell()
        try:
            self._database.run(worker_presence.tell_end, self._worker)
        except DatabaseUnavailable as error:
            logger.warning("end not told", extra={"reason": error.details})
        self._database.close()

    def _tell(self) -> None:
        try:
            self._database.run(worker_presence.tell, self._worker, self._pool)
        except DatabaseUnavailable as error:
            logger.warning("presence not told", extra={"reason": error.details})
        except Exception:  # jobs are what a worker is for
            logger.exception("presence not told")
