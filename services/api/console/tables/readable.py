"""What people read where a row holds a number or another row's key, in SQL: tables are searched and sorted by it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.core.db.tables import (
    BodyPartRow,
    FeedbackRow,
    InputChannelRow,
    ModelFamilyRow,
    ModelFileRow,
    ModelVersionRow,
    SegmentationJobRow,
    StructureCommentRow,
    StructureRow,
)
from services.core.wire.enumerations import MODALITIES

ReadAs = Mapping[str, ColumnElement[Any]]
"""By the column's name."""


def name_in(names: Mapping[int, str], column: Any) -> ColumnElement[str]:
    """The name that people read for the number in `column`; the number itself where there is none."""
    return case(dict(names), value=column, else_=cast(column, Text))


def family_name_of(row: type[BodyPartRow | InputChannelRow | ModelVersionRow]) -> ColumnElement[str]:
    """The canonical name of the row's family, in SQL."""
    name = select(ModelFamilyRow.canonical_name).where(ModelFamilyRow.id == row.family_id)
    return name.correlate(row).scalar_subquery()


def uploaded_name(name: Any) -> ColumnElement[str]:
    """What the file was called that a version names, in SQL."""
    file = select(ModelFileRow.uploaded_name).where(ModelFileRow.name == name)
    return file.correlate(ModelVersionRow).scalar_subquery()


def modality_names() -> ColumnElement[str]:
    """The names of the modalities that a channel takes, in SQL."""
    code = func.unnest(InputChannelRow.accepted_modalities).column_valued("code")
    names = select(func.string_agg(name_in(MODALITIES, code), ", "))
    return names.correlate(InputChannelRow).scalar_subquery()


def model_of_structure() -> ColumnElement[str]:
    """The identifier of the version that draws the structure."""
    version = select(ModelVersionRow.model_id).where(ModelVersionRow.id == StructureRow.version_id)
    return version.correlate(StructureRow).scalar_subquery()


def structure_comments() -> ColumnElement[str]:
    """What feedback says of structures, a line for each."""
    row = StructureCommentRow
    score = func.coalesce(" (" + cast(row.score, Text) + ")", "")
    line = row.structure_id + score + ": " + row.comments
    lines = func.string_agg(line, aggregate_order_by(literal("\n"), row.position))
    return select(lines).where(row.feedback_id == FeedbackRow.id).correlate(FeedbackRow).scalar_subquery()


def model_of_feedback() -> ColumnElement[str]:
    """The version that the job ran which feedback is about."""
    model = select(SegmentationJobRow.model_id).where(SegmentationJobRow.id == FeedbackRow.job_id)
    return model.correlate(FeedbackRow).scalar_subquery()
