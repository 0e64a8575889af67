"""Accounts, tokens and the audit: for administrators, who make, change and end them in the console."""

import re
from html import unescape

import pytest

from tests.conftest import MakeDeployment
from tests.console.table_rows import FOR_ADMINISTRATORS, exported
from tests.console.visitor import PASSWORD, SECRET, Visitor, create_account, visitor
from tests.deployment import Deployment


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET).start_api().import_sample()
    for name, role in (("ada", "admin"), ("mo", "modeller"), ("vic", "viewer")):
        create_account(made, name, role)
    return made


@pytest.mark.parametrize("name", ["vic", "mo"])
def test_accounts_tokens_and_the_audit_are_for_administrators(deployment: Deployment, name: str) -> None:
    with visitor(deployment, name) as found:
        first = found.get("/").text
        for key in FOR_ADMINISTRATORS:
            assert f"/{key}/list" not in first
            assert found.get(f"/{key}/list").status_code == 403
            assert found.get(f"/{key}/detail?pk=1").status_code == 403
            assert found.get(f"/_api/{key}/relation-lookup").status_code == 403
            assert found.act(key, "export", format="csv").status_code == 400
        for action in ("roles", "password", "disable", "enable"):
            answer = found.act("account", action, 1, roles="admin", password=PASSWORD)
            assert answer.status_code == 400
            assert "Forbidden" in answer.text
        made = found.act("account", "new_account", name="intruder", password=PASSWORD, roles="admin")
        assert made.status_code == 400
    with visitor(deployment) as stranger:
        assert stranger.log_in("intruder").status_code == 401


def test_an_administrator_makes_an_account_and_ends_it(deployment: Deployment, ada: Visitor) -> None:
    # Given an account that was made in the console
    made = ada.act("account", "new_account", name="newcomer", password=PASSWORD, roles=["viewer", "operator"])
    assert made.status_code == 200, made.text
    with visitor(deployment, "newcomer") as newcomer:
        page = ada.get("/account/list?q=newcomer").text
        (number,) = re.findall(r'data-sa-pk="(\d+)"', page)
        assert "viewer, operator" in page
        # When it is disabled
        assert ada.act("account", "disable", number).status_code == 200
        # Then its session is over, and it cannot log in
        assert not newcomer.is_in()
        assert newcomer.log_in("newcomer").status_code == 401
    # And weak passwords and unknown roles are told in a sentence
    for fields, sentence in (
        ({"name": "weak", "password": "short", "roles": "viewer"}, "too short"),
        ({"name": "none", "password": PASSWORD}, "needs a role"),
        ({"name": "newcomer", "password": PASSWORD, "roles": "viewer"}, "already"),
    ):
        answer = ada.act("account", "new_account", **fields)
        assert answer.status_code == 400
        assert sentence in answer.json()["msg"]


def test_of_two_administrators_who_edit_one_accounts_roles_the_second_is_told(
    deployment: Deployment, ada: Visitor
) -> None:
    # Given two who look at the same account
    number = create_account(deployment, "promoted", "viewer")
    page = unescape(unescape(ada.get("/account/list?q=promoted").text))
    (shown,) = set(re.findall(r'name="shown" value="([^"]*)"', page))
    # When each gives it a role
    first = ada.act("account", "roles", number, roles=["viewer", "operator"], shown=shown)
    second = ada.act("account", "roles", number, roles=["viewer", "modeller"], shown=shown)
    # Then the second is told, and what the first did stays
    assert (first.status_code, second.status_code) == (200, 400), second.text
    assert "Somebody else changed the roles of promoted meanwhile, to viewer, operator." in second.json()["msg"]
    assert "viewer, operator" in ada.get("/account/list?q=promoted").text


def test_an_administrator_gives_an_account_other_roles_another_password_and_lets_it_in_again(
    deployment: Deployment, ada: Visitor
) -> None:
    number = create_account(deployment, "returner", "viewer")
    # Given other roles
    given = ada.act("account", "roles", number, roles=["viewer", "modeller"], shown="viewer")
    assert given.status_code == 200, given.text
    assert "viewer, modeller" in ada.get("/account/list?q=returner").text
    # And another password, only the other opens
    assert ada.act("account", "password", number, password="quite another password").status_code == 200
    with visitor(deployment) as returner:
        assert returner.log_in("returner").status_code == 401
        # And disabled and enabled again, it opens as before
        assert ada.act("account", "disable", number).status_code == 200
        assert returner.log_in("returner", "quite another password").status_code == 401
        assert ada.act("account", "enable", number).status_code == 200
        assert returner.log_in("returner", "quite another password").status_code == 303
        assert returner.get("/new-model").status_code == 200
    # And the audit has each
    done = {row["What"] for row in exported(ada, "audit", filter="subject__eq=account:returner")}
    changes = {f"account.{change}" for change in ("roles_changed", "password_changed", "disabled", "enabled")}
    assert changes <= done


def test_a_token_is_made_shown_once_and_revoked_in_the_console(deployment: Deployment, ada: Visitor) -> None:
    # Given a token that was made in the console, and opens
    shown = ada.act("token", "new_token", name="short-lived", scopes=["read"])
    (secret,) = set(re.findall(r"segint_[\w-]{43}", shown.text))
    holder = {"Authorization": f"Bearer {secret}"}
    assert ada.client.get(f"{ada.url}/api/v2/Credits", headers=holder).status_code == 200
    page = ada.get("/token/list?q=short-lived").text
    assert secret not in page
    (number,) = set(re.findall(r'data-sa-pk="(\d+)"', page))
    # When it is revoked
    assert ada.act("token", "revoke", number).status_code == 200
    # Then that is told and audited, and it cannot be revoked again
    (row,) = exported(ada, "token", q="short-lived")
    assert row["Revoked"]
    assert {"token.created", "token.revoked"} == {
        entry["What"] for entry in exported(ada, "audit", filter="subject__eq=token:short-lived")
    }
    assert ada.act("token", "revoke", number).status_code == 400


def test_an_administrator_cannot_lock_themselves_out(ada: Visitor) -> None:
    page = ada.get("/account/list?q=ada").text
    (number,) = re.findall(r'data-sa-pk="(\d+)"', page)
    assert "your own" in ada.act("account", "disable", number).text
    assert "from yourself" in ada.act("account", "roles", number, roles="viewer").text
    assert ada.is_in()
