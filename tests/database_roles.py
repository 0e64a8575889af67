"""Another role than the one that makes the tests' databases, and what it must not be able to do."""

from urllib.parse import urlsplit

REFUSED = (
    "UPDATE audit_entry SET actor = 'x'",
    "DELETE FROM audit_entry",
    "TRUNCATE audit_entry",
    "ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_append_only",
    "ALTER TABLE audit_entry DISABLE TRIGGER ALL",
    "DROP TRIGGER audit_entry_append_only ON audit_entry",
    "DROP TABLE audit_entry",
    "DROP FUNCTION refuse_change_of_audit() CASCADE",
    "DROP SCHEMA public CASCADE",
    "SET LOCAL session_replication_role = replica",
)
"""What an owner, or a superuser, does to an audit that stands in the way."""


def as_role(url: str, user: str) -> str:
    """The same database as another role, which may come with `:password`."""
    return urlsplit(url)._replace(netloc=f"{user}@{urlsplit(url).netloc.rpartition('@')[2]}").geturl()
