"""Every table. `migrations/` owns the schema; a test holds its head equal to what is declared here."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    event,
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from services.core.jobs import JobState

_STATES = ", ".join(f"'{state}'" for state in JobState)


class Base(DeclarativeBase):
    """Text is unbounded, times are timestamptz, and constraints have names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 # SQLAlchemy's own protocol
        str: Text,
        datetime: DateTime(timezone=True),
        float: Double,
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(Integer),
        list[float]: ARRAY(Double),
    }


# --- The catalogue -------------------------------------------------------------------------------------------


class ModelFamilyRow(Base):
    __tablename__ = "model_family"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    canonical_name: Mapped[str] = mapped_column(unique=True)
    language_code: Mapped[str] = mapped_column(server_default="")
    described: Mapped[bool] = mapped_column(Boolean, server_default=false())
    """Whether the message carries a FamilyDescription at all; absent and empty are two messages."""
    name: Mapped[str] = mapped_column(server_default="")
    description: Mapped[str] = mapped_column(server_default="")
    clinical_domain: Mapped[str] = mapped_column(server_default="")
    anatomical_region: Mapped[str] = mapped_column(server_default="")
    primary_structure: Mapped[str] = mapped_column(server_default="")
    modalities: Mapped[str] = mapped_column(server_default="")
    gender: Mapped[int | None] = mapped_column(Integer)
    """NULL: the description carries no patient constraints."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    body_parts: Mapped[list["BodyPartRow"]] = relationship(
        cascade="all, delete-orphan", order_by="BodyPartRow.position", lazy="selectin"
    )
    input_channels: Mapped[list["InputChannelRow"]] = relationship(
        cascade="all, delete-orphan", order_by="InputChannelRow.position", lazy="selectin"
    )
    versions: Mapped[list["ModelVersionRow"]] = relationship(
        back_populates="family", cascade="all, delete-orphan", order_by="ModelVersionRow.position", lazy="selectin"
    )


class BodyPartRow(Base):
    __tablename__ = "body_part"

    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    code: Mapped[int] = mapped_column(Integer)
    """ModelConstraints.BodyPartExaminedType; an open enumeration."""


class InputChannelRow(Base):
    __tablename__ = "input_channel"

    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    channel_id: Mapped[str] = mapped_column()
    constrained: Mapped[bool] = mapped_column(Boolean, server_default=false())
    """Whether the message carries Constraints at all."""
    accepted_modalities: Mapped[list[int]] = mapped_column(server_default=text("'{}'"))
    spacing_min: Mapped[list[float] | None] = mapped_column()
    """(x, y, z) in millimetres; so are the next three, dimensions in pixels."""
    spacing_max: Mapped[list[float] | None] = mapped_column()
    dimensions_min: Mapped[list[float] | None] = mapped_column()
    dimensions_max: Mapped[list[float] | None] = mapped_column()
    original_data_required: Mapped[bool] = mapped_column(Boolean, server_default=false())
    is_axial: Mapped[bool] = mapped_column(Boolean, server_default=false())


class ModelFileRow(Base):
    """A file below models/ on the volume. Never changed: attaching another file makes another row."""

    __tablename__ = "model_file"

    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column()
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    uploaded_name: Mapped[str] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelVersionRow(Base):
    __tablename__ = "model_version"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    model_id: Mapped[str] = mapped_column(unique=True)
    """ModelVersion.ID: unique over all families, because requests name nothing else."""
    description: Mapped[str] = mapped_column(server_default="")
    created_on: Mapped[datetime | None] = mapped_column()
    created_on_nanoseconds: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Below the microsecond, where timestamptz stops."""
    credits_required: Mapped[float] = mapped_column(server_default="0")
    major: Mapped[int] = mapped_column(BigInteger, server_default="0")
    minor: Mapped[int] = mapped_column(BigInteger, server_default="0")
    language_code: Mapped[str] = mapped_column(server_default="")

    enabled: Mapped[bool] = mapped_column(Boolean, server_default=true())
    runtime: Mapped[str | None] = mapped_column()
    """NULL: nothing attached; stored, but neither published nor runnable."""
    artifact_name: Mapped[str | None] = mapped_column(ForeignKey("model_file.name"))
    module_name: Mapped[str | None] = mapped_column(ForeignKey("model_file.name"))
    class_name: Mapped[str | None] = mapped_column()
    allow_pickle: Mapped[bool] = mapped_column(Boolean, server_default=false())
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    time_limit_seconds: Mapped[int | None] = mapped_column(Integer)

    family: Mapped[ModelFamilyRow] = relationship(back_populates="versions", lazy="joined")
    artifact: Mapped[ModelFileRow | None] = relationship(foreign_keys=[artifact_name], lazy="joined")
    module: Mapped[ModelFileRow | None] = relationship(foreign_keys=[module_name], lazy="joined")
    structures: Mapped[list["StructureRow"]] = relationship(
        cascade="all, delete-orphan", order_by="StructureRow.position", lazy="selectin"
    )
    regulatory_frameworks: Mapped[list["RegulatoryFrameworkRow"]] = relationship(
        cascade="all, delete-orphan", order_by="RegulatoryFrameworkRow.position", lazy="selectin"
    )


class StructureRow(Base):
    __tablename__ = "structure"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    structure_id: Mapped[str] = mapped_column(server_default="")
    name: Mapped[str] = mapped_column()
    color: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    """Red, green, blue; NULL when the message carries none."""
    structure_type: Mapped[int] = mapped_column(Integer, server_default="0")
    fma_code: Mapped[int] = mapped_column(BigInteger, server_default="0")
    input_channel_id: Mapped[str] = mapped_column(server_default="")


class RegulatoryFrameworkRow(Base):
    __tablename__ = "regulatory_framework"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    framework: Mapped[str] = mapped_column(server_default="")
    status: Mapped[int] = mapped_column(Integer, server_default="0")
    udi: Mapped[str] = mapped_column(server_default="")
    manufacturer: Mapped[str] = mapped_column(server_default="")
    details_url: Mapped[str] = mapped_column(server_default="")
    release_date: Mapped[datetime | None] = mapped_column()
    release_date_nanoseconds: Mapped[int] = mapped_column(SmallInteger, server_default="0")


# --- Jobs ----------------------------------------------------------------------------------------------------


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


# --- What clients report -------------------------------------------------------------------------------------


class FeedbackRow(Base):
    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    segmentation_id: Mapped[str] = mapped_column(index=True)
    """The client's text and no foreign key: feedback outlives its segmentation."""
    client_version: Mapped[str] = mapped_column(server_default="")
    accepted: Mapped[bool] = mapped_column(Boolean)
    comments: Mapped[str] = mapped_column(server_default="")
    score: Mapped[float | None] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    structure_comments: Mapped[list["StructureCommentRow"]] = relationship(
        cascade="all, delete-orphan", order_by="StructureCommentRow.position", lazy="selectin"
    )


class StructureCommentRow(Base):
    __tablename__ = "structure_comment"

    feedback_id: Mapped[int] = mapped_column(ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    structure_id: Mapped[str] = mapped_column(server_default="")
    comments: Mapped[str] = mapped_column(server_default="")
    score: Mapped[float | None] = mapped_column()


class TelemetryRow(Base):
    __tablename__ = "telemetry"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    segmentation_id: Mapped[str] = mapped_column(index=True)
    model_id: Mapped[str] = mapped_column(server_default="")
    client_version: Mapped[str] = mapped_column(server_default="")
    upload_ms: Mapped[int] = mapped_column(BigInteger)
    wait_ms: Mapped[int] = mapped_column(BigInteger)
    download_ms: Mapped[int] = mapped_column(BigInteger)
    retries: Mapped[int] = mapped_column(BigInteger)
    client_error: Mapped[int] = mapped_column(Integer)
    client_error_information: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


# --- Who may do what, and who did ----------------------------------------------------------------------------


class AccountRow(Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str] = mapped_column()
    """argon2id, with its parameters and salt."""
    roles: Mapped[list[str]] = mapped_column()
    enabled: Mapped[bool] = mapped_column(Boolean, server_default=true())
    session_epoch: Mapped[int] = mapped_column(Integer, server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    password_changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_login_at: Mapped[datetime | None] = mapped_column()


class LoginFailureRow(Base):
    """Failures to log in of one account or from one address, until they are forgotten."""

    __tablename__ = "login_failure"

    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    blocked_until: Mapped[datetime | None] = mapped_column()
    forget_at: Mapped[datetime] = mapped_column(index=True)


class ApiTokenRow(Base):
    """Never deleted: jobs refer to it, revoked or not."""

    __tablename__ = "api_token"
    __table_args__ = (Index("ix_api_token_name", "name", unique=True, postgresql_where="revoked_at IS NULL"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column()
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column()
    all_jobs: Mapped[bool] = mapped_column(Boolean, server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column()
    last_used_at: Mapped[datetime | None] = mapped_column()
    revoked_at: Mapped[datetime | None] = mapped_column()


class AuditEntryRow(Base):
    """Only ever appended to, which triggers see to. See `services.core.audit`."""

    __tablename__ = "audit_entry"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column()
    actor: Mapped[str] = mapped_column()
    action: Mapped[str] = mapped_column()
    subject: Mapped[str] = mapped_column(server_default="")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    previous_hash: Mapped[str] = mapped_column()
    hash: Mapped[str] = mapped_column()


APPEND_ONLY = (
    """
    CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit()
    """,
)
"""What the migration does too; whoever owns the table could still take the triggers away."""

for _statement in APPEND_ONLY:
    event.listen(AuditEntryRow.__table__, "after_create", DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call] # SQLAlchemy's own


# --- The console ---------------------------------------------------------------------------------------------


class ConsoleSessionRow(Base):
    """Somebody who is logged in to the console."""

    __tablename__ = "console_session"

    id_sha256: Mapped[str] = mapped_column(primary_key=True)
    """Of the identifier, which only the browser has: who reads this table cannot take a session over."""
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    session_epoch: Mapped[int] = mapped_column(Integer)
    """The account's when it began."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelCheckRow(Base):
    """A dry run of what is attached to a model version, for the first worker that is idle."""

    __tablename__ = "model_check"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'passed', 'failed')", name="state"),
        Index("ix_model_check_open", "id", postgresql_where="state IN ('queued', 'running')"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model_id: Mapped[str] = mapped_column(
        ForeignKey("model_version.model_id", onupdate="CASCADE", ondelete="CASCADE"), index=True
    )
    fingerprint: Mapped[str] = mapped_column()
    """Of the attachment that is tried: what is attached later needs another dry run."""
    state: Mapped[str] = mapped_column(server_default="queued")
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    worker: Mapped[str | None] = mapped_column()
    lease_expires_at: Mapped[datetime | None] = mapped_column()
    report: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    error_text: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column()
