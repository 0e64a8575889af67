"""`segint user`, `segint token` and `segint audit`, through the environment of an administrator."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from services.client.cli import app
from services.core.accounts import Role
from services.core.db import accounts, tokens
from services.core.db.session import Database
from services.core.errors import LoginRefused
from services.core.settings import Settings
from services.core.tokens import digest_of
from tests.deployment import LIMIT_SECONDS, SAMPLE_FAMILY, SAMPLE_MODEL
from tests.local.conftest import Said

PASSWORD = "correct horse battery staple"


class Administrator:
    """Runs `segint` with the settings of one deployment, and looks into its database."""

    def __init__(self, settings: Settings) -> None:
        self.environment = {
            "SEGINT_DATABASE_URL": settings.database_url,
            "SEGINT_VOLUME_DIR": str(settings.volume_dir),
        }
        self.database = Database(settings.database_url)

    def __call__(self, *arguments: object, stdin: str = "") -> Said:
        result = CliRunner().invoke(app, list(map(str, arguments)), env=self.environment, input=stdin)
        return Said(result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: object, stdin: str = "") -> Any:
        said = self(*arguments, "--json", stdin=stdin)
        assert said.code == 0, said
        return json.loads(said.out)

    def may_log_in(self, name: str, password: str) -> bool:
        try:
            return bool(self.database.run(accounts.log_in, name, password, "192.0.2.1"))
        except LoginRefused:
            return False

    def actions(self) -> list[tuple[str, str, str]]:
        """Who did what to what, oldest first."""
        entries = self.json("audit", "list")["entries"]
        return [(entry["actor"], entry["action"], entry["subject"]) for entry in reversed(entries)]


@pytest.fixture
def segint(new_settings: Callable[..., Settings]) -> Iterator[Administrator]:
    administrator = Administrator(new_settings())
    yield administrator
    administrator.database.close()


def refused(said: Said, words: str) -> None:
    assert said.code == 1
    assert re.search(words, said.err), said.err
    assert "Traceback" not in said.err


# --- segint user ---------------------------------------------------------------------------------------------


def test_the_life_of_an_account(segint: Administrator) -> None:
    # Given no account at all
    assert segint.json("user", "list") == {"accounts": []}
    assert "segint user create" in segint("user", "list").err
    # When one is made
    made = segint("user", "create", "Ada", "--role", "admin", "--role", "viewer", "--password-stdin", stdin=PASSWORD)
    assert made.out == "created ada as admin, viewer\n"
    assert segint.json("user", "list")["accounts"] == [{"name": "ada", "roles": ["admin", "viewer"], "enabled": True}]
    assert segint.may_log_in("ada", PASSWORD)
    # Then it can be given another password, other roles, be disabled and enabled
    other = "another horse altogether"
    assert segint("user", "passwd", "ada", "--password-stdin", stdin=f"{other}\r\n").code == 0
    assert (segint.may_log_in("ada", PASSWORD), segint.may_log_in("ada", other)) == (False, True)
    assert segint.json("user", "roles", "ada", "--role", "operator")["roles"] == ["operator"]
    assert segint.json("user", "disable", "ada")["enabled"] is False
    assert not segint.may_log_in("ada", other)
    assert "no" in segint("user", "list").out
    assert segint("user", "enable", "ada").out == "ada is enabled\n"
    assert segint.may_log_in("ada", other)
    account = segint.database.run(accounts.account_by_name, "ada")
    assert (account.roles, account.session_epoch) == (frozenset({Role.OPERATOR}), 5)
    # and every change is in the audit, no password is
    assert [entry for entry in segint.actions() if entry[0] == "command"] == [
        ("command", f"account.{action}", "account:ada")
        for action in ("created", "password_changed", "roles_changed", "disabled", "enabled")
    ]
    assert "horse" not in segint("audit", "list").out


@pytest.mark.parametrize(
    ("name", "role", "password", "words"),
    [
        ("ada", "viewer", "", "too short"),
        ("ada", "viewer", "short", "too short"),
        ("ada.lovelace1", "viewer", "ada.lovelace1", "is the account's name"),
        ("ada", "owner", PASSWORD, "no role «owner»"),
        ("../ada", "viewer", PASSWORD, "choose another"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(
    segint: Administrator, name: str, role: str, password: str, words: str
) -> None:
    refused(segint("user", "create", name, "--role", role, "--password-stdin", stdin=password), words)
    assert segint.json("user", "list") == {"accounts": []}


def test_without_a_terminal_no_password_is_made_up(segint: Administrator) -> None:
    refused(segint("user", "create", "ada", "--role", "viewer", stdin=PASSWORD), "--password-stdin")
    assert segint("user", "create", "ada", "--password-stdin", stdin=PASSWORD).code == 2  # a role is asked for
    for command in (("passwd", "--password-stdin"), ("disable",), ("enable",), ("roles", "--role", "viewer")):
        refused(segint("user", command[0], "nobody", *command[1:], stdin=PASSWORD), "no account «nobody»")


def typed(segint: Administrator, *passwords: str) -> tuple[int, str]:
    """What `segint user create` comes to on a terminal on which these are typed, and all that the terminal shows."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "services.client.cli", "user", "create", "ada", "--role", "admin"],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        env={**os.environ, **segint.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(end)
    shown = b""
    waiting = list(passwords)
    while select.select([terminal], [], [], LIMIT_SECONDS)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end was closed
            break
        if waiting and shown.count(b": ") > len(passwords) - len(waiting):
            os.write(terminal, f"{waiting.pop(0)}\n".encode())
    os.close(terminal)
    return process.wait(LIMIT_SECONDS), shown.decode()


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(segint: Administrator) -> None:
    code, shown = typed(segint, PASSWORD, "something else")
    assert code == 1
    assert "differ" in shown
    assert segint.json("user", "list") == {"accounts": []}
    code, shown = typed(segint, PASSWORD, PASSWORD)
    assert code == 0
    assert "created ada" in shown
    assert "horse" not in shown
    assert segint.may_log_in("ada", PASSWORD)


# --- segint token --------------------------------------------------------------------------------------------


def test_the_life_of_a_token(segint: Administrator) -> None:
    assert segint.json("token", "list") == {"tokens": []}
    # When one is made, Then its secret is all that stdout has
    made = segint("token", "create", "ci", "--scope", "read", "--scope", "segment")
    secret = made.out.strip()
    assert re.fullmatch(r"segint_[A-Za-z0-9_-]{43}", secret)
    assert "not shown again" in made.err
    assert segint.database.run(tokens.presented_token, digest_of(secret.encode())) is not None
    # and it is never shown again
    listed = segint("token", "list")
    assert "ci" in listed.out
    assert secret not in f"{listed} {segint.json('token', 'list')} {segint('audit', 'list')}"
    # When it is revoked, Then it opens nothing
    assert segint("token", "revoke", "ci").out == "revoked ci\n"
    assert segint.database.run(tokens.presented_token, digest_of(secret.encode())) is None
    refused(segint("token", "revoke", "ci"), "no token «ci»")
    assert segint.actions() == [("command", "token.created", "token:ci"), ("command", "token.revoked", "token:ci")]


def test_a_token_as_json(segint: Administrator) -> None:
    made = segint.json("token", "create", "ci", "--scope", "read", "--all-jobs", "--expires-days", 7)
    assert made.pop("token").startswith("segint_")
    assert (made["name"], made["scopes"], made["all_jobs"], made["revoked_at"]) == ("ci", ["read"], True, None)
    assert made["expires_at"] > made["created_at"]
    assert segint.json("token", "list") == {"tokens": [made]}


def test_tokens_that_cannot_be_made_are_refused_in_one_line(segint: Administrator) -> None:
    refused(segint("token", "create", "ci", "--scope", "admin"), "segment, read, feedback")
    refused(segint("token", "create", "ci", "--scope", "read", "--expires-days", 0), "cannot expire in 0 days")
    assert segint("token", "create", "ci").code == 2  # a scope is asked for


# --- segint audit --------------------------------------------------------------------------------------------


def test_changes_of_models_are_audited_with_the_digests_of_their_files(segint: Administrator, tmp_path: Path) -> None:
    # Given a family that is imported twice, and a model file that is attached
    for _ in range(2):
        assert segint("models", "import", SAMPLE_FAMILY).code == 0
    module = tmp_path / "box.py"
    module.write_text("class Box: ...\n", encoding="utf-8")
    attach = ("models", "attach", SAMPLE_MODEL, "--runtime", "phantom", "--module", module, "--no-check")
    assert segint(*attach).code == 0
    # Then the audit tells it
    assert segint.actions() == [
        ("command", "family.created", "family:Centered Square"),
        ("command", "family.updated", "family:Centered Square"),
        ("command", "model.attached", f"model:{SAMPLE_MODEL}"),
    ]
    details = segint.json("audit", "list", "--most", 1)["entries"][0]["details"]
    assert details == {
        "runtime": "phantom",
        "module": "box.py",
        "module_sha256": digest_of(module.read_bytes()),
        "module_bytes": 15,
    }
    # What was refused is no change
    refused(segint("models", "attach", "none such", "--runtime", "phantom"), "no model")
    assert len(segint.actions()) == 3


def test_an_audit_is_verified_and_tampering_named(segint: Administrator) -> None:
    # Given an audit, and its head hash kept
    for name in ("one", "two", "three"):
        segint("token", "create", name, "--scope", "read")
    said = segint("audit", "verify")
    kept = said.out.strip()
    assert said.code == 0
    assert "3 entries" in said.err
    assert segint.json("audit", "verify", "--expect", kept.upper())["sound"] is True
    # When a superuser cuts off the last entry
    replica = "SET LOCAL session_replication_role = replica"
    segint.database.run(lambda s: (s.execute(text(replica)), s.execute(text("DELETE FROM audit_entry WHERE id = 3"))))
    # Then only the kept hash shows it
    assert segint("audit", "verify").code == 0
    refused(segint("audit", "verify", "--expect", kept), "are gone")
    # When an entry is changed, Then it is named
    change = "UPDATE audit_entry SET actor = 'account:eve' WHERE id = 2"
    segint.database.run(lambda s: (s.execute(text(replica)), s.execute(text(change))))
    refused(segint("audit", "verify"), "Entry 2 does not fit")
    said = segint("audit", "verify", "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert (found["sound"], found["entries"], found["fault"]["id"]) == (False, 1, 2)


def test_what_is_no_hash_is_not_looked_for(segint: Administrator) -> None:
    refused(segint("audit", "verify", "--expect", "abc"), "64 hexadecimal digits")


def test_a_database_of_another_version_is_told_as_such(
    empty_database: Callable[[], str], new_settings: Callable[..., Settings]
) -> None:
    segint = Administrator(new_settings(database_url=empty_database()))
    segint.database.close()
    refused(segint("user", "list"), "run the migrations")
