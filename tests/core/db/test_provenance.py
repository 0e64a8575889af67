"""What ran a job is noted by who holds its claim, and by nobody else."""

from services.core.catalogue import Attachment, StoredFile
from services.core.db import catalogue, provenance
from services.core.jobs import Claim, RanWith
from tests.core.db.job_rows import MODEL, Jobs

ATTACHMENT = Attachment(
    runtime="pytorch",
    artifact=StoredFile("a.pt", "a" * 64, 1, "net.pt"),
    module=StoredFile("m.py", "b" * 64, 1, "net.py"),
    options={"inference": {"device": "cpu"}},
)
RAN_WITH = RanWith("pytorch", "a" * 64, "b" * 64, {"inference": {"device": "cpu"}}, "9.8")


def noted(at_hand: Jobs, claim: Claim, software_version: str = "9.8") -> RanWith | None:
    database = at_hand.database
    database.run(provenance.entry_to_run, claim, software_version=software_version)
    return database.run(provenance.of_job, claim.job_id)


def test_what_runs_a_job_is_noted_when_it_is_read(jobs_at_hand: Jobs) -> None:
    # Given a job, before and after its model is attached
    claim = jobs_at_hand.claimed()
    assert jobs_at_hand.database.run(provenance.of_job, claim.job_id) is None
    assert noted(jobs_at_hand, claim) is None
    jobs_at_hand.database.run(catalogue.attach, MODEL, ATTACHMENT)
    # When its worker reads the model, Then the job has what that was
    assert noted(jobs_at_hand, claim) == RAN_WITH
    # When the claim was lost, Then whoever had it notes nothing any more
    jobs_at_hand.change(claim.job_id, claim_token=None)
    assert noted(jobs_at_hand, claim, "10") == RAN_WITH
