"""Orphans both ways: files that no row names, and rows whose file is gone.

Neither is believed at first sight. An upload has no row until it is whole, and another machine's view of a network
filesystem lags behind. So a name must have been an orphan in every look for `SEGINT_ORPHAN_SECONDS`, on this process's
own clock: file times are not asked, since clocks of file servers differ. A look that fails starts the wait anew.
"""

import logging
import time
from collections.abc import Callable, Iterable

from anyio import to_thread

from services.api.metrics import Metrics
from services.core.blobs import INPUTS, MODELS, RESULTS, Blobs
from services.core.db import jobs as job_rows
from services.core.db import stored_files
from services.core.db.session import AsyncDatabase
from services.core.errors import Unavailable
from services.core.settings import Settings
from services.core.strays import FilesOnVolume, attempt_of, files_on_volume

logger = logging.getLogger(__name__)

LOOKS_PER_WAIT = 4
LONGEST_PAUSE_SECONDS = 60.0
"""Between two looks, which list whole folders."""


class Orphans:
    """Looks for orphans now and then, and settles those that have been so for long enough."""

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase,
        blobs: Blobs,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds that only ever grow."""
        self._clock = clock
        self._patience_seconds = settings.orphan_seconds
        self._retention_hours = settings.result_retention_hours
        self._database = database
        self._blobs = blobs
        self._metrics = metrics
        self._since: dict[tuple[str, str], float] = {}
        self._next_look = 0.0

    async def look(self) -> None:
        """Look, if it is time to.

        Raises:
            DatabaseUnavailable, StorageAway: nothing can be told of orphans now.
        """
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + min(self._patience_seconds / LOOKS_PER_WAIT, LONGEST_PAUSE_SECONDS)
        try:
            # Files first: what a row names by the time it is read may be newer than the listing, never older.
            files = await to_thread.run_sync(files_on_volume, self._blobs.root)
            rows = await self._database.run(stored_files.named_files)
        except Unavailable:
            self._since.clear()
            raise
        strays = {*_strays(files, rows)}
        missing = {*_missing(files, rows)}
        self._since = {name: self._since.get(name, now) for name in strays | missing}
        due = {name for name, since in self._since.items() if now - since >= self._patience_seconds}
        self._metrics.janitor.orphans.labels("file").set(len(strays))
        self._metrics.janitor.orphans.labels("row").set(len(missing))
        await to_thread.run_sync(self._delete, due & strays)
        await self._fail(due & missing, rows)

    def _delete(self, strays: set[tuple[str, str]]) -> None:
        for folder, name in strays:
            try:
                self._blobs.delete_stray(folder, name)
            except OSError as error:
                self._metrics.janitor.file_faults.inc()
                logger.error("stray not deleted", extra={"file": f"{folder}/{name}", "reason": str(error)})
            else:
                self._metrics.janitor.files.labels("stray").inc()
                logger.warning("stray deleted", extra={"file": f"{folder}/{name}"})

    async def _fail(self, missing: set[tuple[str, str]], rows: stored_files.NamedFiles) -> None:
        inputs = [rows.needed_inputs[name] for folder, name in missing if folder == INPUTS]
        results = [rows.needed_results[name] for folder, name in missing if folder == RESULTS]
        failed = []
        if inputs:
            failed += await self._database.run(
                stored_files.fail_without_input, inputs, retention_hours=self._retention_hours
            )
        if results:
            failed += await self._database.run(
                stored_files.fail_result,
                results,
                "is not on the server's volume any more",
                retention_hours=self._retention_hours,
            )
        for model_id in await self._database.run(job_rows.models_of, failed) if failed else []:
            self._metrics.job_failed(model_id)
        for job_id in failed:
            logger.error("job failed, its file is gone", extra={"job": str(job_id)})


def _strays(files: FilesOnVolume, rows: stored_files.NamedFiles) -> Iterable[tuple[str, str]]:
    yield from ((INPUTS, name) for name in files.inputs - rows.inputs)
    yield from ((RESULTS, name) for name in files.results - rows.results if attempt_of(name) not in rows.attempts)
    yield from ((MODELS, name) for name in files.models - rows.models)


def _missing(files: FilesOnVolume, rows: stored_files.NamedFiles) -> Iterable[tuple[str, str]]:
    yield from ((INPUTS, name) for name in rows.needed_inputs.keys() - files.inputs)
    yield from ((RESULTS, name) for name in rows.needed_results.keys() - files.results)
