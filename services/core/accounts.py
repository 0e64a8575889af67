"""Accounts of people: their roles, what a role may do, and which names and passwords are taken."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.core.choices import checked_choices
from services.core.errors import InvalidAccount

LEAST_PASSWORD_CHARACTERS = 12
MOST_PASSWORD_CHARACTERS = 1024
"""Longer than any pass phrase; a hash of megabytes would be a way to keep the server busy."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)


class Permission(StrEnum):
    """What something in the console asks for."""

    SEE = "see"
    JOBS = "jobs"
    """Retry, cancel and rank jobs."""
    MODELS = "models"
    """Change the catalogue."""
    ACCOUNTS = "accounts"
    """Change accounts and tokens, and read the audit."""


class Role(StrEnum):
    """What a person is to the group; an account has one or more."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    MODELLER = "modeller"
    ADMIN = "admin"


GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.SEE}),
    Role.OPERATOR: frozenset({Permission.SEE, Permission.JOBS}),
    Role.MODELLER: frozenset({Permission.SEE, Permission.MODELS}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Account:
    """One person who may sign in."""

    id: int
    name: str
    """Lower case, and unique."""
    roles: frozenset[Role]
    enabled: bool
    session_epoch: int
    """Grows when the password or the roles change, and when the account is disabled or enabled: a session that
    carries an older one is over."""

    @property
    def actor(self) -> str:
        """How the audit names this person."""
        return f"account:{self.name}"

    def may(self, permission: Permission) -> bool:
        """Whether any of the account's roles grants it. A disabled account may nothing."""
        return self.enabled and any(permission in GRANTS[role] for role in self.roles)


def account_name(text: str) -> str:
    """`text` as the name of an account: lower case, so that no two look alike.

    Raises:
        InvalidAccount: it cannot be one.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidAccount(
            "An account's name has 1 to 64 of the letters a to z, digits, and . _ @ -, and begins with a letter or "
            "digit; choose another."
        )
    return name


def checked_roles(roles: list[str]) -> frozenset[Role]:
    """`roles` as values.

    Raises:
        InvalidAccount: none is given, or one does not exist.
    """
    return checked_choices(Role, roles, owner="An account", noun="role", error=InvalidAccount)


def normal_password(password: str) -> str:
    """`password` in the one form that every keyboard's way of typing it comes to (Unicode's NFKC)."""
    return unicodedata.normalize("NFKC", password)


def check_password(name: str, password: str) -> None:
    """Refuse what is too easily guessed. Length is what counts; there are no rules about digits.

    Raises:
        InvalidAccount: it is too short, too long, or the account's own name.
    """
    text = normal_password(password)
    if len(text) < LEAST_PASSWORD_CHARACTERS:
        raise InvalidAccount(f"The password is too short; take at least {LEAST_PASSWORD_CHARACTERS} characters.")
    if len(text) > MOST_PASSWORD_CHARACTERS:
        raise InvalidAccount(f"The password is too long; take at most {MOST_PASSWORD_CHARACTERS} characters.")
    if text.strip().lower() == name.strip().lower():
        raise InvalidAccount("The password is the account's name; choose one that nobody can guess.")
    if len(set(text)) == 1:
        raise InvalidAccount("The password is one character repeated; choose one that nobody can guess.")
