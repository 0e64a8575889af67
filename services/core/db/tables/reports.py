"""What clients report: feedback and telemetry."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Identity,
    Integer,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.core.db.tables.base import Base


class FeedbackRow(Base):
    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    segmentation_id: Mapped[str] = mapped_column(index=True)
    """The client's text, whatever it is."""
    client_version: Mapped[str] = mapped_column(server_default="")
    accepted: Mapped[bool] = mapped_column(Boolean)
    comments: Mapped[str] = mapped_column(server_default="")
    score: Mapped[float | None] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    submitted_by: Mapped[str] = mapped_column(server_default="")
    """In the audit's words: `token:NAME`, `network:ADDRESS`."""
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("segmentation_job.id", ondelete="SET NULL"), index=True)
    """The segmentation, if there was one when this came that its sender may see."""

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
