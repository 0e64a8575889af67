"""Workers as they say of themselves that they are there, with the models that each has loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.core.db.tables import WorkerRow as Row
from services.core.pools import Pool

SILENT_SECONDS = 35
"""Who has said nothing for so long is not counted: three times what is between two words of a living one, and some."""
FORGOTTEN_SECONDS = 7 * 24 * 3600
"""Who has said nothing for so long is not kept either. Until then its pool is remembered, and seen to have nobody."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that a worker has loaded, as the worker tells it."""

    model_id: str
    loaded_for_seconds: float
    host_bytes: int
    device_bytes: int


@dataclass(frozen=True, slots=True)
class WarmModel:
    """The same, as it is shown."""

    model_id: str
    worker: str
    pool: str
    since: datetime
    host_bytes: int
    device_bytes: int


@dataclass(frozen=True, slots=True)
class LivingWorkers:
    """Who is there now."""

    names: tuple[str, ...]
    models: tuple[WarmModel, ...]
    """By identifier, then by worker."""


def tell(session: Session, name: str, pool: Pool, models: Sequence[LoadedModel]) -> None:
    """Worker `name` of that pool is there, and has these models loaded and no others. One statement."""
    reach = asdict(pool)
    told = {
        "pool": reach.pop("name"),
        "reach": reach,
        "models": [asdict(model) for model in models],
        "seen_at": func.now(),
        "ended_at": None,
    }
    statement = insert(Row).values(name=name, **told)
    session.execute(statement.on_conflict_do_update(index_elements=[Row.name], set_=told))


def leave(session: Session, name: str) -> None:
    """Worker `name` ends."""
    session.execute(update(Row).where(Row.name == name).values(models=[], ended_at=func.now()))


def is_there() -> ColumnElement[bool]:
    """Whether a worker's row is one that has been heard of of late and has not said that it ends."""
    return and_(Row.ended_at.is_(None), Row.seen_at > func.now() - timedelta(seconds=SILENT_SECONDS))


def living(session: Session) -> LivingWorkers:
    """Workers that are there."""
    rows = session.scalars(select(Row).where(is_there()).order_by(Row.name)).all()
    models = [_warm(row, LoadedModel(**model)) for row in rows for model in row.models]
    return LivingWorkers(
        tuple(row.name for row in rows),
        tuple(sorted(models, key=lambda model: (model.model_id, model.worker))),
    )


def forget_silent(session: Session) -> int:
    """Delete those that were there long ago; how many they were."""
    silent = Row.seen_at < func.now() - timedelta(seconds=FORGOTTEN_SECONDS)
    return len(session.scalars(delete(Row).where(silent).returning(Row.name)).all())


def _warm(row: Row, model: LoadedModel) -> WarmModel:
    since = row.seen_at - timedelta(seconds=model.loaded_for_seconds)
    return WarmModel(model.model_id, row.name, row.pool, since, model.host_bytes, model.device_bytes)
