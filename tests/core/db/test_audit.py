"""The audit: append-only, in order over connections, and telling which entry was tampered with."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.core.audit import FIRST_PREVIOUS_HASH, AuditVerdict
from services.core.db import audit
from services.core.db.session import Database, Session

ENTRIES = 5


@pytest.fixture
def log(new_database: Callable[[], str]) -> Iterator[Database]:
    """A database whose audit has some entries. Its role is a superuser, which tampering needs."""
    database = Database(new_database(), pool_size=8)
    for number in range(ENTRIES):
        database.run(recorded, number)
    yield database
    database.close()


def recorded(session: Session, number: int) -> None:
    audit.record(
        session, actor="command", action="model.attached", subject=f"model:{number}", details={"file": "a.pt", "n": 1}
    )


def execute(session: Session, *statements: str) -> None:
    for statement in statements:
        session.execute(text(statement))


def tamper(database: Database, statement: str) -> None:
    """What only a superuser or the table's owner can do."""
    database.run(execute, "SET LOCAL session_replication_role = replica", statement)


def verdict(database: Database, expected: str | None = None) -> AuditVerdict:
    return database.run(audit.verify, expected)


def test_entries_are_numbered_and_carry_the_hash_before(log: Database) -> None:
    entries = log.run(audit.newest, 100)
    assert [entry.id for entry in entries] == [5, 4, 3, 2, 1]
    assert [entry.previous_hash for entry in entries] == [*(e.hash for e in entries[1:]), FIRST_PREVIOUS_HASH]
    assert entries[0].details == {"file": "a.pt", "n": 1}
    assert [entry.id for entry in log.run(lambda session: audit.newest(session, 2, before=4))] == [3, 2]
    found = verdict(log)
    assert (found.sound, found.entries, found.head_hash) == (True, ENTRIES, entries[0].hash)


def test_an_empty_audit_is_sound(new_database: Callable[[], str]) -> None:
    database = Database(new_database())
    found = verdict(database)
    assert (found.sound, found.entries, found.head_hash) == (True, 0, FIRST_PREVIOUS_HASH)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor = 'account:other' WHERE id = 2",
        "DELETE FROM audit_entry WHERE id = 2",
        "DELETE FROM audit_entry WHERE false",
        "TRUNCATE audit_entry",
        "INSERT INTO audit_entry SELECT * FROM audit_entry WHERE id = 2 "
        "ON CONFLICT (id) DO UPDATE SET actor = 'account:other'",
    ],
)
def test_an_entry_cannot_be_changed_or_deleted(log: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        log.run(execute, statement)
    assert verdict(log).entries == ENTRIES


@pytest.mark.parametrize("column", ["actor", "action", "subject", "hash", "previous_hash"])
def test_a_changed_text_is_found(log: Database, column: str) -> None:
    tamper(log, f"UPDATE audit_entry SET {column} = replace({column}, left({column}, 1), 'x') WHERE id = 3")
    found = verdict(log)
    assert found.fault is not None
    assert found.fault.id == 3
    assert (found.sound, found.entries) == (False, 2)


@pytest.mark.parametrize(
    ("statement", "first_fault", "words"),
    [
        ("UPDATE audit_entry SET at = at + interval '1 microsecond' WHERE id = 3", 3, "was changed"),
        ("UPDATE audit_entry SET details = details || '{\"n\": 2}' WHERE id = 3", 3, "was changed"),
        ("UPDATE audit_entry SET details = details || '{\"m\": 2}' WHERE id = 1", 1, "was changed"),
        ("DELETE FROM audit_entry WHERE id = 1", 1, "is missing"),
        ("DELETE FROM audit_entry WHERE id = 4", 4, "is missing"),
        ("UPDATE audit_entry SET id = 9 WHERE id = 4", 4, "is missing"),
        ("INSERT INTO audit_entry SELECT 6, at, actor, action, subject, details, previous_hash, hash "
         "FROM audit_entry WHERE id = 5", 6, "hash of the entry before"),
    ],
)  # fmt: skip
def test_the_first_entry_that_does_not_fit_is_named(
    log: Database, statement: str, first_fault: int, words: str
) -> None:
    tamper(log, statement)
    fault = verdict(log).fault
    assert fault is not None
    assert fault.id == first_fault
    assert words in fault.reason


def test_entries_cut_off_at_the_end_are_seen_by_a_kept_hash_alone(log: Database) -> None:
    # Given a head hash that somebody keeps, and an audit that goes on
    kept = verdict(log).head_hash
    log.run(recorded, 99)
    assert verdict(log, kept).sound
    # When entries are cut off at the end, Then what is left fits, but the kept hash is gone
    tamper(log, "DELETE FROM audit_entry WHERE id >= 4")
    assert verdict(log).sound
    found = verdict(log, kept)
    assert (found.sound, found.fault, found.expected_found) == (False, None, False)


def test_entries_of_transactions_at_one_time_form_one_chain(log: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.run(recorded, number), range(40)))
    found = verdict(log)
    assert (found.fault, found.entries) == (None, ENTRIES + 40)


def test_more_entries_than_are_held_at_one_time_are_verified(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 2)
    assert verdict(log).entries == ENTRIES
    tamper(log, "DELETE FROM audit_entry WHERE id = 3")
    assert verdict(log).entries == 2


def test_what_was_rolled_back_leaves_no_entry_and_no_gap(log: Database) -> None:
    def work(session: Session) -> None:
        recorded(session, 1)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        log.run(work)
    log.run(recorded, 2)
    assert verdict(log).entries == ENTRIES + 1


def test_any_text_can_be_recorded(log: Database) -> None:
    subject = "model:\x00 é \ud800 «»\n\U0001f600"
    log.run(lambda s: audit.record(s, actor="command", action="a.b", subject=subject, details={"x": subject}))
    assert verdict(log).sound
