"""`segint user`: who may sign in to the console, and as what."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.client.columns import columns
from services.client.local.commands import DataDirOption
from services.client.password_entry import PasswordStdin, given_password
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text, talk

if TYPE_CHECKING:
    from services.core.accounts import Account

user = typer.Typer(name="user", help="Accounts of people, for the console.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.", show_default=False)]
Roles = Annotated[
    list[str],
    typer.Option("--role", metavar="ROLE", help="viewer, operator, modeller or admin. May be repeated."),
]


@user.command()
def create(
    name: Name,
    role: Roles,
    password_stdin: PasswordStdin = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an account. The password is asked for; nobody has one that was not chosen.

    Example: segint user create ada --role admin
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.accounts import account_name, check_password, checked_roles
        from services.core.audit import COMMAND
        from services.core.db import accounts

        name, granted = account_name(name), checked_roles(role)
        with opened_database(data_dir) as database:
            password = given_password(password_stdin)
            check_password(name, password)
            made = database.run(
                lambda session: accounts.create_account(
                    session, name=name, password=password, roles=granted, actor=COMMAND
                )
            )
        _answer(made, f"created {made.name} as {_roles(made)}", as_json)


@user.command()
def passwd(
    name: Name, password_stdin: PasswordStdin = False, data_dir: DataDirOption = None, as_json: JsonFlag = False
) -> None:
    """Give an account another password, which ends its sessions.

    Example: segint user passwd ada
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.audit import COMMAND
        from services.core.db import accounts

        with opened_database(data_dir) as database:
            found = database.run(accounts.account_by_name, name)
            password = given_password(password_stdin)
            changed = database.run(
                lambda session: accounts.change_password(session, found.id, password=password, actor=COMMAND)
            )
        _answer(changed, f"{changed.name} has a new password; sessions of it are over", as_json)


@user.command()
def roles(name: Name, role: Roles, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Give an account these roles and no others, which ends its sessions.

    Example: segint user roles ada --role operator --role modeller
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.audit import COMMAND
        from services.core.db import accounts

        with opened_database(data_dir) as database:
            found = database.run(accounts.account_by_name, name)
            changed = database.run(lambda session: accounts.set_roles(session, found.id, roles=role, actor=COMMAND))
        _answer(changed, f"{changed.name} is {_roles(changed)} now", as_json)


@user.command()
def disable(name: Name, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Let nobody sign in to an account, and end its sessions.

    Example: segint user disable ada
    """
    _set_enabled(name, enabled=False, data_dir=data_dir, as_json=as_json)


@user.command()
def enable(name: Name, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Let an account be signed in to again.

    Example: segint user enable ada
    """
    _set_enabled(name, enabled=True, data_dir=data_dir, as_json=as_json)


@user.command("list")
def list_users(data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """List the accounts.

    Example: segint user list --json
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.db import accounts

        with opened_database(data_dir) as database:
            found = database.run(accounts.accounts)
        if as_json:
            print_json({"accounts": [_described(account) for account in found]})
            return
        if not found:
            talk().print("There are no accounts; `segint user create NAME --role admin` makes the first.", markup=False)
            return
        rows = [[account.name, _roles(account), "yes" if account.enabled else "no"] for account in found]
        print_text(columns(["name", "roles", "enabled"], rows))


def _set_enabled(name: str, *, enabled: bool, data_dir: Path | None, as_json: bool) -> None:
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.audit import COMMAND
        from services.core.db import accounts

        change = accounts.enable_account if enabled else accounts.disable_account
        with opened_database(data_dir) as database:
            found = database.run(accounts.account_by_name, name)
            changed = database.run(lambda session: change(session, found.id, actor=COMMAND))
        _answer(changed, f"{changed.name} is {'enabled' if enabled else 'disabled; sessions of it are over'}", as_json)


def _answer(account: "Account", words: str, as_json: bool) -> None:
    if as_json:
        print_json(_described(account))
    else:
        print_text(words)


def _described(account: "Account") -> dict[str, Any]:
    return {"name": account.name, "roles": _roles(account).split(", "), "enabled": account.enabled}


def _roles(account: "Account") -> str:
    return ", ".join(sorted(account.roles))
