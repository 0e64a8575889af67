"""Tokens: shown once, kept as a digest, and opening nothing once revoked or expired."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from services.core.db import audit, tokens
from services.core.db.session import Database
from services.core.db.tables import ApiTokenRow
from services.core.errors import InvalidToken
from services.core.tokens import Scope, Token, digest_of


@pytest.fixture(autouse=True)
def no_tokens(database: Database) -> None:
    database.run(lambda session: session.execute(delete(ApiTokenRow)))


def created(database: Database, name: str = "ci", **options: Any) -> tuple[Token, str]:
    arguments = {"scopes": ["segment"], "actor": "command"} | options
    return database.run(lambda session: tokens.create_token(session, name=name, **arguments))


def presented(database: Database, secret: str) -> Token | None:
    return database.run(tokens.presented_token, digest_of(secret.encode()))


def revoke(database: Database, name: str = "ci") -> Token:
    return database.run(lambda session: tokens.revoke_token(session, name, actor="command"))


def test_a_token_is_256_random_bits_kept_as_a_digest(database: Database) -> None:
    token, secret = created(database, scopes=["feedback", "segment"], all_jobs=True)
    assert re.fullmatch(r"segint_[A-Za-z0-9_-]{43}", secret)
    assert created(database, "other")[1] != secret
    assert presented(database, secret) == token
    assert (token.scopes, token.all_jobs) == (frozenset({Scope.SEGMENT, Scope.FEEDBACK}), True)
    assert (token.expires_at, token.last_used_at, token.revoked_at) == (None, None, None)
    # Nothing of the secret is in any column, nor in the audit
    row = database.run(lambda session: session.execute(select(ApiTokenRow.__table__)).all())
    entries = database.run(audit.newest, 10)
    assert secret not in f"{row} {entries}"
    assert secret.removeprefix("segint_") not in f"{row} {entries}"
    assert [(entry.actor, entry.action, entry.subject) for entry in entries][1] == (
        "command",
        "token.created",
        "token:ci",
    )


@pytest.mark.parametrize("secret", ["", "segint_", "segint_x", "\x00"])
def test_what_is_no_token_opens_nothing(database: Database, secret: str) -> None:
    created(database)
    assert presented(database, secret) is None


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "../x"},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"expires_days": 0},
        {"expires_days": -1},
        {"expires_days": 10**9},
    ],
)
def test_what_cannot_be_taken_is_refused(database: Database, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        created(database, **options)


def test_a_name_belongs_to_one_token_until_it_is_revoked(database: Database) -> None:
    # Given a token
    first, secret = created(database)
    with pytest.raises(InvalidToken, match="already"):
        created(database)
    # When it is revoked
    assert revoke(database).revoked_at is not None
    # Then it opens nothing, cannot be revoked again, and its name may go to another, which is not the same token
    assert presented(database, secret) is None
    with pytest.raises(InvalidToken, match="no token"):
        revoke(database)
    second, other = created(database)
    assert second.id != first.id
    assert presented(database, other) == second
    assert [token.id for token in database.run(tokens.tokens)] == [first.id, second.id]


def test_an_expired_token_opens_nothing(database: Database) -> None:
    token, secret = created(database, expires_days=30)
    assert token.expires_at is not None
    assert timedelta(days=29) < token.expires_at - datetime.now(UTC) < timedelta(days=31)
    assert presented(database, secret) == token
    database.run(lambda session: session.execute(update(ApiTokenRow).values(expires_at=func.now())))
    assert presented(database, secret) is None


def test_the_last_use_is_written_once_a_minute(database: Database) -> None:
    def last_use() -> datetime | None:
        return database.run(lambda session: session.scalar(select(ApiTokenRow.last_used_at)))

    token, _ = created(database)
    database.run(tokens.note_use, token.id)
    first = last_use()
    assert first is not None
    database.run(tokens.note_use, token.id)
    assert last_use() == first
    long_ago = first - timedelta(seconds=tokens.USE_GRAIN_SECONDS + 1)
    database.run(lambda session: session.execute(update(ApiTokenRow).values(last_used_at=long_ago)))
    database.run(tokens.note_use, token.id)
    assert (last_use() or long_ago) > first
