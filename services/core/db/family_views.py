"""Families as those who look after models see them: every version, with what is known of it beyond the wire."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.core.catalogue import FamilyDescription, InputChannel, PatientConstraints
from services.core.db import model_checks
from services.core.db.catalogue_rows import family_value
from services.core.db.drafts import VersionView, view_of
from services.core.db.tables import ModelFamilyRow
from services.core.model_check import ModelCheck


@dataclass(frozen=True, slots=True)
class FamilyView:
    """A family and its versions, each with its last dry run."""

    id: int
    name: str
    description: str
    region: str
    modalities: str
    channels: tuple[str, ...]
    inputs: tuple[InputChannel, ...]
    """Those channels, whole."""
    patients: PatientConstraints | None
    versions: tuple[tuple[VersionView, ModelCheck | None], ...]


def family_views(session: Session) -> list[FamilyView]:
    """Every family, by name."""
    return [
        _view(session, row) for row in session.scalars(select(ModelFamilyRow).order_by(ModelFamilyRow.canonical_name))
    ]


def family_view(session: Session, number: int) -> FamilyView | None:
    """The family of that number."""
    row = session.get(ModelFamilyRow, number) if number < 2**63 else None
    return None if row is None else _view(session, row)


def _view(session: Session, row: ModelFamilyRow) -> FamilyView:
    description = family_value(row, ()).description or FamilyDescription()
    return FamilyView(
        id=row.id,
        name=row.canonical_name,
        description=row.description,
        region=row.anatomical_region,
        modalities=row.modalities,
        channels=tuple(channel.channel_id for channel in row.input_channels),
        inputs=description.input_channels,
        patients=description.constraints,
        versions=tuple(
            (view_of(session, version), model_checks.newest(session, version.model_id)) for version in row.versions
        ),
    )


def number_of(session: Session, canonical_name: str) -> int:
    """The number of the stored family of that name."""
    return session.scalars(select(ModelFamilyRow.id).where(ModelFamilyRow.canonical_name == canonical_name)).one()
