"""Dry runs in PostgreSQL: asked for by the console, claimed by a worker that is idle, and told of."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.core.db.pool_figures import beyond_reach
from services.core.db.pool_reach import within_reach
from services.core.db.storable_text import storable
from services.core.db.tables import ModelCheckRow as Row
from services.core.model_check import CheckState, ModelCheck
from services.core.pools import Pool

MOST_ATTEMPTS = 2
"""A model that takes the worker with it is tried once more, and then never again."""
GAVE_UP = "The worker ended during the dry run, twice; the model probably needs more memory than there is."


def ask(session: Session, model_id: str, fingerprint: str) -> ModelCheck:
    """Ask for a dry run of what is attached to the version; one that waits already is that one."""
    waiting = session.scalar(
        select(Row).where(
            Row.model_id == model_id, Row.fingerprint == fingerprint, Row.state == CheckState.QUEUED.value
        )
    )
    row = waiting or Row(model_id=model_id, fingerprint=fingerprint)
    session.add(row)
    session.flush()
    session.refresh(row)
    return _value(row)


def claim(
    session: Session, worker: str, lease_seconds: float, pool: Pool, settings_pool: Pool | None = None
) -> ModelCheck | None:
    """The oldest dry run of a model of `pool` that waits, or whose worker fell silent; None where there is none.

    Where the worker's settings promise more than `pool`, what it has the libraries for, it also takes what no worker
    that is there has them for: whoever asked is then told what to install, instead of waiting.
    """
    now = func.now()
    takes = within_reach(Row.model_id, pool)
    if settings_pool is not None and settings_pool != pool:
        takes = or_(takes, and_(within_reach(Row.model_id, settings_pool), beyond_reach(session, Row.model_id)))
    row = session.scalar(
        select(Row)
        .where(
            or_(
                Row.state == CheckState.QUEUED.value,
                and_(Row.state == CheckState.RUNNING.value, Row.lease_expires_at < now),
            ),
            takes,
        )
        .order_by(Row.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if row is None:
        return None
    if row.attempt >= MOST_ATTEMPTS:
        row.state, row.error_text, row.finished_at = CheckState.FAILED.value, GAVE_UP, now
        session.flush()
        return claim(session, worker, lease_seconds, pool, settings_pool)
    row.state, row.worker = CheckState.RUNNING.value, worker
    row.attempt += 1
    row.lease_expires_at = now + timedelta(seconds=lease_seconds)
    session.flush()
    session.refresh(row)
    return _value(row)


def finish(session: Session, check: ModelCheck, report: Mapping[str, Any], error_text: str = "") -> None:
    """Tell what came of it, unless somebody else runs it by now. An `error_text` means that it failed."""
    row = session.get(Row, check.id, with_for_update=True)
    if row is None or row.state != CheckState.RUNNING or row.attempt != check.attempt:
        return
    row.state = (CheckState.FAILED if error_text else CheckState.PASSED).value
    row.report = dict(report)
    row.error_text = storable(error_text)
    row.finished_at = func.now()


def newest(session: Session, model_id: str) -> ModelCheck | None:
    """The last dry run of the version."""
    row = session.scalar(select(Row).where(Row.model_id == model_id).order_by(Row.id.desc()).limit(1))
    return None if row is None else _value(row)


def count_waiting(session: Session) -> int:
    """Dry runs that a worker could claim now."""
    statement = (
        select(func.count())
        .select_from(Row)
        .where(
            or_(
                Row.state == CheckState.QUEUED.value,
                and_(Row.state == CheckState.RUNNING.value, Row.lease_expires_at < func.now()),
            )
        )
    )
    return session.scalar(statement) or 0


def _value(row: Row) -> ModelCheck:
    return ModelCheck(
        id=row.id,
        model_id=row.model_id,
        fingerprint=row.fingerprint,
        state=CheckState(row.state),
        attempt=row.attempt,
        worker=row.worker,
        error_text=row.error_text,
        report=row.report,
    )
