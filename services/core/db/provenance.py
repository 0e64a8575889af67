"""What ran a job: recorded by the worker from the very entry that it runs, in the transaction that reads it."""

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.core.catalogue import CatalogueEntry
from services.core.db import catalogue
from services.core.db.claims import held_by
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import Claim, RanWith


def entry_to_run(session: Session, claim: Claim, *, software_version: str) -> CatalogueEntry | None:
    """The model version that the claimed job names, noted on the job as what this attempt runs; None: there is none."""
    entry = catalogue.find_entry(session, claim.model_id)
    if entry is not None and entry.attachment is not None:
        attachment = entry.attachment
        session.execute(
            update(Row)
            .where(held_by(claim))
            .values(
                runtime=attachment.runtime,
                model_sha256=None if attachment.artifact is None else attachment.artifact.sha256,
                module_sha256=None if attachment.module is None else attachment.module.sha256,
                model_options=dict(attachment.options),
                software_version=software_version,
            )
        )
    return entry


def of_job(session: Session, job_id: UUID) -> RanWith | None:
    """What ran the job's last attempt; None before the first one, and for jobs from before it was kept."""
    row = session.execute(
        select(Row.runtime, Row.model_sha256, Row.module_sha256, Row.model_options, Row.software_version).where(
            Row.id == job_id
        )
    ).one_or_none()
    if row is None or row.runtime is None:
        return None
    return RanWith(
        runtime=row.runtime,
        model_sha256=row.model_sha256,
        module_sha256=row.module_sha256,
        options=row.model_options or {},
        software_version=row.software_version or "",
    )
