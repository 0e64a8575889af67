"""The figures of the console's first page."""

from datetime import UTC, datetime

from services.core.db import feedback
from services.core.db.overview import HOURS, Failure, Score, Stage, overview
from services.core.feedback import Feedback
from services.core.jobs import JobState
from tests.core.db.job_rows import MODEL, Jobs, ago


def test_the_overview_counts_what_waits_what_ended_and_what_users_thought(jobs_at_hand: Jobs) -> None:
    # Given jobs that wait, that succeeded and that failed, lately and long ago
    jobs_at_hand.accept(created_at=ago(120))
    jobs_at_hand.accept(created_at=ago(60))
    succeeded = [
        jobs_at_hand.accept(
            state=JobState.SUCCEEDED, run_seconds=3.0, finished_at=ago(1), stage_seconds={"run": seconds, "read": 0.5}
        )
        for seconds in (1.0, 2.0, 6.0)
    ]
    for age, reason in ((1, "no memory"), (2, "no memory"), (3, "not gzip"), (30 * 24 * 3600, "forgotten")):
        jobs_at_hand.accept(state=JobState.FAILED, error_code=1, error_text=reason, finished_at=ago(age))
    # And scores of two of them, a report without a score, and one on no job
    for job, score in ((succeeded[0], 4.0), (succeeded[1], 1.0), (succeeded[2], None), (None, 5.0)):
        jobs_at_hand.database.run(feedback.store_feedback, Feedback(segmentation_id="x", score=score), job_id=job)
    # When somebody looks
    found = jobs_at_hand.database.run(overview)
    # Then each figure is that of the jobs that it is about
    counted = [found.states[state] for state in (JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED)]
    assert counted == [2, 3, 4]
    assert 115 < found.oldest_queued_seconds < 300
    assert len(found.hours) == HOURS
    assert found.hours[-1].at <= datetime.now(UTC)
    assert (sum(hour.succeeded for hour in found.hours), sum(hour.failed for hour in found.hours)) == (3, 3)
    assert set(found.stages) == {Stage("run", 2.0), Stage("read", 0.5)}
    assert list(found.failures) == [Failure("no memory", 2), Failure("not gzip", 1)]
    assert list(found.scores) == [Score(MODEL, 2.5, 2)]
    assert (found.versions, found.published) == (1, 0)
    assert found.workers.names == ()
