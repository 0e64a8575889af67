"""Segmentation jobs for the tests: accepted, claimed, looked at, and set back in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, update

from services.core.catalogue import ModelFamily, ModelVersion
from services.core.db import attempts, catalogue, claims, job_events, jobs
from services.core.db.session import Database
from services.core.db.tables import JanitorRoundRow
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import Claim, Job, JobState, NewJob, Priority

MODEL = "Lungs é"
LEASE_SECONDS = 60.0
POLICY = attempts.RetryPolicy(attempt_limit=3, retry_delay_seconds=0, retention_hours=1)
"""Another attempt may follow at once."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of one database."""

    database: Database

    def clear(self) -> None:
        """No jobs, and the one model that they may name."""
        self.database.run(lambda session: session.execute(delete(Row)))
        self.database.run(lambda session: session.execute(delete(JanitorRoundRow)))
        self.database.run(catalogue.store_family, ModelFamily("Thorax", versions=(ModelVersion(MODEL),)))

    def accept(self, priority: Priority = Priority.INTERACTIVE, **values: Any) -> UUID:
        job_id = uuid4()
        self.database.run(jobs.accept, new_job(job_id, priority))
        if values:
            self.change(job_id, **values)
        return job_id

    def claim(self, lease_seconds: float = LEASE_SECONDS, **conditions: Any) -> Claim | None:
        return self.database.run(claims.claim, worker="w", lease_seconds=lease_seconds, **conditions)

    def claimed(self, lease_seconds: float = LEASE_SECONDS, **values: Any) -> Claim:
        """A new job that is running."""
        job_id = self.accept()
        claim = self.claim(lease_seconds)
        assert claim is not None
        assert claim.job_id == job_id
        if values:
            self.change(job_id, **values)
        return claim

    def change(self, job_id: UUID, **values: Any) -> None:
        """Set columns; a time may be `ago(seconds)`."""
        self.database.run(lambda session: session.execute(update(Row).where(Row.id == job_id).values(**values)))

    def job(self, job_id: UUID) -> Job:
        job = self.database.run(jobs.find, job_id)
        assert job is not None
        return job

    def row(self, job_id: UUID) -> Row:
        row = self.database.run(lambda session: session.get(Row, job_id))
        assert row is not None
        return row

    def state(self, job_id: UUID) -> JobState:
        return self.job(job_id).state

    def kinds(self, job_id: UUID) -> list[str]:
        """What happened to the job, oldest first."""
        return [event.kind.value for event in self.database.run(job_events.of_job, job_id)]

    def succeed(
        self,
        claim: Claim,
        retention_hours: float = 1,
        stage_seconds: Mapping[str, float] = MappingProxyType({"model": 1.5}),
    ) -> bool:
        return self.database.run(
            claims.succeed,
            claim,
            result_file=f"{claim.job_id}.{claim.token}.pb",
            result_bytes=5,
            result_sha256="5" * 64,
            stage_seconds=stage_seconds,
            retention_hours=retention_hours,
        )

    def reap(self, lease_seconds: float = 0, policy: attempts.RetryPolicy = POLICY) -> list[attempts.LostAttempt]:
        return self.database.run(attempts.reap_expired_leases, lease_seconds=lease_seconds, policy=policy)


def new_job(job_id: UUID, priority: Priority = Priority.INTERACTIVE, model_id: str = MODEL) -> NewJob:
    return NewJob(
        id=job_id,
        model_id=model_id,
        input_file=f"{job_id}.pb",
        input_bytes=10,
        voxel_count=2**33,
        client_version="tests 1.0",
        priority=priority,
        remarks="spacing outside the constraints",
    )


def ago(seconds: float) -> Any:
    """A time of the database's clock; negative: still to come."""
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, float(seconds))
