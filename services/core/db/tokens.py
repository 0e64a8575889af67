"""API tokens in PostgreSQL: made, revoked, found by what is presented. Each change is in the audit."""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from services.core.db import audit
from services.core.db.locks import lock_name
from services.core.db.tables import ApiTokenRow as Row
from services.core.errors import InvalidToken
from services.core.tokens import Scope, Token, checked_scopes, digest_of, new_secret, token_name

MOST_DAYS = 36_500
USE_GRAIN_SECONDS = 60
"""How exactly the last use is known: a client that polls writes once a minute and not with every poll."""


def create_token(
    session: Session,
    *,
    name: str,
    scopes: Iterable[str | Scope],
    all_jobs: bool = False,
    expires_days: int | None = None,
    actor: str,
) -> tuple[Token, str]:
    """Make a token; the text beside it is its secret, which nobody can show again.

    A name that was revoked may be given again. The jobs of the token before stay that token's.

    Raises:
        InvalidToken: the name, a scope or the days cannot be taken, or there is a token of that name.
    """
    name = token_name(name)
    granted = checked_scopes([str(scope) for scope in scopes])
    if expires_days is not None and not 1 <= expires_days <= MOST_DAYS:
        raise InvalidToken(f"A token cannot expire in {expires_days} days; give 1 to {MOST_DAYS}, or no expiry.")
    lock_name(session, f"token {name}")
    if _current(session, name) is not None:
        raise InvalidToken(f"There is a token «{name}» already; revoke it first, or choose another name.")
    secret = new_secret()
    row = Row(
        name=name,
        sha256=digest_of(secret.encode()),
        scopes=[scope.value for scope in Scope if scope in granted],
        all_jobs=all_jobs,
        expires_at=None if expires_days is None else func.now() + timedelta(days=expires_days),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    details: dict[str, str | int] = {"id": row.id, "scopes": " ".join(row.scopes), "all_jobs": str(all_jobs).lower()}
    if row.expires_at is not None:
        details["expires_at"] = row.expires_at.isoformat(timespec="seconds")
    audit.record(session, actor=actor, action="token.created", subject=f"token:{name}", details=details)
    return _value(row), secret


def revoke_token(session: Session, name: str, *, actor: str) -> Token:
    """Let the token open nothing any more.

    Raises:
        InvalidToken: there is no such token, or it is revoked already.
    """
    row = _current(session, token_name(name), for_update=True)
    if row is None:
        raise InvalidToken(
            f"There is no token «{name}» that could be revoked; `segint token list` shows those there are."
        )
    row.revoked_at = func.now()
    session.flush()
    session.refresh(row)
    audit.record(session, actor=actor, action="token.revoked", subject=f"token:{row.name}", details={"id": row.id})
    return _value(row)


def tokens(session: Session) -> list[Token]:
    """Every token there ever was, by name and age."""
    return [_value(row) for row in session.scalars(select(Row).order_by(Row.name, Row.id))]


def presented_token(session: Session, digest: str) -> Token | None:
    """The token of which that is the digest, if it opens anything now: neither revoked nor expired."""
    row = session.scalar(
        select(Row).where(
            Row.sha256 == digest,
            Row.revoked_at.is_(None),
            or_(Row.expires_at.is_(None), Row.expires_at > func.now()),
        )
    )
    return None if row is None else _value(row)


def note_use(session: Session, token_id: int) -> None:
    """Remember that the token was used now, unless that was noted in the last minute."""
    long_ago = func.now() - timedelta(seconds=USE_GRAIN_SECONDS)
    session.execute(
        update(Row)
        .where(Row.id == token_id, or_(Row.last_used_at.is_(None), Row.last_used_at < long_ago))
        .values(last_used_at=func.now())
    )


def _current(session: Session, name: str, *, for_update: bool = False) -> Row | None:
    statement = select(Row).where(Row.name == name, Row.revoked_at.is_(None))
    return session.scalar(statement.with_for_update() if for_update else statement)


def _value(row: Row) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        all_jobs=row.all_jobs,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
