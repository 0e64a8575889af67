"""The catalogue in PostgreSQL: storing families, attaching what runs them, and reading both back as values."""

from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from services.core.catalogue import Attachment, CatalogueEntry, ModelFamily
from services.core.db.catalogue_rows import (
    entry_value,
    family_value,
    file_row,
    write_description,
    write_version,
)
from services.core.db.locks import lock_name
from services.core.db.tables import ModelFamilyRow, ModelFileRow, ModelVersionRow, SegmentationJobRow
from services.core.errors import CatalogueConflict, ModelUnavailable

# --- Writing -------------------------------------------------------------------------------------------------


def store_family(session: Session, family: ModelFamily) -> bool:
    """Create `family`, or bring the one of its name up to date. True when it was created.

    What was attached to a version stays attached. A stored version that `family` does not name stays too: jobs and
    feedback refer to it.

    Raises:
        CatalogueConflict: one of its versions has an identifier that belongs to another family.
    """
    # Two imports of one new name would both find nothing; the lock makes the second one wait and then find it.
    lock_name(session, family.canonical_name)
    row = _family_row(session, family.canonical_name)
    created = row is None
    if row is None:
        row = ModelFamilyRow(canonical_name=family.canonical_name)
        session.add(row)
    _refuse_foreign_versions(session, family)
    write_description(row, family)
    session.flush()
    by_id = {version.model_id: version for version in row.versions}
    named = []
    for version in family.versions:
        version_row = by_id.pop(version.model_id, None) or ModelVersionRow(model_id=version.model_id)
        write_version(version_row, version)
        named.append(version_row)
    kept = sorted(by_id.values(), key=lambda version_row: version_row.position)
    for position, version_row in enumerate([*named, *kept]):
        version_row.position = position
    row.versions = [*named, *kept]
    row.updated_at = func.now()
    session.flush()
    return created


def attach(session: Session, model_id: str, attachment: Attachment) -> None:
    """Make `attachment` what runs the model version.

    Raises:
        ModelUnavailable: there is no such version.
    """
    row = _version_row(session, model_id)
    row.runtime = attachment.runtime
    row.artifact = file_row(attachment.artifact)
    row.module = file_row(attachment.module)
    row.class_name = attachment.class_name
    row.allow_pickle = attachment.allow_pickle
    row.options = dict(attachment.options)
    row.time_limit_seconds = attachment.time_limit_seconds


def set_enabled(session: Session, model_id: str, enabled: bool) -> None:
    """Let clients use the model version, or no longer.

    Raises:
        ModelUnavailable: there is no such version.
    """
    _version_row(session, model_id).enabled = enabled


def delete_version(session: Session, model_id: str) -> CatalogueEntry:
    """Delete a model version that nobody has used; gives what it was.

    Raises:
        ModelUnavailable: there is no such version.
        CatalogueConflict: it has jobs, which refer to it, or clients may use it now.
    """
    # First, so that nobody submits to it, publishes it or gives it another file meanwhile.
    session.execute(select(ModelVersionRow.id).where(ModelVersionRow.model_id == model_id).with_for_update())
    row = _version_row(session, model_id)
    entry = entry_value(row)
    if session.scalar(select(exists().where(SegmentationJobRow.model_id == model_id))):
        raise CatalogueConflict(
            f"«{model_id}» has jobs, which refer to it, so it stays; disable it, on the console's page Models or by "
            "`segint models disable`, to hide it from clients."
        )
    if entry.runnable:
        raise CatalogueConflict(
            f"«{model_id}» is published, and clients may use it now; disable it first, on the console's page Models or "
            "by `segint models disable`."
        )
    session.delete(row)
    session.flush()
    return entry


def unreferenced_files(session: Session) -> list[str]:
    """Names below models/ that no model version refers to any more; their rows are deleted."""
    artifacts = select(ModelVersionRow.artifact_name).where(ModelVersionRow.artifact_name.is_not(None))
    modules = select(ModelVersionRow.module_name).where(ModelVersionRow.module_name.is_not(None))
    referenced = artifacts.union(modules)
    rows = session.scalars(select(ModelFileRow).where(ModelFileRow.name.not_in(referenced))).all()
    for row in rows:
        session.delete(row)
    return [row.name for row in rows]


# --- Reading -------------------------------------------------------------------------------------------------


def families(session: Session) -> list[ModelFamily]:
    """Every family with every version, in the order they were created."""
    return [family_value(row, row.versions) for row in _family_rows(session)]


def published_families(session: Session) -> list[ModelFamily]:
    """What clients see: families with at least one runnable version, and only those versions."""
    published = [_published(row) for row in _family_rows(session)]
    return [family for family in published if family is not None]


def published_family(session: Session, canonical_name: str) -> tuple[int, ModelFamily | None] | None:
    """The family's number, which names its file on the volume, and what clients see of it; None: no such family."""
    row = _family_row(session, canonical_name)
    return None if row is None else (row.id, _published(row))


def find_family(session: Session, canonical_name: str) -> ModelFamily | None:
    """The family of that name with every version."""
    row = _family_row(session, canonical_name)
    return None if row is None else family_value(row, row.versions)


def entries(session: Session) -> list[CatalogueEntry]:
    """Every model version with what runs it."""
    return [entry_value(version) for row in _family_rows(session) for version in row.versions]


def find_entry(session: Session, model_id: str) -> CatalogueEntry | None:
    """The model version that requests name `model_id`."""
    if "\x00" in model_id:  # which PostgreSQL cannot even be asked for
        return None
    row = session.scalar(select(ModelVersionRow).where(ModelVersionRow.model_id == model_id))
    return None if row is None else entry_value(row)


# --- Rows ----------------------------------------------------------------------------------------------------


def _published(row: ModelFamilyRow) -> ModelFamily | None:
    runnable = [version for version in row.versions if entry_value(version).runnable]
    return family_value(row, runnable) if runnable else None


def _family_rows(session: Session) -> Sequence[ModelFamilyRow]:
    return session.scalars(select(ModelFamilyRow).order_by(ModelFamilyRow.id)).all()


def _family_row(session: Session, canonical_name: str) -> ModelFamilyRow | None:
    return session.scalar(select(ModelFamilyRow).where(ModelFamilyRow.canonical_name == canonical_name))


def _version_row(session: Session, model_id: str) -> ModelVersionRow:
    row = session.scalar(select(ModelVersionRow).where(ModelVersionRow.model_id == model_id))
    if row is None:
        raise ModelUnavailable(f"There is no model «{model_id}»; `segint models list --all` shows those there are.")
    return row


def _refuse_foreign_versions(session: Session, family: ModelFamily) -> None:
    identifiers = [version.model_id for version in family.versions]
    foreign = session.execute(
        select(ModelVersionRow.model_id, ModelFamilyRow.canonical_name)
        .join(ModelFamilyRow, ModelVersionRow.family_id == ModelFamilyRow.id)
        .where(ModelVersionRow.model_id.in_(identifiers), ModelFamilyRow.canonical_name != family.canonical_name)
    ).first()
    if foreign is not None:
        raise CatalogueConflict(
            f"The model «{foreign.model_id}» belongs to the family «{foreign.canonical_name}» already; "
            f"give the version in «{family.canonical_name}» another ID."
        )
