"""Logging in, staying in, and being out: what OWASP's lists on sessions and request forgery ask for."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from services.core.db import accounts
from tests.conftest import MakeDeployment
from tests.console.model_drafts import audit
from tests.console.visitor import (
    CSRF_COOKIE,
    PASSWORD,
    SECRET,
    SESSION_COOKIE,
    Visitor,
    create_account,
    csrf_field,
    visitor,
)
from tests.deployment import Deployment, http, wait_for

Change = Callable[[Deployment, int], None]


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET, trusted_proxies="127.0.0.2").start_api()
    for name, role in (("ada", "admin"), ("olga", "operator"), ("mo", "modeller"), ("vic", "viewer")):
        create_account(made, name, role)
    return made


def test_without_a_session_every_page_leads_to_the_login_page(deployment: Deployment) -> None:
    # Given nobody who is logged in
    with visitor(deployment) as stranger:
        # When pages, data and downloads are asked for
        paths = ["/", "/jobs", "/jobs/live", "/family/list", "/audit/list", "/account/list", "/feedback/list"]
        paths += [f"/jobs/{UUID(int=0)}/{part}" for part in ("view", "view/description", "view/channels/0", "result")]
        paths += ["/viewer/viewer.js", "/new-model", "/import", "/models/family/1/export"]
        answers = {path: stranger.get(path) for path in paths}
    # Then each leads to the login page, and shows nothing
    for path, answer in answers.items():
        assert answer.status_code == 303, path
        assert "/admin/login?next=" in answer.headers["location"], path
        assert answer.content == b"", path


def test_the_session_cookie_is_signed_and_kept_from_scripts_and_other_sites(deployment: Deployment) -> None:
    with visitor(deployment) as found:
        answer = found.log_in("ada")
    (cookie,) = [value for value in answer.headers.get_list("set-cookie") if value.startswith(SESSION_COOKIE)]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    # Over plain HTTP from this machine itself a Secure cookie would not come back; HTTPS is another test.
    assert {"httponly", "samesite=lax", "path=/admin"} <= attributes
    assert "secure" not in attributes


def test_over_https_cookies_are_secure(own_deployment: MakeDeployment) -> None:
    # Given a proxy on this machine that ends TLS, and that the settings name
    deployment = own_deployment(session_secret=SECRET, trusted_proxies="127.0.0.1").start_api()
    create_account(deployment, "ada", "admin")
    with visitor(deployment) as found:
        found.client.headers.update({"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"})
        page = found.get("/login")
        (cookie,) = [cookie for cookie in found.client.cookies.jar if cookie.name == "segint_login"]
        assert cookie.secure
        # When somebody logs in through it from elsewhere
        answer = found.client.post(
            f"{deployment.url}/admin/login",
            data={"username": "ada", "password": PASSWORD, "csrftoken": csrf_field(page.text)},
            # httpx does not send a Secure cookie to http://, as the browser before the proxy does to https://.
            headers={"Cookie": f"segint_login={cookie.value}"},
        )
    # Then no cookie is ever sent in the clear
    assert answer.status_code == 303, answer.text
    given = [value for value in answer.headers.get_list("set-cookie") if not value.startswith("segint_login=")]
    assert len(given) == 2
    assert all("secure" in value.lower() for value in given)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Proto": "https", "X-Real-IP": "x"},
    ],
)
def test_a_password_is_not_taken_over_what_may_be_plain_http(deployment: Deployment, headers: dict[str, str]) -> None:
    # Given what says that it comes by a proxy, or by HTTPS, from one that no setting names
    with visitor(deployment) as found:
        found.client.headers.update({"Forwarded": "for=192.0.2.7"} | headers)
        answer = found.get("/login")
    assert answer.status_code == 403
    assert "HTTPS" in answer.text


def test_a_cookie_that_the_server_did_not_sign_opens_nothing(deployment: Deployment, ada: Visitor) -> None:
    value = ada.client.cookies[SESSION_COOKIE]
    payload, _, signature = value.rpartition(".")
    for forged in (
        payload,
        f"{payload}.{signature[:-1]}",
        f"{payload}.{signature[::-1]}",
        "x",
        f"{payload[:-1]}.{signature}",
    ):
        answer = http.get(f"{deployment.url}/admin/", headers={"Cookie": f"{SESSION_COOKIE}={forged}"})
        assert answer.status_code == 303, forged


def test_the_session_is_a_new_one_at_each_login(deployment: Deployment) -> None:
    # Given somebody whose browser was given a session that another person knows
    with visitor(deployment, "vic") as attacker, visitor(deployment) as victim:
        planted = attacker.client.cookies[SESSION_COOKIE]
        victim.client.cookies.set(SESSION_COOKIE, planted, domain="127.0.0.1", path="/admin")
        # When they log in with it
        token = csrf_field(attacker.get("/").text)
        answer = victim.client.post(
            f"{deployment.url}/admin/login", data={"username": "ada", "password": PASSWORD, "csrftoken": token}
        )
        # Then theirs is another one, and the one that was planted is over
        assert answer.status_code == 303
        assert f"{SESSION_COOKIE}={planted}" not in answer.headers["set-cookie"]
        assert not attacker.is_in()


def test_logging_out_ends_the_session_for_whoever_has_its_cookie(deployment: Deployment) -> None:
    with visitor(deployment, "ada") as found:
        # Given a copy of the cookie
        kept = found.client.cookies[SESSION_COOKIE]
        # When its owner logs out
        answer = found.client.post(f"{deployment.url}/admin/logout", data={"csrftoken": found.token})
        assert answer.status_code == 303
        assert not found.is_in()
    # Then the copy opens nothing
    copy = http.get(f"{deployment.url}/admin/", headers={"Cookie": f"{SESSION_COOKIE}={kept}"})
    assert copy.status_code == 303


def _disable(deployment: Deployment, account: int) -> None:
    _run(deployment, lambda session: accounts.disable_account(session, account, actor="command"))


def _demote(deployment: Deployment, account: int) -> None:
    _run(deployment, lambda session: accounts.set_roles(session, account, roles=["viewer"], actor="command"))


def _change_password(deployment: Deployment, account: int) -> None:
    change = "another long password"
    _run(deployment, lambda session: accounts.change_password(session, account, password=change, actor="command"))


def _run(deployment: Deployment, work: Callable[..., object]) -> None:
    database = deployment.database()
    try:
        database.run(work)
    finally:
        database.close()


@pytest.mark.parametrize("change", [_disable, _demote, _change_password])
def test_a_session_is_over_once_its_account_has_changed(deployment: Deployment, change: Change) -> None:
    # Given somebody at work
    name = f"someone{change.__name__.replace('_', '-')}"
    account = create_account(deployment, name, "admin")
    with visitor(deployment, name) as found:
        assert found.is_in()
        # When the account is disabled, its roles or its password change
        change(deployment, account)
        # Then their next request finds no session
        assert not found.is_in()
        assert found.change("/jobs/00000000-0000-0000-0000-000000000000/cancel").status_code == 303


def test_a_session_ends_when_nobody_uses_it_however_often_its_page_asks(own_deployment: MakeDeployment) -> None:
    # Given sessions that last 10 seconds without use
    deployment = own_deployment(session_secret=SECRET, session_idle_minutes=10 / 60).start_api()
    create_account(deployment, "ada", "admin")
    with visitor(deployment, "ada") as found:
        # When only the page's own script asks, several times a second
        wait_for(
            lambda: found.get("/jobs/live", headers={"X-Console-Background": "1"}).status_code == 303,
            "the end of the session",
        )
        # Then it ends all the same
        assert not found.is_in()


def test_a_session_ends_after_its_hours_however_much_it_is_used(own_deployment: MakeDeployment) -> None:
    # Given sessions that last 15 seconds in all
    deployment = own_deployment(session_secret=SECRET, session_hours=15 / 3600).start_api()
    create_account(deployment, "ada", "admin")
    with visitor(deployment, "ada") as found:
        assert found.is_in()
        # When it is used without a pause
        # Then it ends
        wait_for(lambda: not found.is_in(), "the end of the session")


# --- Changes that somebody else's page asks for --------------------------------------------------------------

UNSAFE = [
    "/logout",
    "/password",
    "/_api/account/action?name=new_account",
    "/_api/account/row-action?name=disable&pk=1",
    "/_api/family/inline-edit?pk=1&field=name",
    "/_api/family/import",
    "/family/create",
    "/family/edit?pk=1",
    "/jobs/00000000-0000-0000-0000-000000000000/cancel",
    "/jobs/00000000-0000-0000-0000-000000000000/retry",
    "/jobs/00000000-0000-0000-0000-000000000000/priority",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_change_without_the_sessions_token_is_refused(ada: Visitor, path: str) -> None:
    bodies: list[dict[str, Any]] = [{"data": {"name": "x"}}, {"json": {}}, {"files": {"f": b"x"}}, {"content": b""}]
    for options in bodies:
        answer = ada.client.post(f"{ada.url}/admin{path}", **options)
        assert answer.status_code == 403, (path, options)
        assert "token" in answer.text
    assert ada.is_in()


def test_a_token_of_an_earlier_session_is_refused(deployment: Deployment, ada: Visitor) -> None:
    # Given the token of a session that is over
    earlier = ada.token
    ada.client.post(f"{deployment.url}/admin/logout", data={"csrftoken": earlier})
    # When it is sent again in the next session of the same account, as header and as field
    assert ada.log_in("ada").status_code == 303
    assert ada.token != earlier
    by_header = ada.client.post(f"{deployment.url}/admin/logout", headers={"X-CSRFToken": earlier})
    by_field = ada.client.post(f"{deployment.url}/admin/logout", data={"csrftoken": earlier})
    # Then it is refused
    assert [by_header.status_code, by_field.status_code] == [403, 403]
    assert ada.is_in()
    # And so it is when the cookie that scripts read it from is replaced along with it
    ada.client.cookies.set(CSRF_COOKIE, earlier, domain="127.0.0.1", path="/admin")
    assert ada.client.post(f"{deployment.url}/admin/logout", headers={"X-CSRFToken": earlier}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_change_that_another_site_asks_for_is_refused_even_with_the_token(
    ada: Visitor, headers: dict[str, str]
) -> None:
    answer = ada.client.post(f"{ada.url}/admin/logout", headers={"X-CSRFToken": ada.token} | headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert ada.is_in()


def test_logging_in_needs_the_login_pages_token_too(deployment: Deployment) -> None:
    with visitor(deployment) as found:
        found.get("/login")
        answer = found.client.post(f"{deployment.url}/admin/login", data={"username": "ada", "password": PASSWORD})
        assert answer.status_code == 403
        assert not found.is_in()


def test_nothing_is_changed_by_get(ada: Visitor) -> None:
    for path in (UNSAFE[0], *UNSAFE[2:6], *UNSAFE[-3:]):
        assert ada.get(path).status_code in {400, 403, 404, 405}, path
    assert ada.is_in()


# --- Logging in ----------------------------------------------------------------------------------------------


def test_a_wrong_password_and_an_unknown_account_are_told_in_the_same_words(deployment: Deployment) -> None:
    with visitor(deployment) as found:
        wrong, unknown = found.log_in("vic", "not the password"), found.log_in("nobody", "not the password")
    assert wrong.status_code == unknown.status_code == 401
    assert _alert(wrong.text) == _alert(unknown.text) != ""


def test_too_many_failures_are_told_with_how_long_to_wait(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment(session_secret=SECRET).start_api()
    create_account(deployment, "ada", "admin")
    with visitor(deployment) as found:
        answers = [found.log_in("ada", "wrong password") for _ in range(6)]
        assert answers[-1].status_code == 429
        assert "wait" in _alert(answers[-1].text)
        assert "seconds" in _alert(answers[-1].text)
        # Then the right password does not help either
        assert found.log_in("ada").status_code == 429


def test_a_person_changes_their_own_password_and_stays_logged_in_here_alone(deployment: Deployment) -> None:
    # Given somebody who is logged in twice
    create_account(deployment, "owner", "viewer")
    new = "chosen by its owner"
    with visitor(deployment, "owner") as owner, visitor(deployment, "owner") as elsewhere:

        def change(**fields: str) -> httpx.Response:
            typed = {"current": PASSWORD, "password": new, "again": new} | fields
            return owner.client.post(f"{owner.url}/admin/password", data={"csrftoken": owner.token} | typed)

        # When what they type is no good, Then they are told, and nothing has changed
        for fields, status, sentence in (
            ({"again": "typed otherwise"}, 400, "in two ways"),
            ({"password": "short", "again": "short"}, 400, "too short"),
            ({"password": PASSWORD, "again": PASSWORD}, 400, "is the current one"),
            ({"current": "somebody guesses"}, 401, "current password is another one"),
        ):
            answer = change(**fields)
            assert (answer.status_code, sentence in answer.text) == (status, True), answer.text
        assert elsewhere.is_in()
        earlier = owner.client.cookies[SESSION_COOKIE]
        # When it is good, Then they are in by a new session, and every other one is over
        assert change().status_code == 303
        assert "Your password is another one now" in owner.get("/").text
        assert owner.client.cookies[SESSION_COOKIE] != earlier
        assert not elsewhere.is_in()
        assert elsewhere.log_in("owner").status_code == 401
        assert elsewhere.log_in("owner", new).status_code == 303
        # And changes by the new session's token are taken
        assert owner.client.post(f"{owner.url}/admin/logout", data={"csrftoken": owner.token}).status_code == 303
    entries = [entry for entry in audit(deployment) if entry[2] == "account:owner"]
    assert ("account:owner", "account.password_changed", "account:owner") in entries
    assert ("network:127.0.0.1", "account.password_refused", "account:owner") in entries


def test_after_login_one_is_led_to_this_console_only(deployment: Deployment) -> None:
    for target in ("https://evil.example/", "//evil.example/", "javascript:alert(1)"):
        with visitor(deployment) as found:
            page = found.get("/login", params={"next": target}).text
            fields = {"username": "vic", "password": PASSWORD, "csrftoken": csrf_field(page)}
            answer = found.client.post(f"{deployment.url}/admin/login", params={"next": target}, data=fields)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith(f"{deployment.url}/admin/"), target


def test_without_a_secret_there_is_no_console_and_it_says_so(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().start_api()
    for path in ("/admin", "/admin/", "/admin/login", "/admin/jobs"):
        answer = http.get(f"{deployment.url}{path}")
        assert answer.status_code == 404
        assert "SEGINT_SESSION_SECRET" in answer.text
    assert "no console" in deployment.log_of("api").read_text()


def _alert(page: str) -> str:
    _, _, rest = page.partition('<div class="alert-description">')
    return rest.partition("</div>")[0]
