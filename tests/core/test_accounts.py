"""Names, roles and passwords of accounts, and the hashes that passwords are kept as."""

import pytest

from services.core import passwords
from services.core.accounts import (
    LEAST_PASSWORD_CHARACTERS,
    Account,
    Permission,
    Role,
    account_name,
    check_password,
    checked_roles,
)
from services.core.errors import InvalidAccount


def account(*roles: Role, enabled: bool = True) -> Account:
    return Account(id=1, name="ada", roles=frozenset(roles), enabled=enabled, session_epoch=1)


@pytest.mark.parametrize(
    ("role", "granted"),
    [
        (Role.VIEWER, {Permission.SEE}),
        (Role.OPERATOR, {Permission.SEE, Permission.JOBS}),
        (Role.MODELLER, {Permission.SEE, Permission.MODELS}),
        (Role.ADMIN, set(Permission)),
    ],
)
def test_a_role_grants_what_it_is_for_and_no_more(role: Role, granted: set[Permission]) -> None:
    assert {permission for permission in Permission if account(role).may(permission)} == granted


def test_roles_add_up_and_a_disabled_account_may_nothing() -> None:
    both = account(Role.OPERATOR, Role.MODELLER)
    assert both.may(Permission.JOBS)
    assert both.may(Permission.MODELS)
    assert not both.may(Permission.ACCOUNTS)
    assert not any(account(Role.ADMIN, enabled=False).may(permission) for permission in Permission)


def test_names_are_lower_case() -> None:
    assert account_name(" Ada.Lovelace@clinic ") == "ada.lovelace@clinic"


@pytest.mark.parametrize("name", ["", " ", "-ada", "a b", "a/../b", "ada\x00", "adä", "a" * 65, "аda", "<b>"])
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(InvalidAccount, match="choose another"):
        account_name(name)


@pytest.mark.parametrize("roles", [[], ["owner"], ["admin", "root"]])
def test_roles_must_exist(roles: list[str]) -> None:
    with pytest.raises(InvalidAccount, match="viewer, operator, modeller, admin"):
        checked_roles(roles)


@pytest.mark.parametrize(
    "password",
    ["", "x" * (LEAST_PASSWORD_CHARACTERS - 1), "ada.lovelace1", "ADA.Lovelace1 ", "a" * 40, "pw" * 600],
)
def test_a_password_that_is_short_long_or_the_name_is_refused(password: str) -> None:
    with pytest.raises(InvalidAccount, match=r"[Pp]assword"):
        check_password("ada.lovelace1", password)


def test_a_pass_phrase_is_taken() -> None:
    check_password("ada", "correct horse battery staple")
    check_password("ada", "x1" * (LEAST_PASSWORD_CHARACTERS // 2))


def test_the_kept_hash_fits_its_password_alone() -> None:
    kept = passwords.hashed("correct horse battery staple")
    assert kept.startswith("$argon2id$")
    assert passwords.hashed("correct horse battery staple") != kept  # a salt of its own
    assert passwords.fits(kept, "correct horse battery staple")
    assert not passwords.fits(kept, "correct horse battery stapl")
    assert not passwords.fits("not a hash", "correct horse battery staple")


def test_one_password_typed_in_two_ways_is_one_password() -> None:
    # An «é» of one character on one keyboard, of two on another
    assert passwords.fits(passwords.hashed("caf\u00e9 au lait, merci"), "cafe\u0301 au lait, merci")


@pytest.mark.parametrize("password", ["\ud800 a lone surrogate", "a NUL \x00 in it", "x" * 10_000_000])
def test_any_text_is_checked_and_a_huge_one_not_for_long(password: str) -> None:
    kept = passwords.hashed("correct horse battery staple")
    assert not passwords.fits(kept, password)
    assert passwords.fits(passwords.hashed(password), password)


def test_the_hash_for_unknown_names_costs_what_every_hash_costs() -> None:
    assert not passwords.is_outdated(passwords.NOBODYS_HASH)
    assert not passwords.fits(passwords.NOBODYS_HASH, "")
    assert passwords.is_outdated(passwords.NOBODYS_HASH.replace("m=65536", "m=8192"))
