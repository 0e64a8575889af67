"""Who may do what, and who did."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Identity,
    Index,
    Integer,
    event,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.core.db.tables.base import Base


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
