"""Segmentation jobs, what happened to them, and the processes that see to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from services.core.db.tables.base import Base
from services.core.jobs import JobState

_STATES = ", ".join(f"'{state}'" for state in JobState)


class SegmentationJobRow(Base):
    __tablename__ = "segmentation_job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("progress_percent BETWEEN 0 AND 100", name="progress_percent"),
        Index(
            "ix_segmentation_job_claimable", text("priority DESC"), "created_at", postgresql_where="state = 'queued'"
        ),
        Index("ix_segmentation_job_lease", "lease_expires_at", postgresql_where="state = 'running'"),
        Index(
            "ix_segmentation_job_files",
            "id",
            postgresql_where="input_file IS NOT NULL OR result_file IS NOT NULL",
        ),
        Index("ix_segmentation_job_expiry", "expires_at", postgresql_where="state <> 'expired'"),
        Index(
            "ix_segmentation_job_history",
            "model_id",
            text("finished_at DESC"),
            postgresql_where="run_seconds IS NOT NULL",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("model_version.model_id", onupdate="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(server_default=JobState.QUEUED.value)
    priority: Mapped[int] = mapped_column(SmallInteger)
    progress_percent: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    error_code: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    error_text: Mapped[str] = mapped_column(server_default="")
    remarks: Mapped[str] = mapped_column(server_default="")
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    claim_token: Mapped[UUID | None] = mapped_column()
    lease_expires_at: Mapped[datetime | None] = mapped_column()
    worker: Mapped[str | None] = mapped_column()
    """Who runs it, or ran it last."""
    cancel_requested: Mapped[bool] = mapped_column(Boolean, server_default=false())
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())
    stage_seconds: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    input_file: Mapped[str | None] = mapped_column()
    """NULL once deleted from the volume; so is `result_file`."""
    result_file: Mapped[str | None] = mapped_column()
    input_bytes: Mapped[int] = mapped_column(BigInteger)
    input_sha256: Mapped[str | None] = mapped_column()
    voxel_count: Mapped[int] = mapped_column(BigInteger)
    result_bytes: Mapped[int | None] = mapped_column(BigInteger)
    result_sha256: Mapped[str | None] = mapped_column()
    client_version: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column()
    """When its first attempt began."""
    claimed_at: Mapped[datetime | None] = mapped_column()
    """When its last attempt began."""
    run_seconds: Mapped[float | None] = mapped_column()
    """From the last claim to success; what estimates are made from."""
    finished_at: Mapped[datetime | None] = mapped_column()
    expires_at: Mapped[datetime | None] = mapped_column()
    submitted_by: Mapped[str] = mapped_column(server_default="")
    """In the audit's words: `token:NAME`, `network:ADDRESS`; empty for jobs from before it was kept."""
    token_id: Mapped[int | None] = mapped_column(ForeignKey("api_token.id"))
    """Whose job it is: a name may be given to another token later. NULL: submitted without a token."""
    runtime: Mapped[str | None] = mapped_column(deferred=True)
    """What the last attempt ran, as it was then; so are the next four. Nobody who polls needs them."""
    model_sha256: Mapped[str | None] = mapped_column(deferred=True)
    module_sha256: Mapped[str | None] = mapped_column(deferred=True)
    model_options: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    software_version: Mapped[str | None] = mapped_column(deferred=True)


class JobEventRow(Base):
    """The time line of jobs: only ever appended to."""

    __tablename__ = "job_event"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("segmentation_job.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    kind: Mapped[str] = mapped_column()
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    worker: Mapped[str | None] = mapped_column()
    details: Mapped[str] = mapped_column(server_default="")


class VolumeIdentityRow(Base):
    """One row: the volume whose files the jobs name."""

    __tablename__ = "volume_identity"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    identity: Mapped[str] = mapped_column()


class JanitorRoundRow(Base):
    """One row: when a janitor worked last, over all API processes."""

    __tablename__ = "janitor_round"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    last_at: Mapped[datetime] = mapped_column()
    reap_after: Mapped[datetime] = mapped_column()
    """No lease is taken back before this."""


class WorkerRow(Base):
    """A worker that is there or was lately, as it said last. No claim depends on it; the janitor forgets it."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str] = mapped_column(server_default="")
    reach: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    """The fields of its `Pool` but the name."""
    models: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    """What it has loaded; see `services.core.db.workers.LoadedModel`."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column()
    """When it said that it ends; NULL for one that has not, or was killed."""
