"""Sessions of the console, and dry runs that it asks for."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.core.db.tables.base import Base


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
