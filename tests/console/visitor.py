"""Somebody at the console: keeps cookies and sends what the pages' own forms and scripts send."""

import re
from dataclasses import dataclass, field
from html import unescape
from typing import Any, Self

import httpx

from services.core.db import accounts
from tests.deployment import Deployment

PASSWORD = "a long enough password"
SECRET = "0123456789abcdef0123456789abcdef"
CSRF_COOKIE = "starlette_admin_csrftoken"
SESSION_COOKIE = "segint_console"


def create_account(deployment: Deployment, name: str, *roles: str) -> int:
    """An account with the tests' password; its number."""
    database = deployment.database()
    try:
        return database.run(
            lambda session: accounts.create_account(session, name=name, password=PASSWORD, roles=roles, actor="command")
        ).id
    finally:
        database.close()


@dataclass
class Visitor:
    """One browser, more or less."""

    url: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        """A page, without following where it leads."""
        return self.client.get(f"{self.url}/admin{path}", **options)

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Through the form of the login page."""
        token = csrf_field(self.get("/login").text)
        fields = {"username": name, "password": password, "csrftoken": token}
        return self.client.post(f"{self.url}/admin/login", data=fields)

    @property
    def token(self) -> str:
        """What the pages' scripts send with each change."""
        return next((cookie.value or "" for cookie in self.client.cookies.jar if cookie.name == CSRF_COOKIE), "")

    def change(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A change by script: JSON, with the token in a header."""
        sent = {"X-CSRFToken": self.token} | headers
        return self.client.post(f"{self.url}/admin{path}", json={} if body is None else body, headers=sent)

    def act(self, key: str, action: str, pk: int | str | None = None, /, **fields: Any) -> httpx.Response:
        """An action of a table: on one row, or on none."""
        query = {"name": action} if pk is None else {"name": action, "pk": str(pk)}
        kind = "action" if pk is None else "row-action"
        data = {"csrftoken": self.token, **fields}
        return self.client.post(f"{self.url}/admin/_api/{key}/{kind}", params=query, data=data)

    def is_in(self) -> bool:
        """Whether the first page is shown, and not the way to the login page."""
        answer = self.get("/")
        assert answer.status_code in {200, 303}, answer.text
        return answer.status_code == 200


def visitor(deployment: Deployment, name: str | None = None) -> Visitor:
    """Somebody at that deployment's console; with a name, logged in."""
    found = Visitor(deployment.url)
    if name is not None:
        answer = found.log_in(name)
        assert answer.status_code == 303, answer.text
    return found


def csrf_field(page: str) -> str:
    """The token in a page's form."""
    found = re.search(r'name="csrftoken" value="([^"]+)"', page)
    assert found, page
    return unescape(found[1])
