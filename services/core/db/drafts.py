"""Model versions on their way to clients: drafted, copied, given files, published. A draft is not enabled."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Text, cast, exists, func, literal_column, select
from sqlalchemy.orm import Session

from services.core.catalogue import Attachment, CatalogueEntry, ModelFamily, ModelVersion, StoredFile
from services.core.db.catalogue import store_family
from services.core.db.catalogue_rows import entry_value, family_value, file_row, write_version
from services.core.db.locks import lock_name
from services.core.db.tables import ModelFamilyRow, ModelVersionRow, SegmentationJobRow, StructureRow
from services.core.errors import CatalogueConflict, ModelUnavailable


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version as somebody who edits it saw it."""

    entry: CatalogueEntry
    family_id: int
    seen: str
    """Changes whenever the version does; a change names it, so that of two people the second is told."""
    has_jobs: bool
    artifact: StoredFile | None
    module: StoredFile | None


def save_draft(
    session: Session, family: ModelFamily, version: ModelVersion, attachment: Attachment, seen: str | None
) -> str:
    """Store `version` in `family`, disabled, with what `attachment` says but its files, which come later.

    Gives what its next change names as `seen`. A family that is stored already is left as it is, but for the version.

    Args:
        seen: None for a new version, else what `version_view` gave of the one that is changed.

    Raises:
        CatalogueConflict: there is a version of that identifier, or it has changed, has jobs, or is enabled.
    """
    lock_name(session, family.canonical_name)
    family_row = session.scalar(select(ModelFamilyRow).where(ModelFamilyRow.canonical_name == family.canonical_name))
    row = session.scalar(select(ModelVersionRow).where(ModelVersionRow.model_id == version.model_id))
    if row is None and seen is not None:
        raise CatalogueConflict(f"The model version «{version.model_id}» is not there any more; load the page again.")
    if row is not None:
        if seen is None:
            raise CatalogueConflict(
                f"There is a model version «{version.model_id}» already; give this one another identifier."
            )
        if family_row is None or row.family_id != family_row.id:
            raise CatalogueConflict(f"The model version «{version.model_id}» belongs to another family.")
        _require_unchanged(session, row, seen)
        _require_editable(session, row)
    if row is None:
        stored = family if family_row is None else family_value(family_row, family_row.versions)
        store_family(session, replace(stored, versions=(*stored.versions, version)))
        row = session.scalars(select(ModelVersionRow).where(ModelVersionRow.model_id == version.model_id)).one()
    else:
        row.structures = []
        session.flush()
        write_version(row, version)
    row.enabled = False
    row.runtime = attachment.runtime
    row.class_name = attachment.class_name
    row.allow_pickle = attachment.allow_pickle
    row.options = dict(attachment.options)
    row.time_limit_seconds = attachment.time_limit_seconds
    session.flush()
    return _seen(session, row)


def copy_version(session: Session, model_id: str, new_id: str, *, next_minor: bool) -> None:
    """A draft that is `model_id` in everything but its identifier; with `next_minor`, its number is one higher.

    The files are the same files: nobody changes them.

    Raises:
        ModelUnavailable: there is no such version.
        CatalogueConflict: there is one of the new identifier.
    """
    source = _row(session, model_id)
    lock_name(session, source.family.canonical_name)
    if session.scalar(select(exists().where(ModelVersionRow.model_id == new_id))):
        raise CatalogueConflict(f"There is a model version «{new_id}» already; give the copy another identifier.")
    version = replace(
        entry_value(source).version, model_id=new_id, created_on=None, minor=source.minor + (1 if next_minor else 0)
    )
    last = session.scalar(
        select(func.max(ModelVersionRow.position)).where(ModelVersionRow.family_id == source.family_id)
    )
    copy = ModelVersionRow(model_id=new_id, family_id=source.family_id, position=(last or 0) + 1, enabled=False)
    write_version(copy, version)
    copy.runtime, copy.class_name, copy.allow_pickle = source.runtime, source.class_name, source.allow_pickle
    copy.artifact_name, copy.module_name = source.artifact_name, source.module_name
    copy.options, copy.time_limit_seconds = dict(source.options), source.time_limit_seconds
    session.add(copy)
    session.flush()


def set_file(session: Session, model_id: str, kind: str, file: StoredFile, seen: str | None = None) -> str:
    """Make `file` the draft's model file (`artifact`) or `module`; gives what the next change names as `seen`.

    Raises:
        ModelUnavailable: there is no such version.
        CatalogueConflict: it has changed since it was `seen`, has jobs, or is enabled.
    """
    row = _row(session, model_id, lock=True)
    require_unchanged(session, model_id, seen)
    _require_editable(session, row)
    setattr(row, "artifact" if kind == "artifact" else "module", file_row(file))
    session.flush()
    return _seen(session, row)


def require_unchanged(session: Session, model_id: str, seen: str | None, *, lock: bool = False) -> None:
    """Nothing, where the version is as it was `seen`, or nobody says how they saw it; with `lock`, it stays so until
    this transaction ends.

    Raises:
        ModelUnavailable: there is no such version.
        CatalogueConflict: it has changed.
    """
    row = _row(session, model_id, lock=lock)
    if seen is not None:
        _require_unchanged(session, row, seen)


def set_published(session: Session, model_id: str, enabled: bool, seen: str | None = None) -> CatalogueEntry:
    """Let clients use the version, or no longer; gives it as it is then.

    Raises:
        ModelUnavailable: there is no such version.
        CatalogueConflict: it has changed since it was `seen`.
    """
    row = _row(session, model_id, lock=True)
    if seen is not None:
        _require_unchanged(session, row, seen)
    row.enabled = enabled
    session.flush()
    return entry_value(row)


def version_view(session: Session, model_id: str, *, lock: bool = False) -> VersionView:
    """The version as it is now; with `lock`, as it is until this transaction ends.

    Raises:
        ModelUnavailable: there is none.
    """
    return view_of(session, _row(session, model_id, lock=lock))


def view_of(session: Session, row: ModelVersionRow) -> VersionView:
    """The version of that row."""
    return VersionView(
        entry=entry_value(row),
        family_id=row.family_id,
        seen=_seen(session, row),
        has_jobs=_has_jobs(session, row),
        artifact=_file(row.artifact),
        module=_file(row.module),
    )


def _file(row: Any) -> StoredFile | None:
    return None if row is None else StoredFile(row.name, row.sha256, row.size_bytes, row.uploaded_name)


def _row(session: Session, model_id: str, *, lock: bool = False) -> ModelVersionRow:
    row = None
    if "\x00" not in model_id:
        this = ModelVersionRow.model_id == model_id
        if lock:
            # Before it is read: a statement that waits for the lock goes on with the files that it found before.
            session.execute(select(ModelVersionRow.id).where(this).with_for_update())
        row = session.scalar(select(ModelVersionRow).where(this).execution_options(populate_existing=lock))
    if row is None:
        raise ModelUnavailable(f"There is no model version «{model_id}»; load the page again.")
    return row


def _seen(session: Session, row: ModelVersionRow, *, lock: bool = False) -> str:
    """Of the version's row and those of its structures, which are edited as a table too."""
    version = select(cast(literal_column("model_version.xmin"), Text)).select_from(ModelVersionRow)
    version = version.where(ModelVersionRow.id == row.id)
    structures = select(cast(literal_column("structure.xmin"), Text)).select_from(StructureRow)
    structures = structures.where(StructureRow.version_id == row.id).order_by(StructureRow.position)
    if lock:
        version, structures = version.with_for_update(), structures.with_for_update()
    return ".".join((session.execute(version).scalar_one(), *session.scalars(structures)))


def _require_unchanged(session: Session, row: ModelVersionRow, seen: str) -> None:
    if _seen(session, row, lock=True) != seen:
        raise CatalogueConflict(
            f"Somebody else changed «{row.model_id}» while you edited it. Nothing was saved: load the page again, look "
            "at what is there now, and repeat your change."
        )


def _require_editable(session: Session, row: ModelVersionRow) -> None:
    if _has_jobs(session, row):
        raise CatalogueConflict(
            f"«{row.model_id}» has jobs, so it stays as they ran it. Make a new version of it and change that one."
        )
    if row.enabled and row.runtime is not None:
        raise CatalogueConflict(f"«{row.model_id}» is published, and clients may use it now; disable it first.")


def _has_jobs(session: Session, row: ModelVersionRow) -> bool:
    return bool(session.scalar(select(exists().where(SegmentationJobRow.model_id == row.model_id))))
