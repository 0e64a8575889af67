"""`segint cancel`: end a segmentation that waits or runs."""

from typing import TYPE_CHECKING
from uuid import UUID

from services.client.job_id import JobIdArgument, job_id_in
from services.client.server_options import DEFAULT_SERVER, ServerOption, TokenOption
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text
from services.core.errors import SegIntError
from services.core.jobs import JobState

if TYPE_CHECKING:
    from services.client.api_client import SegIntClient


class NothingToCancel(SegIntError):
    """A segmentation that has finished otherwise."""

    summary = "Nothing to cancel"


def cancel(
    segmentation_id: JobIdArgument,
    server: ServerOption = DEFAULT_SERVER,
    token: TokenOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Cancel a segmentation that waits or runs.

    Example: segint cancel 7d3f1c9e-5a43-4b2e-9f0a-3c1f6d0e8b21
    """
    with faults_as_one_line(as_json):
        from services.client.api_client import SegIntClient

        job_id = job_id_in(segmentation_id)
        with SegIntClient(server, token) as client:
            outcome, sentence = _cancel(client, job_id)
        if as_json:
            print_json({"id": str(job_id), "outcome": outcome})
        else:
            print_text(sentence)


def _cancel(client: "SegIntClient", job_id: UUID) -> tuple[str, str]:
    """What became of it: in one word, and in a sentence."""
    from services.client.api_client import Cancelling
    from services.client.faults import Refused

    before = client.job(job_id)
    try:
        done = client.cancel(before.model, job_id)
    except Refused:
        now = client.job(job_id)
        if not now.finished:
            raise
        raise NothingToCancel(f"Segmentation {job_id} had already {_ended(now.state)}.") from None
    if done is Cancelling.STOPPING:
        return "stopping", f"Segmentation {job_id} is running; it will be stopped within seconds."
    if before.state == JobState.CANCELLED:
        return "cancelled", f"Segmentation {job_id} had been cancelled before."
    return "cancelled", f"Segmentation {job_id} was cancelled while it waited."


def _ended(state: str) -> str:
    return {JobState.SUCCEEDED.value: "succeeded", JobState.FAILED.value: "failed"}.get(state, "finished and expired")
