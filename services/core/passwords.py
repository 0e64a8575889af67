"""Passwords are kept as argon2id hashes, and are checked in the same time whether or not there is such an account."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.core.accounts import MOST_PASSWORD_CHARACTERS, normal_password

# RFC 9106's second recommended choice: 64 MiB and about 0.1 s for each guess.
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)

NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$lkRVISYwz4BJLzwg8ujW5Q$zG+PolYVTrfm+o0j1mybEDtgcnzOijEklkyIPPd4u9Y"
"""Of a random password that was thrown away, with the parameters of every other: what is checked for unknown names."""


def hashed(password: str) -> str:
    """The hash to keep, its parameters and salt included."""
    return _HASHER.hash(_bytes(password))


def fits(password_hash: str, password: str) -> bool:
    """Whether `password` is the one of that hash. Takes about 0.1 s and 64 MiB."""
    try:
        return _HASHER.verify(password_hash, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False


def _bytes(password: str) -> bytes:
    """What is hashed: any text at all, and never much more than the longest password that is taken."""
    # Three characters at most become one in the normal form, so none that is taken is cut here.
    return normal_password(password[: 4 * MOST_PASSWORD_CHARACTERS]).encode(errors="surrogatepass")


def is_outdated(password_hash: str) -> bool:
    """Whether it was made with other parameters than hashes are made with now."""
    return _HASHER.check_needs_rehash(password_hash)
