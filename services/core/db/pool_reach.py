"""Which models' rows a pool of workers may claim."""

from sqlalchemy import ColumnElement, and_, false, func, literal, not_, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from services.core.db.tables import ModelVersionRow
from services.core.pools import Pool, PoolDevice


def within_reach(model_id: InstrumentedAttribute[str], pool: Pool) -> ColumnElement[bool]:
    """Whether the pool runs the model that the column `model_id` names.

    What is not known any more is within the reach of every pool that may have been meant, so that a job of such a model
    fails with a sentence instead of waiting for ever.
    """
    if pool.takes_every_model:
        return true()
    named = and_(
        model_id.in_(pool.models) if pool.models else true(),
        model_id.not_in(pool.except_models) if pool.except_models else true(),
    )
    beyond: list[ColumnElement[bool]] = []
    if pool.runtimes:
        beyond.append(ModelVersionRow.runtime.not_in(pool.runtimes))
    if pool.device is PoolDevice.CPU:
        wanted = ModelVersionRow.options["inference"]["device"].astext
        beyond.append(func.coalesce(wanted, "auto").startswith("cuda"))
    if not beyond:
        return named
    missing = select(literal(1)).where(ModelVersionRow.model_id == model_id, or_(false(), *beyond))
    return and_(named, not_(missing.exists()))
