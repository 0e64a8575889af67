"""The application's role, apart from the schema's owner: it works on every table, and may only add to the audit.

Whoever owns a table can take its triggers away. So the owner migrates, and API, workers and commands come as a role
that owns nothing.
"""

import logging
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from services.core.db import locks
from services.core.db.session import Database, driver_url
from services.core.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

# Default privileges are those of tables that later migrations of the same owner make.
GRANTS = """
    GRANT USAGE ON SCHEMA public TO {role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role};
    REVOKE ALL ON audit_entry, alembic_version FROM {role};
    GRANT SELECT, INSERT ON audit_entry TO {role};
    GRANT SELECT ON alembic_version TO {role}
"""

STRONGER = text(
    """
    SELECT pg_get_userbyid(owner) FROM (
        SELECT relowner FROM pg_class WHERE oid = 'audit_entry'::regclass
        UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'public'
    ) owners (owner)
    WHERE pg_has_role(:role, owner, 'MEMBER')
    """
)
"""Whose rights the role has, of those who can take the triggers away; a superuser has everybody's."""

OWNED = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'audit_entry'::regclass")
"""Whether this role has the owner's rights. A grant by another one is but a warning."""


def bind(owner_url: str, application_url: str) -> None:
    """Give the role of `application_url` what the services need in a migrated database, and no more of the audit.

    It is made, with that URL's password, where it is not there and the owner may. Safe to repeat, and from several
    processes at once. Where both URLs name one role there is nothing to bind.

    Raises:
        DatabaseUnavailable: PostgreSQL is away; or the role is missing, or could change the audit all the same.
    """
    owner, application = driver_url(owner_url), driver_url(application_url)
    role = application.username
    if role is None:
        raise DatabaseUnavailable(
            "SEGINT_DATABASE_URL names no role; write postgresql://user:password@host:port/database."
        )
    if role == owner.username:
        logger.warning("the services' role owns the schema and could change the audit", extra={"role": role})
        return
    database = Database(owner_url)
    try:
        database.run(_bind, role, application.password)
    except ProgrammingError as error:
        said = str(error.orig).strip().splitlines()[0]
        raise DatabaseUnavailable(f"The rights of the role {role} could not be set ({said}).") from error
    finally:
        database.close()
    logger.info("the services' role is bound", extra={"role": role})


def _bind(session: Session, role: str, password: str | None) -> None:
    locks.lock(session, locks.Lock.ROLES)
    if session.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}) is None:
        _make(session, role, password)
    if session.scalar(OWNED) is not True:
        raise DatabaseUnavailable(
            "SEGINT_MIGRATION_DATABASE_URL has to name the role that owns the tables; only that one can grant on them."
        )
    for statement in GRANTS.format(role=_quoted(role)).split(";\n"):
        session.execute(_verbatim(statement))
    stronger = session.scalar(STRONGER, {"role": role})
    if stronger is not None:
        raise DatabaseUnavailable(
            f"The role {role} could change the audit, because it is {stronger}, a member of it, or a superuser; name "
            "another role in SEGINT_DATABASE_URL, or give the tables to the owner (REASSIGN OWNED)."
        )


def _make(session: Session, role: str, password: str | None) -> None:
    may = session.scalar(text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"))
    if not may:
        raise DatabaseUnavailable(
            f"The role {role} that SEGINT_DATABASE_URL names is not there, and the schema's owner may not make it; "
            "have an administrator of PostgreSQL run CREATE ROLE … LOGIN PASSWORD '…'."
        )
    session.execute(_verbatim(f"CREATE ROLE {_quoted(role)} LOGIN"))
    if password:
        # Hashed here: a statement may be logged by the server.
        driver: Any = session.connection().connection.driver_connection
        hashed = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        session.execute(_verbatim(f"ALTER ROLE {_quoted(role)} PASSWORD '{hashed}'"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _verbatim(statement: str) -> TextClause:
    """With colons that are no parameters."""
    return text(statement.replace(":", r"\:"))
