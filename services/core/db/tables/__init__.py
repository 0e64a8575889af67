"""Every table. `migrations/` owns the schema; a test holds its head equal to what is declared here."""

from services.core.db.tables.access import APPEND_ONLY, AccountRow, ApiTokenRow, AuditEntryRow, LoginFailureRow
from services.core.db.tables.base import Base
from services.core.db.tables.catalogue import (
    BodyPartRow,
    InputChannelRow,
    ModelFamilyRow,
    ModelFileRow,
    ModelVersionRow,
    RegulatoryFrameworkRow,
    StructureRow,
)
from services.core.db.tables.console import ConsoleSessionRow, ModelCheckRow
from services.core.db.tables.jobs import JanitorRoundRow, JobEventRow, SegmentationJobRow, VolumeIdentityRow, WorkerRow
from services.core.db.tables.reports import FeedbackRow, StructureCommentRow, TelemetryRow

__all__ = [
    "APPEND_ONLY",
    "AccountRow",
    "ApiTokenRow",
    "AuditEntryRow",
    "Base",
    "BodyPartRow",
    "ConsoleSessionRow",
    "FeedbackRow",
    "InputChannelRow",
    "JanitorRoundRow",
    "JobEventRow",
    "LoginFailureRow",
    "ModelCheckRow",
    "ModelFamilyRow",
    "ModelFileRow",
    "ModelVersionRow",
    "RegulatoryFrameworkRow",
    "SegmentationJobRow",
    "StructureCommentRow",
    "StructureRow",
    "TelemetryRow",
    "VolumeIdentityRow",
    "WorkerRow",
]
