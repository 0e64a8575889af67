"""Rows and time lines as PostgreSQL has them, asked directly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Event:
    """One entry of a time line."""

    job_id: UUID
    at: datetime
    kind: str
    attempt: int
    worker: str | None
    details: str

    @property
    def epoch(self) -> float:
        return self.at.timestamp()

    @property
    def pid(self) -> int | None:
        """Of the worker's process that claims."""
        return int(self.worker.rsplit(":", 1)[1]) if self.worker else None


@dataclass(frozen=True)
class Job:
    """One row."""

    id: UUID
    model_id: str
    state: str
    attempt: int
    cancel_requested: bool
    client_version: str
    error_text: str
    input_file: str | None
    result_file: str | None
    result_sha256: str | None
    claim_token: UUID | None


@dataclass(frozen=True)
class Books:
    """At one moment."""

    jobs: dict[UUID, Job]
    events: dict[UUID, list[Event]]
    """Oldest first; a job without any has an empty list."""


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, connect_timeout=CONNECT_SECONDS, autocommit=True) as connection:
        yield connection


def read_books(url: str) -> Books:
    with _connected(url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        jobs = connection.cursor(row_factory=class_row(Job)).execute(
            "SELECT id, model_id, state, attempt, cancel_requested, client_version, error_text, input_file,"
            " result_file, result_sha256, claim_token FROM segmentation_job"
        )
        found = Books({job.id: job for job in jobs}, {})
        found.events.update({job_id: [] for job_id in found.jobs})
        events = connection.cursor(row_factory=class_row(Event)).execute(
            "SELECT job_id, at, kind, attempt, worker, details FROM job_event ORDER BY id"
        )
        for event in events:
            found.events[event.job_id].append(event)
    return found


def unfinished(url: str) -> list[str]:
    """Jobs that are queued or running."""
    with _connected(url) as connection:
        rows = connection.execute(
            "SELECT id, state, attempt FROM segmentation_job WHERE state IN ('queued', 'running') ORDER BY created_at"
        ).fetchall()
    return [f"{job_id} is {state}, attempt {attempt}, long after the last fault" for job_id, state, attempt in rows]


def open_transactions(url: str, older_than_seconds: float) -> list[str]:
    """Transactions that somebody has begun and not ended for that long."""
    with _connected(url) as connection:
        rows = connection.execute(
            "SELECT application_name, state, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND xact_start < now() - make_interval(secs => %s)",
            (older_than_seconds,),
        ).fetchall()
    return [f"{name} is {state} after {query!r}" for name, state, query in rows]
