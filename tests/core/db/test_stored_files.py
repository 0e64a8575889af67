"""Which files rows name, and what becomes of rows whose file is gone."""

import pytest

from services.core.db import stored_files
from services.core.jobs import FINISHED, JobErrorCode, JobState
from tests.core.db.job_rows import Jobs


def test_every_file_that_a_row_names_is_listed(jobs_at_hand: Jobs) -> None:
    # Given a job that runs, and one in every other state, with an input and a result
    running = jobs_at_hand.claimed()
    by_state = {
        state: jobs_at_hand.accept(state=state.value, result_file=f"r-{state}")
        for state in sorted(FINISHED | {JobState.QUEUED})
    }
    gone = jobs_at_hand.accept(state=JobState.EXPIRED.value, input_file=None)
    # When the named files are asked for
    named = jobs_at_hand.database.run(stored_files.named_files)
    # Then they are all there
    assert named.inputs == {f"{job_id}.pb" for job_id in [*by_state.values(), running.job_id]}
    assert f"{gone}.pb" not in named.inputs
    assert named.results == {f"r-{state}" for state in by_state}
    assert named.attempts == {(running.job_id, running.token)}
    # and those without which a job cannot go on or has nothing to show
    assert named.needed_inputs == {f"{by_state[JobState.QUEUED]}.pb": by_state[JobState.QUEUED]}
    assert named.needed_results == {"r-succeeded": by_state[JobState.SUCCEEDED]}


@pytest.mark.parametrize("state", JobState)
def test_only_a_waiting_job_fails_for_want_of_its_input(jobs_at_hand: Jobs, state: JobState) -> None:
    job_id = jobs_at_hand.accept(state=state.value)
    failed = jobs_at_hand.database.run(stored_files.fail_without_input, [job_id], retention_hours=1)
    job = jobs_at_hand.job(job_id)
    if state is JobState.QUEUED:
        assert failed == [job_id]
        assert (job.state, job.error_code) == (JobState.FAILED, JobErrorCode.INTERNAL)
        assert "submit it again" in job.error_text
        assert job.finished_at is not None
        assert job.expires_at is not None
        assert jobs_at_hand.kinds(job_id) == ["accepted", "failed"]
    else:
        assert failed == []
        assert job.state is state


@pytest.mark.parametrize("state", JobState)
def test_only_a_succeeded_job_fails_for_want_of_its_result(jobs_at_hand: Jobs, state: JobState) -> None:
    job_id = jobs_at_hand.accept(state=state.value)
    failed = jobs_at_hand.database.run(stored_files.fail_result, [job_id], "is gone", retention_hours=1)
    assert (failed == [job_id]) == (state is JobState.SUCCEEDED)
    assert (jobs_at_hand.state(job_id) is JobState.FAILED) == (state in (JobState.SUCCEEDED, JobState.FAILED))
