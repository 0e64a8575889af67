"""What storing a family would change, told before it is done."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from services.core.catalogue import Attachment, FamilyDescription, ModelFamily, ModelVersion
from services.core.db.catalogue import find_entry, find_family
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


@dataclass(frozen=True, slots=True)
class AttachmentChange:
    """What happens to what runs a version."""

    changed: tuple[str, ...]
    conflict: str
    """Why it cannot be attached; empty where it can."""


def changes_of(session: Session, family: ModelFamily, *, lock: bool = False) -> FamilyChanges:
    """Compare `family` with what is stored under its name."""
    if lock:
        lock_name(session, family.canonical_name)
        family_id = select(ModelFamilyRow.id).where(ModelFamilyRow.canonical_name == family.canonical_name)
        _keep_from_use(session, ModelVersionRow.family_id.in_(family_id))
    stored = find_family(session, family.canonical_name)
    by_id = {version.model_id: version for version in stored.versions} if stored else {}
    versions = tuple(_change(session, version, by_id.pop(version.model_id, None)) for version in family.versions)
    return FamilyChanges(
        created=stored is None,
        changed=() if stored is None else tuple(_differing(stored, family)),
        versions=versions,
        kept=tuple(by_id),
        conflict=_conflict(session, family, versions)
        or _conflict_of_channels(session, stored, family)
        or _conflict_of_structures((*family.versions, *by_id.values()), _channels(family)),
        fingerprint=hashlib.sha256(repr(stored).encode()).hexdigest(),
    )


def change_by_attaching(
    session: Session, model_id: str, attachment: Attachment, *, lock: bool = False
) -> AttachmentChange:
    """Compare `attachment` with what runs the version.

    The same content is no change, wherever it lies: so a file that was lost or damaged can be put back. What nothing
    ran has nothing to change either.
    """
    if lock:
        _keep_from_use(session, ModelVersionRow.model_id == model_id)
    entry = find_entry(session, model_id)
    if entry is None or entry.attachment is None:
        return AttachmentChange((), "")
    before, after = _content(entry.attachment), _content(attachment)
    changed = tuple(name for name in before if before[name] != after[name])
    conflict = ""
    if changed and _used(session, model_id):
        conflict = (
            f"The version «{model_id}» has jobs, so what runs it stays as they ran it, and this differs "
            f"in {', '.join(changed)}. Make a new version of it, by New version on the console's page Models, or under "
            "another identifier in the family's file with `segint models import`, and attach to that one."
        )
    return AttachmentChange(changed, conflict)


def refuse_changes_of_used_versions(changes: FamilyChanges | AttachmentChange) -> None:
    """A version that has jobs stays as they ran it.

    Raises:
        CatalogueConflict: such a version would change, or the import cannot be done for another reason.
    """
    if changes.conflict:
        raise CatalogueConflict(changes.conflict)


def _keep_from_use(session: Session, which: ColumnElement[bool]) -> None:
    """Let nobody submit to these versions until this transaction ends: a job's row refers to its version's."""
    rows = select(ModelVersionRow.id).where(which).order_by(ModelVersionRow.id)
    session.execute(rows.with_for_update(of=ModelVersionRow))


def _content(attachment: Attachment) -> dict[str, object]:
    """What a job's result depends on; a module is imported by the name it was uploaded with."""
    artifact, module = attachment.artifact, attachment.module
    return {
        "runtime": attachment.runtime,
        "file": None if artifact is None else artifact.sha256,
        "module": None if module is None else (module.sha256, module.uploaded_name),
        "class": attachment.class_name,
        "allow pickle": attachment.allow_pickle,
        "options": dict(attachment.options),
        "time limit": attachment.time_limit_seconds,
    }


def _used(session: Session, model_id: str) -> bool:
    return bool(session.scalar(select(exists().where(SegmentationJobRow.model_id == model_id))))


def _change(session: Session, version: ModelVersion, stored: ModelVersion | None) -> VersionChange:
    if stored is None:
        names = ", ".join(structure.name for structure in version.structures) or "none"
        return VersionChange(version.model_id, "new", (f"structures: {names}",), has_jobs=False)
    details = tuple(
        field.name.replace("_", " ")
        for field in fields(ModelVersion)
        if getattr(version, field.name) != getattr(stored, field.name)
    )
    return VersionChange(version.model_id, "changed" if details else "same", details, _used(session, version.model_id))


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


def _conflict_of_structures(versions: Iterable[ModelVersion], channels: Sequence[str]) -> str:
    """A structure that is linked to a channel which is not there would lie on another one's grid."""
    for version in versions:
        for structure in version.structures:
            if channels and structure.input_channel_id and structure.input_channel_id not in channels:
                return (
                    f"The structure «{structure.name}» of «{version.model_id}» lies on the input channel "
                    f"«{structure.input_channel_id}», which the family does not have (it has {', '.join(channels)}); "
                    "give its InputChannelID one of these in the file, or none for the first."
                )
    return ""


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
        return (
            f"The version «{foreign.model_id}» belongs to the family «{foreign.canonical_name}» already; give this one "
            "another identifier in the file."
        )
    for version in versions:
        if version.what == "changed" and version.has_jobs:
            return (
                f"The version «{version.model_id}» has jobs, so it stays as they ran it; give the changed one another "
                "identifier in the file."
            )
    return ""
