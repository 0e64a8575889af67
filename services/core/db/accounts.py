"""Accounts in PostgreSQL: made, changed, and logged in to. Each change is in the audit, in the same transaction."""

from collections.abc import Collection, Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.core import passwords
from services.core.accounts import Account, Role, account_name, check_password, checked_roles
from services.core.db import audit, login_throttle
from services.core.db.locks import lock_name
from services.core.db.tables import AccountRow as Row
from services.core.errors import InvalidAccount, LoginRefused, LoginThrottled

REFUSED = "The name and the password do not fit an account that may log in; try again, or ask an administrator."


def create_account(session: Session, *, name: str, password: str, roles: Iterable[str | Role], actor: str) -> Account:
    """Make an account. `actor` is who does it, in the audit's words.

    Raises:
        InvalidAccount: the name, the password or a role cannot be taken, or there is such an account.
    """
    name = account_name(name)
    check_password(name, password)
    granted = checked_roles([str(role) for role in roles])
    password_hash = passwords.hashed(password)  # before there are locks to hold for as long as it takes
    lock_name(session, f"account {name}")
    if session.scalar(select(Row.id).where(Row.name == name)) is not None:
        raise InvalidAccount(f"There is an account «{name}» already; choose another name.")
    row = Row(name=name, password_hash=password_hash, roles=_stored(granted))
    session.add(row)
    session.flush()
    session.refresh(row)
    _record(session, actor, "account.created", row, roles=" ".join(row.roles))
    return _value(row)


def change_password(session: Session, account_id: int, *, password: str, actor: str) -> Account:
    """Give the account another password, which ends its sessions.

    Raises:
        InvalidAccount: the password cannot be taken, or there is no such account.
    """
    password_hash = passwords.hashed(password)
    row = _locked_row(session, account_id)
    check_password(row.name, password)
    row.password_hash = password_hash
    row.password_changed_at = func.now()
    row.session_epoch += 1
    _record(session, actor, "account.password_changed", row)
    return _value(row)


def change_own_password(session: Session, account: Account, *, current: str, password: str, address: str) -> Account:
    """`change_password` by the account's owner, who shows with the `current` one that it is they.

    Checked, counted and throttled as `log_in` is: whoever finds a session open may not guess either. Run it in a
    thread; as there, the transaction of the caller ends with a refusal.

    Raises:
        InvalidAccount: the new password cannot be taken.
        LoginRefused: the current one is another, or the account is disabled or gone.
        LoginThrottled: too many failures by this account or from this address; the password was not looked at.
    """
    check_password(account.name, password)
    refusal, words = "account.password_refused", "The current password is another one; type it again."
    row = _row_of_password(session, account.name, current, address, refusal=refusal, words=words)
    if passwords.fits(row.password_hash, password):
        raise InvalidAccount("The new password is the current one; choose another.")
    return change_password(session, row.id, password=password, actor=account.actor)


def set_roles(
    session: Session,
    account_id: int,
    *,
    roles: Iterable[str | Role],
    actor: str,
    shown: Collection[str] | None = None,
) -> Account:
    """Give the account these roles and no others, which ends its sessions if that is a change.

    Args:
        shown: the roles that `actor` saw when they decided, of which somebody else may have made others meanwhile;
            None where they saw none.

    Raises:
        InvalidAccount: none is given, one does not exist, there is no such account, or it has others than were `shown`.
    """
    stored = _stored(checked_roles([str(role) for role in roles]))
    row = _locked_row(session, account_id)
    if shown is not None and set(shown) != set(row.roles):
        raise InvalidAccount(
            f"Somebody else changed the roles of {row.name} meanwhile, to {', '.join(row.roles)}. Nothing was saved: "
            "load the page again, and repeat your change."
        )
    if row.roles != stored:
        before, row.roles = row.roles, stored
        row.session_epoch += 1
        _record(session, actor, "account.roles_changed", row, before=" ".join(before), roles=" ".join(stored))
    return _value(row)


def disable_account(session: Session, account_id: int, *, actor: str) -> Account:
    """Let nobody log in to the account, and end its sessions. What it did stays under its name.

    Raises:
        InvalidAccount: there is no such account.
    """
    return _set_enabled(session, account_id, enabled=False, actor=actor)


def enable_account(session: Session, account_id: int, *, actor: str) -> Account:
    """Let the account be logged in to again.

    Raises:
        InvalidAccount: there is no such account.
    """
    return _set_enabled(session, account_id, enabled=True, actor=actor)


def accounts(session: Session) -> list[Account]:
    """Every account, by name."""
    return [_value(row) for row in session.scalars(select(Row).order_by(Row.name))]


def account_by_id(session: Session, account_id: int) -> Account | None:
    """The account of that identifier, enabled or not."""
    row = session.get(Row, account_id)
    return None if row is None else _value(row)


def account_by_name(session: Session, name: str) -> Account:
    """The account of that name, enabled or not.

    Raises:
        InvalidAccount: there is none.
    """
    row = session.scalar(select(Row).where(Row.name == account_name(name)))
    if row is None:
        raise InvalidAccount(f"There is no account «{name}»; `segint user list` shows those there are.")
    return _value(row)


def log_in(session: Session, name: str, password: str, address: str) -> Account:
    """The account of that name and password.

    It takes about 0.1 s of a processor, for unknown names too, so run it in a thread. A refusal is committed at once
    and before it is raised: the transaction of the caller ends here.

    Args:
        address: of who asks, as text; anything that is no IP address counts as one unknown address.

    Raises:
        LoginRefused: no such account, another password, or disabled.
        LoginThrottled: too many failures by this account or from this address; the password was not looked at.
    """
    row = _row_of_password(session, name, password, address, refusal="login.refused", words=REFUSED)
    row.last_login_at = func.now()
    if passwords.is_outdated(row.password_hash):
        row.password_hash = passwords.hashed(password)
    account = _value(row)
    session.flush()
    audit.record(
        session, actor=account.actor, action="login.succeeded", subject=account.actor, details={"address": address}
    )
    return account


def _row_of_password(session: Session, name: str, password: str, address: str, *, refusal: str, words: str) -> Row:
    """The enabled account of that name and password; a `refusal` is audited as such, and told in `words`."""
    name = name.strip().lower()
    wait = login_throttle.enter(session, name, address)
    row = session.scalar(select(Row).where(Row.name == name)) if "\x00" not in name else None
    # A name that is no account's is not kept: it may be a password in the wrong field.
    subject = "account:?" if row is None else f"account:{row.name}"

    def refused(why: str) -> None:
        audit.record(session, actor=f"network:{address}", action=refusal, subject=subject, details={"reason": why})
        session.commit()

    if wait is not None:
        if wait.first:
            refused("throttled")
        raise LoginThrottled(
            f"Too many attempts to log in failed; wait {wait.seconds} seconds and try again.",
            retry_after_seconds=wait.seconds,
        )
    right = passwords.fits(passwords.NOBODYS_HASH if row is None else row.password_hash, password)
    if row is None or not row.enabled or not right:
        login_throttle.failed(session, name, address)
        refused("unknown account" if row is None else "wrong password" if not right else "disabled")
        raise LoginRefused(words)
    login_throttle.succeeded(session, name)
    return row


def _set_enabled(session: Session, account_id: int, *, enabled: bool, actor: str) -> Account:
    row = _locked_row(session, account_id)
    if row.enabled != enabled:
        row.enabled = enabled
        row.session_epoch += 1
        _record(session, actor, "account.enabled" if enabled else "account.disabled", row)
    return _value(row)


def _record(session: Session, actor: str, action: str, row: Row, **details: str) -> None:
    session.flush()
    audit.record(session, actor=actor, action=action, subject=f"account:{row.name}", details=details)


def _locked_row(session: Session, account_id: int) -> Row:
    row = session.get(Row, account_id, with_for_update=True)
    if row is None:
        raise InvalidAccount("There is no such account; `segint user list` shows those there are.")
    return row


def _stored(roles: frozenset[Role]) -> list[str]:
    return [role.value for role in Role if role in roles]


def _value(row: Row) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        roles=frozenset(Role(role) for role in row.roles),
        enabled=row.enabled,
        session_epoch=row.session_epoch,
    )
