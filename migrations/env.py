"""Alembic's entry: one connection, one advisory lock, and a limit on waiting for table locks."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from services.core.db.locks import Lock
from services.core.db.session import driver_url
from services.core.db.tables import Base

LOCK_TIMEOUT_SECONDS = 10
"""A migration that waits longer for a table would block every request behind it."""


def run() -> None:
    url = driver_url(context.config.attributes["database_url"])
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"connect_timeout": 3})
    with engine.connect() as connection:
        # The lock is the session's, not the transaction's: taken before Alembic reads the current revision.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": int(Lock.MIGRATION)})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
