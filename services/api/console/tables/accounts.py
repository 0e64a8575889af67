"""Accounts and the audit, for administrators."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

from anyio import to_thread
from sqlalchemy import Text, cast, func
from starlette.requests import Request
from starlette_admin.actions import ActionSelection, action, row_action
from starlette_admin.exceptions import ActionFailed
from starlette_admin.fields import BooleanField, ComputedField, DateTimeField, IntegerField, StringField
from starlette_admin.flash import flash

from services.api.console.page import account_of, may
from services.api.console.tables.readable import ReadAs
from services.api.console.tables.table import Table
from services.core.accounts import LEAST_PASSWORD_CHARACTERS, Permission, Role
from services.core.db import accounts
from services.core.db.session import Database, Session
from services.core.db.tables import AccountRow, AuditEntryRow
from services.core.errors import SegIntError


class AdministratorsTable(Table):
    """A table that administrators see, and change by actions."""

    permission = Permission.ACCOUNTS

    def __init__(self, model: type[Any], database: Database) -> None:
        self._database = database
        super().__init__(model)

    async def is_action_allowed(self, request: Request, name: str) -> bool:
        """Whether the action is shown and done."""
        return may(request, Permission.ACCOUNTS) and await super().is_action_allowed(request, name)

    async def is_row_action_allowed(self, request: Request, name: str) -> bool:
        """The same for an action on one row."""
        return may(request, Permission.ACCOUNTS) and await super().is_row_action_allowed(request, name)

    async def change(self, work: Callable[[Session], Any]) -> Any:
        """What `work` gives, in a thread: hashing a password takes a while.

        Raises:
            ActionFailed: with the sentence of what was wrong.
        """
        try:
            return await to_thread.run_sync(self._database.run, work)
        except SegIntError as error:
            raise ActionFailed(error.details) from error


def boxes(name: str, values: list[str], chosen: list[str]) -> str:
    """A box to tick for each of `values`, which are the server's own words."""
    return "".join(
        f'<label class="form-check"><input class="form-check-input" type="checkbox" name="{name}" value="{value}"'
        f'{" checked" if value in chosen else ""}><span class="form-check-label">{value}</span></label>'
        for value in values
    )


PASSWORD_INPUT = (
    '<label class="form-label mt-2" for="new-password">Password, at least '
    f'{LEAST_PASSWORD_CHARACTERS} characters</label><input class="form-control" type="password" id="new-password" '
    'name="password" autocomplete="new-password" required>'
)


def _new_account_form() -> str:
    return (
        '<form><label class="form-label" for="new-name">Name</label><input class="form-control" id="new-name" '
        f'name="name" autocomplete="off" required>{PASSWORD_INPUT}<div class="form-label mt-2">Roles</div>'
        f"{boxes('roles', [role.value for role in Role], [Role.VIEWER.value])}</form>"
    )


def _roles_form(_: Request, row: Any) -> str:
    shown = f'<input type="hidden" name="shown" value="{" ".join(row.roles)}">'
    return f"<form>{shown}{boxes('roles', [role.value for role in Role], list(row.roles))}</form>"


class AccountTable(AdministratorsTable):
    """People who may log in."""

    key = "account"
    display_name = "Account"
    menu_label = "Accounts"
    fields = [
        IntegerField("id", "No."),
        StringField("name", "Name"),
        ComputedField("role_names", "Roles", getter=lambda _, row: ", ".join(row.roles)),
        BooleanField("enabled", "Enabled"),
        DateTimeField("created_at", "Created"),
        DateTimeField("password_changed_at", "Password changed"),
        DateTimeField("last_login_at", "Last login"),
    ]
    read_as: ClassVar[ReadAs] = {"role_names": func.array_to_string(AccountRow.roles, ", ")}
    searchable_fields = ["name", "role_names"]
    fields_default_sort = ["name"]
    actions = ["new_account", "export"]
    row_actions = ["view", "roles", "password", "disable", "enable"]

    @action(
        name="new_account",
        text="New account",
        confirmation="An account for one person. Viewers see; operators act on jobs, modellers on models, admins on "
        "accounts.",
        header="New account",
        submit_btn_text="Create",
        form=_new_account_form(),
        allow_empty_selection=True,
        dedicated_button=True,
        icon_class="list.new",
    )
    async def new_account(self, request: Request, _: ActionSelection) -> None:
        """Create an account."""
        form = await request.form()
        actor = account_of(request).actor
        name, password = str(form.get("name") or ""), str(form.get("password") or "")
        roles = [str(role) for role in form.getlist("roles")]
        account = await self.change(
            lambda session: accounts.create_account(session, name=name, password=password, roles=roles, actor=actor)
        )
        flash(request, f"The account {account.name} was created.", "success")

    @row_action(
        name="roles",
        text="Roles",
        confirmation="The account's roles. A change ends its sessions.",
        header="Roles",
        submit_btn_text="Save",
        form=_roles_form,
        icon_class="fa-solid fa-user-tag",
    )
    async def change_roles(self, request: Request, pk: Any) -> None:
        """Give the account other roles."""
        form = await request.form()
        roles, shown = [str(role) for role in form.getlist("roles")], str(form.get("shown") or "").split()
        account = account_of(request)
        if int(pk) == account.id and Role.ADMIN.value not in roles:
            raise ActionFailed("You cannot take the role of admin from yourself; another administrator can.")
        changed = await self.change(
            lambda session: accounts.set_roles(session, int(pk), roles=roles, actor=account.actor, shown=shown)
        )
        flash(request, f"The account {changed.name} has other roles now.", "success")

    @row_action(
        name="password",
        text="Password",
        confirmation="A new password for the account; its sessions end.",
        header="Password",
        submit_btn_text="Save",
        form=f"<form>{PASSWORD_INPUT}</form>",
        icon_class="fa-solid fa-key",
    )
    async def change_password(self, request: Request, pk: Any) -> None:
        """Give the account another password."""
        password, actor = str((await request.form()).get("password") or ""), account_of(request).actor
        changed = await self.change(
            lambda session: accounts.change_password(session, int(pk), password=password, actor=actor)
        )
        flash(request, f"The account {changed.name} has another password now.", "success")

    @row_action(
        name="disable",
        text="Disable",
        confirmation="Nobody will be able to log in to this account, and its sessions end. Go on?",
        submit_btn_text="Disable",
        icon_class="fa-solid fa-ban",
    )
    async def disable(self, request: Request, pk: Any) -> None:
        """Let nobody log in to it."""
        account = account_of(request)
        if int(pk) == account.id:
            raise ActionFailed("You cannot disable your own account; another administrator can.")
        await self.change(lambda session: accounts.disable_account(session, int(pk), actor=account.actor))
        flash(request, "The account was disabled.", "success")

    @row_action(
        name="enable",
        text="Enable",
        confirmation="Let this account be logged in to again?",
        submit_btn_text="Enable",
        icon_class="fa-solid fa-circle-check",
    )
    async def enable(self, request: Request, pk: Any) -> None:
        """Let it be logged in to again."""
        actor = account_of(request).actor
        await self.change(lambda session: accounts.enable_account(session, int(pk), actor=actor))
        flash(request, "The account was enabled.", "success")

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        """Only what would be a change."""
        return not (name == "enable" and obj.enabled) and not (name == "disable" and not obj.enabled)


class AuditTable(Table):
    """Who did what when. Nobody edits it, here or elsewhere."""

    permission = Permission.ACCOUNTS
    key = "audit"
    display_name = "Audit entry"
    menu_label = "Audit"
    fields = [
        IntegerField("id", "No."),
        DateTimeField("at", "When"),
        StringField("actor", "Who"),
        StringField("action", "What"),
        StringField("subject", "To what"),
        ComputedField(
            "facts", "Details", getter=lambda _, row: json.dumps(row.details, ensure_ascii=False) if row.details else ""
        ),
        StringField("hash", "Hash"),
    ]
    exclude_fields_from_list = ["hash"]
    read_as: ClassVar[ReadAs] = {"facts": cast(AuditEntryRow.details, Text)}
    searchable_fields = ["actor", "action", "subject", "facts"]
    fields_default_sort = [("id", True)]
