"""What storing a family would change, told before it is done."""

import hashlib
from dataclasses import dataclass, fields, replace

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from services.core.catalogue import FamilyDescription, ModelFamily, ModelVersion
from services.core.db.catalogue import find_family
from services.core.db.locks import lock_name
from services.core.db.tables import ModelFamilyRow, ModelVersionRow, SegmentationJobRow
from services.core.errors import CatalogueConflict


@dataclass(frozen=True, slots=True)
class VersionChange:
    """What happens to one version."""

    model_id: str
    what: str
    """new, changed, or same."""
    details: tuple[str, ...]
    has_jobs: bool


@dataclass(frozen=True, slots=True)
class FamilyChanges:
    """What happens to a family."""

    created: bool
    changed: tuple[str, ...]
    """Fields of the family itself."""
    versions: tuple[VersionChange, ...]
    kept: tuple[str, ...]
    """Stored versions that the message does not name; they stay."""
    conflict: str
    """Why it cannot be stored; empty where it can."""
    fingerprint: str
    """Of what is stored now: another one means that somebody changed it since."""


def changes_of(session: Session, family: ModelFamily, *, lock: bool = False) -> FamilyChanges:
    """Compare `family` with what is stored under its name."""
    if lock:
        lock_name(session, family.canonical_name)
    stored = find_family(session, family.canonical_name)
    by_id = {version.model_id: version for version in stored.versions} if stored else {}
    versions = tuple(_change(session, version, by_id.pop(version.model_id, None)) for version in family.versions)
    return FamilyChanges(
        created=stored is None,
        changed=() if stored is None else tuple(_differing(stored, family)),
        versions=versions,
        kept=tuple(by_id),
        conflict=_conflict(session, family, versions) or _conflict_of_channels(session, stored, family),
        fingerprint=hashlib.sha256(repr(stored).encode()).hexdigest(),
    )


def refuse_changes_of_used_versions(changes: FamilyChanges) -> None:
    """A version that has jobs stays as they ran it.

    Raises:
        CatalogueConflict: such a version would change, or the import cannot be done for another reason.
    """
    if changes.conflict:
        raise CatalogueConflict(changes.conflict)


def _change(session: Session, version: ModelVersion, stored: ModelVersion | None) -> VersionChange:
    if stored is None:
        names = ", ".join(structure.name for structure in version.structures) or "none"
        return VersionChange(version.model_id, "new", (f"structures: {names}",), has_jobs=False)
    details = tuple(
        field.name.replace("_", " ")
        for field in fields(ModelVersion)
        if getattr(version, field.name) != getattr(stored, field.name)
    )
    used = bool(session.scalar(select(exists().where(SegmentationJobRow.model_id == version.model_id))))
    return VersionChange(version.model_id, "changed" if details else "same", details, used)


def _differing(stored: ModelFamily, family: ModelFamily) -> list[str]:
    before, after = stored.description or FamilyDescription(), family.description or FamilyDescription()
    differing = [
        field.name.replace("_", " ")
        for field in fields(FamilyDescription)
        if getattr(before, field.name) != getattr(after, field.name)
    ]
    if replace(stored, versions=(), description=None) != replace(family, versions=(), description=None):
        differing.append("language code")
    return differing


def _conflict_of_channels(session: Session, stored: ModelFamily | None, family: ModelFamily) -> str:
    """Which channels a family takes, and in which order, is part of every version of it."""
    if stored is None or _channels(stored) == _channels(family):
        return ""
    used = (
        select(SegmentationJobRow.model_id)
        .join(ModelVersionRow, ModelVersionRow.model_id == SegmentationJobRow.model_id)
        .join(ModelFamilyRow, ModelVersionRow.family_id == ModelFamilyRow.id)
        .where(ModelFamilyRow.canonical_name == family.canonical_name)
        .limit(1)
    )
    model_id = session.scalar(used)
    if model_id is None:
        return ""
    return (
        f"The family takes the input channels {', '.join(_channels(family)) or 'none'} in the file, and "
        f"{', '.join(_channels(stored)) or 'none'} here; the version «{model_id}» has jobs and stays as it is, so "
        "give the changed family another CanonicalName in the file."
    )


def _channels(family: ModelFamily) -> list[str]:
    return [channel.channel_id for channel in family.description.input_channels] if family.description else []


def _conflict(session: Session, family: ModelFamily, versions: tuple[VersionChange, ...]) -> str:
    identifiers = [version.model_id for version in family.versions]
    foreign = session.execute(
        select(ModelVersionRow.model_id, ModelFamilyRow.canonical_name)
        .join(ModelFamilyRow, ModelVersionRow.family_id == ModelFamilyRow.id)
        .where(ModelVersionRow.model_id.in_(identifiers), ModelFamilyRow.canonical_name != family.canonical_name)
    ).first()
    if foreign is not None:
        return f"The version «{foreign.model_id}» belongs to the family «{foreign.canonical_name}» already."
    for version in versions:
        if version.what == "changed" and version.has_jobs:
            return (
                f"The version «{version.model_id}» has jobs, so it stays as they ran it; give the changed one another "
                "identifier in the file."
            )
    return ""
