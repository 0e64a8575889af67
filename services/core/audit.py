"""Entries of the audit: who did what when, each carrying the hash of the one before it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

Details = Mapping[str, str | int]

FIRST_PREVIOUS_HASH = "0" * 64
"""What the first entry carries instead."""

COMMAND = "command"
"""The actor of what is done on the command line, by whoever may use the database."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry, as it is stored."""

    id: int
    """Counted from 1 without gaps."""
    at: datetime
    actor: str
    """`account:NAME`, `token:NAME`, `network:ADDRESS` or `command`."""
    action: str
    """What was done, as `noun.verb`."""
    subject: str
    """What it was done to."""
    details: Details
    previous_hash: str
    """SHA-256 in hexadecimal, as `hash` is."""
    hash: str


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first entry that does not fit."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What a look through the whole audit found."""

    entries: int
    """As many as fit, from the first."""
    head_hash: str
    """Of the last of them. Kept elsewhere, it shows later whether any of them has gone."""
    fault: AuditFault | None
    expected_found: bool
    """Whether the expected hash, if there was one, is that of an entry."""

    @property
    def sound(self) -> bool:
        """Whether nothing was changed, taken out, or cut off as far as can be seen."""
        return self.fault is None and self.expected_found


def hash_of(
    previous_hash: str, *, entry_id: int, at: datetime, actor: str, action: str, subject: str, details: Details
) -> str:
    """SHA-256 over the hash before and the entry's content as canonical JSON."""
    content = {
        "id": entry_id,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": dict(details),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous_hash}\n{text}".encode("ascii")).hexdigest()


def fault_of(entry: AuditEntry, expected_id: int, previous_hash: str) -> AuditFault | None:
    """What does not fit about `entry`, given the number and the hash that it should follow."""
    if entry.id != expected_id:
        return AuditFault(expected_id, f"entry {expected_id} is missing; entry {entry.id} comes in its place")
    if entry.previous_hash != previous_hash:
        return AuditFault(entry.id, f"entry {entry.id} does not carry the hash of the entry before it")
    computed = hash_of(
        entry.previous_hash,
        entry_id=entry.id,
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        details=entry.details,
    )
    if computed != entry.hash:
        return AuditFault(entry.id, f"entry {entry.id} was changed: its content does not have its hash")
    return None
