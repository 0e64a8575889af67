"""What a server tells of a job, as it comes over the wire: JSON."""

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from services.core.errors import MalformedMessage
from services.core.jobs import UNFINISHED


class _Document(BaseModel):
    """Frozen; fields that a newer server adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JobFault(_Document):
    """Why a job failed."""

    code: str
    text: str


class JobFile(_Document):
    """A request or a result."""

    bytes: int
    sha256: str | None = None


class JobEvent(_Document):
    """One line of a job's history."""

    at: AwareDatetime
    kind: str
    attempt: int
    worker: str | None = None
    details: str = ""


class RanWith(_Document):
    """What ran its last attempt. Digests are SHA-256, hexadecimal."""

    runtime: str
    model_sha256: str | None = None
    module_sha256: str | None = None
    options: dict[str, Any] = {}
    software_version: str = ""


class JobPage(_Document):
    """A job and its surroundings. States and kinds are text: a newer server may know more of them."""

    id: UUID
    model: str
    state: str
    priority: str
    percent: int
    attempt: int
    attempt_limit: int
    cancel_requested: bool = False
    queue_position: int | None = None
    """1 is next; None unless it waits."""
    remaining_seconds: float | None = None
    obstacle: str = ""
    """Why no worker that is there will take it."""
    worker: str | None = None
    created_at: AwareDatetime
    claimed_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    error: JobFault | None = None
    remarks: str = ""
    submitted_by: str = ""
    ran_with: RanWith | None = None
    stage_seconds: dict[str, float] = {}
    input: JobFile | None = None
    result: JobFile | None = None
    events: tuple[JobEvent, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more but its expiry."""
        return self.state not in UNFINISHED


def decode_job_page(data: bytes | str) -> JobPage:
    """A server's JSON document of a job.

    Raises:
        MalformedMessage: it is something else.
    """
    try:
        return JobPage.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise MalformedMessage(f"its job document is not understood: {where or 'JSON'}: {fault['msg']}") from error
