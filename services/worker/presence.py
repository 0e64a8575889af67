"""Tells the database that this worker is there, and which models it has loaded: what the console's overview shows.

Nobody waits for it: it has a thread and a connection of its own, and a database that is away costs a line in the log.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from services.core.db import workers
from services.core.db.session import Database
from services.core.db.workers import LoadedModel
from services.core.errors import DatabaseUnavailable
from services.core.pools import Pool

logger = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
"""Between two words when nothing changes."""
LEAST_PAUSE_SECONDS = 0.5
"""Between two words when much changes: models come and go in pairs."""
CLOSE_SECONDS = 2.0
"""For the last word; without it the worker is shown for a little longer than it lives."""


class Presence:
    """One worker's. `notice` and `close` may be called from any thread."""

    def __init__(
        self,
        database: Database,
        name: str,
        pool: Pool,
        loaded: Callable[[], Sequence[LoadedModel]],
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        """Tell what `loaded` gives, each `every_seconds` and after each `notice`. `database` is closed with it."""
        self._database = database
        self._name = name
        self._pool = pool
        self._loaded = loaded
        self._every_seconds = every_seconds
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def notice(self) -> None:
        """A model was loaded or has gone."""
        self._wake.set()

    def close(self) -> None:
        """Say that the worker ends, if that can be said soon."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        self._database.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            self._say(workers.tell, self._name, self._pool, self._loaded())
            self._wake.wait(self._every_seconds)
            self._closing.wait(LEAST_PAUSE_SECONDS)
        self._say(workers.leave, self._name)

    def _say(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            self._database.run(work, *arguments)
            self._away = False
        except DatabaseUnavailable as error:
            if not self._away:
                logger.warning("worker not told of", extra={"reason": error.details})
            self._away = True
        except Exception:  # it is for people to look at; jobs go on without it
            if not self._away:
                logger.exception("worker not told of")
            self._away = True
