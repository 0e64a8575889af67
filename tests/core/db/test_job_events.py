"""The time line: every transition is in it, in order, with who and why."""

from services.core.db import attempts, cancellation, claims, job_events, retention, stored_files
from services.core.jobs import JobErrorCode, JobEventKind, JobState
from tests.core.db.job_rows import POLICY, Jobs


def test_the_life_of_a_job_that_needed_three_attempts(jobs_at_hand: Jobs) -> None:
    database = jobs_at_hand.database
    # Given a job whose first worker stops, whose second dies, and whose third finishes
    first = jobs_at_hand.claimed()
    assert database.run(claims.release, first)
    second = jobs_at_hand.claim(lease_seconds=0)
    assert jobs_at_hand.reap()
    third = jobs_at_hand.claim()
    assert second is not None
    assert third is not None
    assert jobs_at_hand.succeed(third, retention_hours=0)
    assert database.run(retention.expire) == 1
    # When its time line is read
    events = database.run(job_events.of_job, first.job_id)
    # Then all of it is there
    assert [(event.kind.value, event.attempt, event.worker) for event in events] == [
        ("accepted", 0, None),
        ("claimed", 1, "w"),
        ("released", 1, "w"),
        ("claimed", 1, "w"),
        ("lost", 1, "w"),
        ("claimed", 2, "w"),
        ("succeeded", 2, "w"),
        ("expired", 0, None),
    ]
    assert events[0].details == "spacing outside the constraints"
    assert "told to stop" in events[2].details
    assert "stopped answering" in events[4].details
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_each_end_says_why(jobs_at_hand: Jobs) -> None:
    database = jobs_at_hand.database
    failed, cancelled, crashed = (jobs_at_hand.claimed() for _ in range(3))
    database.run(claims.fail, failed, code=JobErrorCode.DECOMPRESSION, reason="not gzip\0", retention_hours=1)
    database.run(cancellation.request_cancel, cancelled.job_id, retention_hours=1, actor="command")
    database.run(claims.cancel_claimed, cancelled, retention_hours=1)
    database.run(attempts.lose_attempt, crashed, reason="it crashed", policy=POLICY)
    ends = {claim.job_id: database.run(job_events.of_job, claim.job_id)[-1] for claim in (failed, cancelled, crashed)}
    assert (ends[failed.job_id].kind, ends[failed.job_id].details) == (JobEventKind.FAILED, "not gzip\ufffd")
    assert ends[cancelled.job_id].kind is JobEventKind.CANCELLED
    assert (ends[crashed.job_id].kind, ends[crashed.job_id].details) == (JobEventKind.LOST, "it crashed")


def test_what_did_not_happen_is_not_recorded(jobs_at_hand: Jobs) -> None:
    # Given a worker that lost its claim
    claim = jobs_at_hand.claimed(lease_seconds=0)
    jobs_at_hand.reap()
    before = jobs_at_hand.kinds(claim.job_id)
    # When it tries every end
    database = jobs_at_hand.database
    assert not jobs_at_hand.succeed(claim)
    assert not database.run(claims.fail, claim, code=JobErrorCode.INTERNAL, reason="x", retention_hours=1)
    assert not database.run(claims.release, claim)
    assert not database.run(claims.cancel_claimed, claim, retention_hours=1)
    assert database.run(attempts.lose_attempt, claim, reason="x", policy=POLICY) is None
    # Then nothing is added
    assert jobs_at_hand.kinds(claim.job_id) == before


def test_a_result_found_damaged_is_in_the_time_line(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    assert jobs_at_hand.succeed(claim)
    failed = jobs_at_hand.database.run(
        stored_files.fail_result, [claim.job_id], "was damaged on the server's volume", retention_hours=1
    )
    assert failed == [claim.job_id]
    job = jobs_at_hand.job(claim.job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, JobErrorCode.INTERNAL)
    assert job.error_text == "The result was damaged on the server's volume; submit the volume again."
    assert jobs_at_hand.kinds(claim.job_id) == ["accepted", "claimed", "succeeded", "failed"]


def test_a_fetch_that_may_happen_once_is_in_the_time_line(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    assert jobs_at_hand.succeed(claim)
    for _ in range(2):
        jobs_at_hand.database.run(retention.expire_now, claim.job_id)
    assert jobs_at_hand.kinds(claim.job_id) == ["accepted", "claimed", "succeeded", "expired"]
