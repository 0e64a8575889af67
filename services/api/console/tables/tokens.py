"""API tokens, for administrators. A secret is shown once, when it is made."""

from typing import Any, ClassVar

from sqlalchemy import func
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin.actions import ActionSelection, action, row_action
from starlette_admin.exceptions import ActionFailed
from starlette_admin.fields import BooleanField, ComputedField, DateTimeField, IntegerField, StringField
from starlette_admin.flash import flash
from starlette_admin.helpers import view_list_url

from services.api.console.page import account_of
from services.api.console.tables.accounts import AdministratorsTable, boxes
from services.api.console.tables.readable import ReadAs
from services.core.db import tokens
from services.core.db.tables import ApiTokenRow
from services.core.tokens import Scope


def _new_token_form() -> str:
    return (
        '<form><label class="form-label" for="token-name">Name: who or what will use it</label>'
        '<input class="form-control" id="token-name" name="name" autocomplete="off" required>'
        '<div class="form-label mt-2">Scopes</div>'
        f"{boxes('scopes', [scope.value for scope in Scope], [Scope.SEGMENT.value, Scope.READ.value])}"
        '<label class="form-check mt-2"><input class="form-check-input" type="checkbox" name="all_jobs" value="1">'
        '<span class="form-check-label">sees the jobs of others too</span></label>'
        '<label class="form-label mt-2" for="token-days">Days until it expires; empty: never</label>'
        '<input class="form-control" id="token-days" name="days" type="number" min="1" '
        f'max="{tokens.MOST_DAYS}"></form>'
    )


class TokenTable(AdministratorsTable):
    """What programs present. A secret is shown once, when it is made."""

    key = "token"
    display_name = "API token"
    menu_label = "API tokens"
    fields = [
        IntegerField("id", "No."),
        StringField("name", "Name"),
        ComputedField("scope_names", "Scopes", getter=lambda _, row: ", ".join(row.scopes)),
        BooleanField("all_jobs", "Sees all jobs"),
        DateTimeField("created_at", "Created"),
        DateTimeField("expires_at", "Expires"),
        DateTimeField("last_used_at", "Last used"),
        DateTimeField("revoked_at", "Revoked"),
    ]
    read_as: ClassVar[ReadAs] = {"scope_names": func.array_to_string(ApiTokenRow.scopes, ", ")}
    searchable_fields = ["name", "scope_names"]
    fields_default_sort = [("id", True)]
    actions = ["new_token", "export"]
    row_actions = ["view", "revoke"]

    @action(
        name="new_token",
        text="New token",
        confirmation="A token for one program or workstation. It is shown once, and only its digest is kept.",
        header="New API token",
        submit_btn_text="Create",
        form=_new_token_form(),
        custom_response=True,
        allow_empty_selection=True,
        dedicated_button=True,
        icon_class="list.new",
    )
    async def new_token(self, request: Request, _: ActionSelection) -> Response:
        """Create a token, and show it this once."""
        form = await request.form()
        actor = account_of(request).actor
        try:
            expires_days = _days(str(form.get("days") or ""))
            token, secret = await self.change(
                lambda session: tokens.create_token(
                    session,
                    name=str(form.get("name") or ""),
                    scopes=[str(scope) for scope in form.getlist("scopes")],
                    all_jobs=form.get("all_jobs") == "1",
                    expires_days=expires_days,
                    actor=actor,
                )
            )
        except ActionFailed as error:
            flash(request, str(error.msg), "error")
            return RedirectResponse(view_list_url(request, "token"), 303)
        if self._admin is None:
            raise RuntimeError("the table belongs to no console yet")
        shown = {"title": "New API token · SegInt", "token": token, "secret": secret}
        return self._admin._template_response(request, "console/new_token.html", shown)  # its messages are shown by it

    @row_action(
        name="revoke",
        text="Revoke",
        confirmation="Whoever uses this token is refused from now on. Go on?",
        submit_btn_text="Revoke",
        icon_class="fa-solid fa-ban",
    )
    async def revoke(self, request: Request, pk: Any) -> None:
        """Refuse the token from now on."""
        row = await self.find_by_pk(request, pk)
        if row is None:
            raise ActionFailed("There is no such token.")
        actor = account_of(request).actor
        await self.change(lambda session: tokens.revoke_token(session, row.name, actor=actor))
        flash(request, f"The token {row.name} was revoked.", "success")

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        """A token is revoked once."""
        return name != "revoke" or obj.revoked_at is None


def _days(text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise ActionFailed("A token expires after a whole number of days, or never; correct the number.")
    return int(text)
