"""Dry runs that the console asks for: an idle worker tries the model in a host of its own and tells how it went."""

import logging
from typing import Any

from services.core.blobs import Blobs
from services.core.db import catalogue, model_checks
from services.core.db.session import Database
from services.core.errors import SegIntError, Unavailable
from services.core.model_check import ModelCheck, fingerprint_of
from services.core.model_spec import model_spec
from services.core.pools import Pool
from services.worker import dry_run

logger = logging.getLogger(__name__)

MARGIN_SECONDS = 60.0
"""What a dry run may take beyond the limits of loading and running, before somebody else tries."""
CHANGED = "The model was changed since the dry run was asked for; ask for another."


class ModelChecks:
    """Dry runs at this worker, one at a time and only between jobs."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        worker: str,
        time_limit_seconds: float,
        pool: Pool,
        settings_pool: Pool | None = None,
    ) -> None:
        """`settings_pool`: what the settings promise, where `pool` is less for want of libraries."""
        self._database = database
        self._blobs = blobs
        self._worker = worker
        self._time_limit_seconds = time_limit_seconds
        self._pools = (pool, settings_pool)

    @property
    def lease_seconds(self) -> float:
        """The longest that one may take."""
        return 2 * self._time_limit_seconds + MARGIN_SECONDS

    def run_one(self) -> bool:
        """Try the model that waits longest; False where none does."""
        try:
            check = self._database.run(model_checks.claim, self._worker, self.lease_seconds, *self._pools)
            if check is None:
                return False
            logger.info("dry run begins", extra={"model": check.model_id, "attempt": check.attempt})
            report, error_text = self._try(check)
            self._database.run(model_checks.finish, check, report, error_text)
            logger.info("dry run ended", extra={"model": check.model_id, "passed": not error_text})
        except Unavailable as error:  # its lease ends, and somebody tries it again
            logger.warning("dry run not told of", extra={"reason": error.details})
            return False
        return True

    def _try(self, check: ModelCheck) -> tuple[dict[str, Any], str]:
        entry = self._database.run(catalogue.find_entry, check.model_id)
        if entry is None or entry.attachment is None or fingerprint_of(entry.attachment) != check.fingerprint:
            return {}, CHANGED
        spec = model_spec(entry, entry.attachment, self._blobs.model_path)
        limit_seconds = entry.attachment.time_limit_seconds or self._time_limit_seconds
        try:
            # In this process, whose environment nobody can read; the model has a host of its own as it always does.
            return dry_run.check(spec, min(limit_seconds, self._time_limit_seconds)), ""
        except SegIntError as error:
            return {}, error.details
        except Exception:
            logger.exception("dry run broke", extra={"model": check.model_id})
            return {}, "The dry run broke off; the worker's log says why."
