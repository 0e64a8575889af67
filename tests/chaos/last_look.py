"""Every result once more, as any client may fetch it: the right one, or refused."""

import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from urllib.parse import quote

from services.core.blobs import RESULTS
from services.core.jobs import JobState
from tests.chaos.books import Books
from tests.chaos.journal import Journal, Wrong
from tests.chaos.line import Line, refusal_of
from tests.chaos.submission import Order, Submission
from tests.chaos.workstation import fault_of
from tests.chaos.world import World

TRIES = 5


def fetch_everything(
    world: World, urls: Mapping[str, str], journal: Journal, submissions: Sequence[Submission], books: Books
) -> int:
    """Fetch the result of every job that has succeeded; returns how many were right.

    One that is refused must have been damaged: the audit, which reads the rows afterwards, sees to that.
    """
    orders = {label: submission.order for submission in submissions for label in submission.tries}
    line = Line(urls, journal, Random("last look"))
    right = 0
    for job in books.jobs.values():
        order = orders.get(job.client_version)
        if job.state != JobState.SUCCEEDED or order is None or job.result_file is None:
            continue
        path = f"/api/v2/Model/{quote(job.model_id, safe='')}/segmentation/{job.id}/result"
        fault = _fault(line, path, order, journal)
        if fault is None:
            continue
        if not fault and _digest(world, job.result_file) != job.result_sha256:
            fault = "its file is not what its row says"
        if fault:
            journal.violated(Wrong.RESULT, f"{job.id} ({job.client_version}), at the end: {fault}")
        right += not fault
    line.close()
    return right


def _fault(line: Line, path: str, order: Order, journal: Journal) -> str | None:
    """What is wrong with what was given, or empty; None where it was refused."""
    for _ in range(TRIES):
        response = line.ask("GET result", "GET", path)
        if response is None:
            continue
        if response.status_code == 400:
            if "damaged" not in refusal_of(response)[1] and "not on the server" not in refusal_of(response)[1]:
                journal.violated(Wrong.RESULT, f"{path}: {refusal_of(response)}")
            return None
        return fault_of(response.content, response.headers.get("etag", "").strip('"'), order)
    return "nobody gave it"


def _digest(world: World, name: str) -> str:
    return hashlib.sha256((world.volume_dir / RESULTS / name).read_bytes()).hexdigest()
