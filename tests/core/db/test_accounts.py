"""Accounts: made and changed with an entry in the audit each, and logged in to within limits."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, func, select, text, update

from services.core import passwords
from services.core.accounts import Account, Role
from services.core.db import accounts, audit, login_throttle
from services.core.db.session import AsyncDatabase, Database, Session
from services.core.db.tables import AccountRow, LoginFailureRow
from services.core.errors import InvalidAccount, LoginRefused, LoginThrottled

PASSWORD = "correct horse battery staple"
ADDRESS = "192.0.2.7"
BOSS = "account:boss"


@pytest.fixture
def ada(database: Database) -> Account:
    database.run(forget_everyone)
    return made(database, "ada")


def forget_everyone(session: Session) -> None:
    session.execute(delete(AccountRow))
    session.execute(delete(LoginFailureRow))


def made(database: Database, name: str, *roles: str) -> Account:
    return database.run(
        lambda session: accounts.create_account(
            session, name=name, password=PASSWORD, roles=roles or ("viewer",), actor=BOSS
        )
    )


def log_in(database: Database, name: str = "ada", password: str = PASSWORD, address: str = ADDRESS) -> Account:
    return database.run(accounts.log_in, name, password, address)


def refused(database: Database, times: int, name: str = "ada", address: str = ADDRESS) -> None:
    for _ in range(times):
        with pytest.raises(LoginRefused):
            log_in(database, name, "a wrong password", address)


def last_entry(database: Database) -> tuple[str, str, str, dict[str, str | int]]:
    entry = database.run(audit.newest, 1)[0]
    return entry.actor, entry.action, entry.subject, dict(entry.details)


def let_time_pass(database: Database, seconds: int) -> None:
    """As if everything that is remembered had happened so long ago."""
    earlier = text(f"interval '{seconds} seconds'")
    database.run(
        lambda session: session.execute(
            update(LoginFailureRow).values(
                blocked_until=LoginFailureRow.blocked_until - earlier, forget_at=LoginFailureRow.forget_at - earlier
            )
        )
    )


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is counted, not of what is hashed."""
    monkeypatch.setattr(passwords, "fits", lambda _, password: password == PASSWORD)


def test_an_account_is_made_once_with_an_entry_in_the_audit(database: Database, ada: Account) -> None:
    # Given an account
    assert (ada.name, ada.roles, ada.enabled) == ("ada", frozenset({Role.VIEWER}), True)
    assert last_entry(database) == (BOSS, "account.created", "account:ada", {"roles": "viewer"})
    # When one of the same name is made, in other letters, Then it is refused
    with pytest.raises(InvalidAccount, match="already"):
        made(database, "ADA")
    # and nobody finds a password in the database
    stored = database.run(lambda session: session.scalar(select(AccountRow.password_hash)))
    assert stored is not None
    assert stored.startswith("$argon2id$")
    assert database.run(accounts.accounts) == [ada]
    assert database.run(accounts.account_by_id, ada.id) == ada
    assert database.run(accounts.account_by_id, -1) is None
    with pytest.raises(InvalidAccount, match="no account"):
        database.run(accounts.account_by_name, "nobody")


def test_what_changes_an_account_ends_its_sessions_and_is_audited(database: Database, ada: Account) -> None:
    def run(work: Callable[..., Account], **arguments: object) -> Account:
        return database.run(lambda session: work(session, ada.id, actor=BOSS, **arguments))

    epochs = [ada.session_epoch]
    changes: list[tuple[Callable[..., Account], dict[str, object], str]] = [
        (accounts.change_password, {"password": "another horse altogether"}, "account.password_changed"),
        (accounts.set_roles, {"roles": ["admin", "viewer"]}, "account.roles_changed"),
        (accounts.disable_account, {}, "account.disabled"),
        (accounts.enable_account, {}, "account.enabled"),
    ]
    for work, arguments, action in changes:
        epochs.append(run(work, **arguments).session_epoch)
        assert last_entry(database)[:3] == (BOSS, action, "account:ada")
    assert epochs == sorted(set(epochs))
    # What changes nothing ends nothing
    assert run(accounts.set_roles, roles=["viewer", "admin"]).session_epoch == epochs[-1]
    assert run(accounts.enable_account).session_epoch == epochs[-1]
    with pytest.raises(InvalidAccount):
        database.run(lambda session: accounts.disable_account(session, -1, actor=BOSS))


def test_logging_in_gives_the_account_and_is_audited(database: Database, ada: Account) -> None:
    assert log_in(database, " Ada ") == ada
    assert last_entry(database) == ("account:ada", "login.succeeded", "account:ada", {"address": ADDRESS})


def test_unknown_wrong_and_disabled_are_refused_in_the_same_words(database: Database, ada: Account) -> None:
    # Given a disabled account beside an enabled one
    bob = made(database, "bob")
    database.run(lambda session: accounts.disable_account(session, bob.id, actor=BOSS))
    attempts = (
        ("ada", "a wrong password", "wrong password", "account:ada"),
        ("bob", PASSWORD, "disabled", "account:bob"),
        ("my secret", PASSWORD, "unknown account", "account:?"),
        ("\x00", PASSWORD, "unknown account", "account:?"),
    )
    # When each is tried, Then the words are the same, and the audit alone knows why
    words = set()
    for name, password, reason, subject in attempts:
        with pytest.raises(LoginRefused) as raised:
            log_in(database, name, password)
        words.add(raised.value.details)
        assert last_entry(database) == (f"network:{ADDRESS}", "login.refused", subject, {"reason": reason})
    assert words == {accounts.REFUSED}
    # and a name that is no account's is kept nowhere
    dump = database.run(lambda session: session.scalars(select(LoginFailureRow.key)).all())
    assert not any("secret" in key for key in dump)


def test_after_some_failures_an_account_waits_longer_each_time(
    database: Database, ada: Account, cheap_hashes: None
) -> None:
    # Given as many failures as are let pass
    refused(database, login_throttle.ACCOUNT_FAILURES)
    # Then the right password is not even looked at, wherever it comes from
    for address in (ADDRESS, "198.51.100.1"):
        with pytest.raises(LoginThrottled) as first:
            log_in(database, address=address)
    assert 1 <= first.value.retry_after_seconds <= login_throttle.FIRST_WAIT_SECONDS
    assert str(first.value.retry_after_seconds) in first.value.details
    # When the wait is over and the next attempt fails, Then the next wait is longer
    let_time_pass(database, login_throttle.FIRST_WAIT_SECONDS + 1)
    refused(database, 1)
    with pytest.raises(LoginThrottled) as second:
        log_in(database)
    assert second.value.retry_after_seconds > login_throttle.FIRST_WAIT_SECONDS
    # When that is over too, Then the right password is taken, and nothing is held against the account any more
    let_time_pass(database, 2 * login_throttle.FIRST_WAIT_SECONDS + 1)
    assert log_in(database) == ada
    refused(database, login_throttle.ACCOUNT_FAILURES - 1)
    assert log_in(database) == ada


def test_attempts_during_a_wait_are_audited_once_each_wait(
    database: Database, ada: Account, cheap_hashes: None
) -> None:
    def throttled(*attempts: tuple[str, str]) -> list[tuple[str, str]]:
        """Who is in the audit as throttled after these attempts, and was not before."""
        before = database.run(audit.newest, 1)[0].id
        for name, address in attempts:
            with pytest.raises(LoginThrottled):
                log_in(database, name, address=address)
        entries = [entry for entry in reversed(database.run(audit.newest, 50)) if entry.id > before]
        assert {(entry.action, *entry.details.values()) for entry in entries} <= {("login.refused", "throttled")}
        return [(entry.actor, entry.subject) for entry in entries]

    elsewhere = "198.51.100.1"
    # Given an account that must wait, When many try it meanwhile, Then the audit has that once
    refused(database, login_throttle.ACCOUNT_FAILURES)
    assert throttled(*[("ada", elsewhere)] * 3, ("ada", ADDRESS)) == [(f"network:{elsewhere}", "account:ada")]
    # And once more of its next wait
    let_time_pass(database, login_throttle.FIRST_WAIT_SECONDS + 1)
    refused(database, 1)
    assert throttled(("ada", ADDRESS), ("ada", ADDRESS)) == [(f"network:{ADDRESS}", "account:ada")]
    # And once of an address that must wait, however many names are tried from there
    for number in range(login_throttle.ADDRESS_FAILURES):
        refused(database, 1, f"user{number}", elsewhere)
    tried = [(f"secret {number}", elsewhere) for number in range(5)]
    assert throttled(*tried) == [(f"network:{elsewhere}", "account:?")]


def test_guesses_of_ones_own_password_are_throttled_as_logins_are(
    database: Database, ada: Account, cheap_hashes: None
) -> None:
    def change(current: str) -> Account:
        return database.run(
            lambda session: accounts.change_own_password(
                session, ada, current=current, password="another horse altogether", address=ADDRESS
            )
        )

    # Given somebody at a session that was left open, who guesses
    for _ in range(login_throttle.ACCOUNT_FAILURES):
        with pytest.raises(LoginRefused):
            change("a wrong password")
    assert last_entry(database)[:3] == (f"network:{ADDRESS}", "account.password_refused", "account:ada")
    # Then the right one is not even looked at, here or at the login
    with pytest.raises(LoginThrottled):
        change(PASSWORD)
    with pytest.raises(LoginThrottled):
        log_in(database)
    # And once the wait is over, its owner changes it
    let_time_pass(database, login_throttle.FIRST_WAIT_SECONDS + 1)
    assert change(PASSWORD).session_epoch > ada.session_epoch


def test_a_wait_has_an_end(database: Database, ada: Account, cheap_hashes: None) -> None:
    refused(database, login_throttle.ACCOUNT_FAILURES)
    for _ in range(12):
        let_time_pass(database, login_throttle.LONGEST_WAIT_SECONDS + 1)
        refused(database, 1, address="198.51.100.1")
    with pytest.raises(LoginThrottled) as raised:
        log_in(database)
    assert raised.value.retry_after_seconds <= login_throttle.LONGEST_WAIT_SECONDS


def test_an_address_that_tries_many_names_waits_and_others_do_not(
    database: Database, ada: Account, cheap_hashes: None
) -> None:
    # Given an address from which one password was tried on many names
    for number in range(login_throttle.ADDRESS_FAILURES):
        refused(database, 1, f"user{number}")
    # Then it must wait, and another address need not; nor does its luck with one account help it
    with pytest.raises(LoginThrottled):
        log_in(database)
    assert log_in(database, address="198.51.100.1") == ada
    with pytest.raises(LoginThrottled):
        log_in(database)


def test_addresses_of_one_ipv6_network_count_as_one(database: Database, ada: Account, cheap_hashes: None) -> None:
    for number in range(login_throttle.ADDRESS_FAILURES):
        refused(database, 1, f"user{number}", f"2001:db8::{number:x}")
    with pytest.raises(LoginThrottled):
        log_in(database, address="2001:db8::ffff:1")
    assert log_in(database, address="2001:db8:0:1::1") == ada


def test_failures_are_forgotten_and_their_rows_deleted(database: Database, ada: Account, cheap_hashes: None) -> None:
    # Given failures of long ago
    refused(database, login_throttle.ACCOUNT_FAILURES - 1)
    refused(database, 1, "somebody")
    let_time_pass(database, 60 * login_throttle.MEMORY_MINUTES + 1)
    # When another attempt fails, Then it is the first one, and the rows of the old ones are gone
    refused(database, 1, address="198.51.100.1")
    assert log_in(database) == ada
    left = database.run(lambda session: session.scalars(select(LoginFailureRow.key)).all())
    assert left == ["address:198.51.100.1"]


def test_attempts_at_one_time_are_counted_one_by_one(database: Database, ada: Account, cheap_hashes: None) -> None:
    # When more attempts than are let pass come at once, over connections of their own
    def attempt(_: int) -> str:
        try:
            log_in(database, password="a wrong password")
        except (LoginRefused, LoginThrottled) as error:
            return type(error).__name__
        return "in"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    # Then no password beyond the limit was looked at
    assert outcomes.count("LoginRefused") == login_throttle.ACCOUNT_FAILURES
    assert outcomes.count("LoginThrottled") == 16 - login_throttle.ACCOUNT_FAILURES


@pytest.fixture
def second_process(database: Database) -> Iterator[Database]:
    other = Database(database.engine.url.render_as_string(hide_password=False).replace("+psycopg", ""))
    yield other
    other.close()


def test_failures_are_counted_over_processes(
    database: Database, ada: Account, second_process: Database, cheap_hashes: None
) -> None:
    refused(database, login_throttle.ACCOUNT_FAILURES - 1)
    refused(second_process, 1)
    with pytest.raises(LoginThrottled):
        log_in(database)


async def log_in_asynchronously(url: str) -> str:
    database = AsyncDatabase(url)
    try:
        await database.run(accounts.log_in, "ada", "a wrong password", ADDRESS)
    except LoginRefused as error:
        return error.details
    finally:
        await database.close()
    return ""


def test_a_refusal_is_kept_on_an_asynchronous_connection_too(database: Database, ada: Account) -> None:
    import asyncio

    url = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    assert asyncio.run(log_in_asynchronously(url)) == accounts.REFUSED
    assert database.run(lambda session: session.scalar(select(func.count()).select_from(LoginFailureRow))) == 2
