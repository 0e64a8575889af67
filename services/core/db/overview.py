"""How the deployment is doing: counts, throughput, stages, failures, and what users thought of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Text, case, cast, column, func, literal_column, select, text, true
from sqlalchemy.orm import Session

from services.core.db import jobs, workers
from services.core.db.tables import FeedbackRow, ModelVersionRow, SegmentationJobRow
from services.core.db.tables import SegmentationJobRow as Row
from services.core.db.workers import LivingWorkers
from services.core.jobs import JobState

HOURS = 24
DAYS = 7
MOST_REASONS = 8
MOST_MODELS = 12
REASON_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Hour:
    """What ended within an hour."""

    at: datetime
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of jobs that succeeded within some days."""

    name: str
    median_seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why jobs failed within some days."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Score:
    """What users gave a model version, over all its results."""

    model_id: str
    mean: float
    count: int


@dataclass(frozen=True, slots=True)
class Overview:
    """One look."""

    states: dict[JobState, int]
    oldest_queued_seconds: float
    workers: LivingWorkers
    hours: Sequence[Hour]
    stages: Sequence[Stage]
    failures: Sequence[Failure]
    scores: Sequence[Score]
    """Of the versions that users scored last, the most recent first."""
    more_scores: int
    """Versions that have scores and are not among them."""
    versions: int
    published: int


def overview(session: Session) -> Overview:
    """Everything, by statements that only read."""
    scores, more_scores = _scores(session)
    return Overview(
        states=jobs.count_by_state(session),
        oldest_queued_seconds=jobs.oldest_queued_seconds(session),
        workers=workers.living(session),
        hours=_hours(session),
        stages=_stages(session),
        failures=_failures(session),
        scores=scores,
        more_scores=more_scores,
        versions=session.scalar(select(func.count()).select_from(ModelVersionRow)) or 0,
        published=session.scalar(
            select(func.count()).where(ModelVersionRow.enabled, ModelVersionRow.runtime.is_not(None))
        )
        or 0,
    )


def _hours(session: Session) -> list[Hour]:
    start = func.date_trunc("hour", func.now())
    series = func.generate_series(start - text(f"interval '{HOURS - 1} hours'"), start, text("interval '1 hour'"))
    hours = series.table_valued("at").render_derived()
    ended = func.date_trunc("hour", Row.finished_at) == hours.c.at
    succeeded = func.count(case((Row.run_seconds.is_not(None), 1)))
    failed = func.count(case((Row.error_code != 0, 1)))
    rows = session.execute(
        select(hours.c.at, succeeded, failed)
        .select_from(hours.outerjoin(SegmentationJobRow, ended))
        .group_by(hours.c.at)
        .order_by(hours.c.at)
    )
    return [Hour(at, good, bad) for at, good, bad in rows]


def _stages(session: Session) -> list[Stage]:
    stage = (
        func.jsonb_each_text(Row.stage_seconds)
        .table_valued(column("key", Text), column("value", Text))
        .render_derived()
    )
    seconds = func.percentile_cont(0.5).within_group(cast(stage.c.value, type_=Row.run_seconds.type))
    rows = session.execute(
        select(stage.c.key, seconds)
        .select_from(Row)
        .join(stage, true())
        .where(Row.run_seconds.is_not(None), Row.finished_at > func.now() - text(f"interval '{DAYS} days'"))
        .group_by(stage.c.key)
        .order_by(seconds.desc())
    )
    return [Stage(name, float(median)) for name, median in rows]


def _failures(session: Session) -> list[Failure]:
    reason = func.left(Row.error_text, literal_column(str(REASON_CHARACTERS)))
    count = func.count()
    rows = session.execute(
        select(reason, count)
        .where(Row.error_code != 0, Row.finished_at > func.now() - text(f"interval '{DAYS} days'"))
        .group_by(reason)
        .order_by(count.desc())
        .limit(MOST_REASONS)
    )
    return [Failure(words, number) for words, number in rows]


def _scores(session: Session) -> tuple[list[Score], int]:
    mean, count = func.avg(FeedbackRow.score), func.count(FeedbackRow.score)
    rows = session.execute(
        select(Row.model_id, mean, count, func.count().over())
        .join(FeedbackRow, FeedbackRow.job_id == Row.id)
        .where(FeedbackRow.score.is_not(None))
        .group_by(Row.model_id)
        .order_by(func.max(FeedbackRow.created_at).desc(), Row.model_id)
        .limit(MOST_MODELS)
    ).all()
    scores = [Score(model_id, float(average), number) for model_id, average, number, _ in rows]
    return scores, rows[0][3] - len(rows) if rows else 0
