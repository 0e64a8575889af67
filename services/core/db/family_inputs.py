"""Whom a family is for and what it takes: body parts, gender, input channels; changed where no job has run on them."""

from dataclasses import dataclass, replace

from sqlalchemy import Text, cast, exists, func, literal_column, select
from sqlalchemy.orm import Session

from services.core.catalogue import (
    CatalogueEntry,
    FamilyDescription,
    InputChannel,
    ModelFamily,
    PatientConstraints,
)
from services.core.db.catalogue_rows import entry_value, family_value, write_description
from services.core.db.locks import lock_name
from services.core.db.tables import ModelFamilyRow, ModelVersionRow, SegmentationJobRow
from services.core.errors import CatalogueConflict, InvalidModel, ModelUnavailable

MOST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FamilyInputs:
    """A family as somebody who edits its inputs saw it."""

    family: ModelFamily
    seen: str
    """Changes whenever the family's own row does, as each change of its inputs makes it."""
    why_not: str
    """Why its inputs stay as they are; empty where they may be changed."""


def inputs_of(session: Session, number: int) -> FamilyInputs:
    """The family of that number.

    Raises:
        ModelUnavailable: there is none.
    """
    row = _row(session, number)
    return FamilyInputs(family_value(row, row.versions), _seen(session, row), _why_not(session, row))


def save_inputs(
    session: Session,
    number: int,
    *,
    channels: tuple[InputChannel, ...],
    patients: PatientConstraints,
    seen: str,
) -> list[CatalogueEntry]:
    """Give the family these channels, body parts and this gender; its versions as they are then.

    Whether their options still fit is for the caller to check.

    Raises:
        ModelUnavailable: there is no such family.
        CatalogueConflict: it has changed since it was `seen`, or a version of it has jobs or is published.
        InvalidModel: a structure is drawn on a channel that would be gone.
    """
    row = _row(session, number)
    lock_name(session, row.canonical_name)
    if _seen(session, row, lock=True) != seen:
        raise CatalogueConflict(
            f"Somebody else changed «{row.canonical_name}» while you edited it. Nothing was saved: load the page "
            "again, look at what is there now, and repeat your change."
        )
    if why_not := _why_not(session, row):
        raise CatalogueConflict(why_not)
    _refuse_lost_channels(row, channels)
    family = family_value(row, row.versions)
    description = family.description or FamilyDescription(name=row.canonical_name)
    changed = replace(description, input_channels=channels, constraints=patients)
    write_description(row, replace(family, description=changed))
    row.updated_at = func.now()
    session.flush()
    return [entry_value(version) for version in row.versions]


def _row(session: Session, number: int) -> ModelFamilyRow:
    row = session.get(ModelFamilyRow, number) if number <= MOST_NUMBER else None
    if row is None:
        raise ModelUnavailable("There is no such model family any more; load the page again.")
    return row


def _seen(session: Session, row: ModelFamilyRow, *, lock: bool = False) -> str:
    statement = select(cast(literal_column("model_family.xmin"), Text)).select_from(ModelFamilyRow)
    statement = statement.where(ModelFamilyRow.id == row.id)
    return session.execute(statement.with_for_update() if lock else statement).scalar_one()


def _why_not(session: Session, row: ModelFamilyRow) -> str:
    versions = select(ModelVersionRow.model_id).where(ModelVersionRow.family_id == row.id)
    if session.scalar(select(exists().where(SegmentationJobRow.model_id.in_(versions)))):
        return (
            f"Versions of «{row.canonical_name}» have jobs, so what it takes stays as they ran it; make a model of "
            "another family that takes something else."
        )
    published = next((version for version in row.versions if version.enabled and version.runtime is not None), None)
    if published is not None:
        return f"«{published.model_id}» is published, and clients may use it now; disable it first."
    return ""


def _refuse_lost_channels(row: ModelFamilyRow, channels: tuple[InputChannel, ...]) -> None:
    kept = {channel.channel_id for channel in channels}
    for version in row.versions:
        for structure in version.structures:
            if structure.input_channel_id and structure.input_channel_id not in kept:
                raise InvalidModel(
                    f"«{version.model_id}» draws «{structure.name}» on the input channel "
                    f"«{structure.input_channel_id}», which would be gone; keep it, or change the structure first."
                )
