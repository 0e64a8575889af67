"""Whatever is done to a job in whatever order, its state only ever takes legal steps."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.core.db import cancellation, retention, stored_files
from services.core.jobs import COMPLETE_PERCENT, FINISHED, TRANSITIONS, Claim, JobErrorCode, JobState, KeepInputs
from tests.core.db.job_rows import POLICY, Jobs, ago
from tests.core.db.test_running import beat, cancel, fail, lose, release

Step = Callable[[Jobs, Claim], object]


def claim_next(at_hand: Jobs, _: Claim) -> object:
    return at_hand.claim(lease_seconds=0)


STEPS: dict[str, Step] = {
    "claim": claim_next,
    "beat": lambda at_hand, claim: beat(at_hand, claim, 100, lease_seconds=0),
    "succeed": lambda at_hand, claim: at_hand.succeed(claim, retention_hours=0),
    "fail": fail,
    "cancel": cancel,
    "lose": lose,
    "release": release,
    "reap": lambda at_hand, _: at_hand.reap(),
    "expire": lambda at_hand, _: at_hand.database.run(retention.expire),
    "expire now": lambda at_hand, claim: at_hand.database.run(retention.expire_now, claim.job_id),
    "ask to cancel": lambda at_hand, claim: at_hand.database.run(
        cancellation.request_cancel, claim.job_id, retention_hours=0, actor="command"
    ),
    "miss the input": lambda at_hand, claim: at_hand.database.run(
        stored_files.fail_without_input, [claim.job_id], retention_hours=0
    ),
    "miss the result": lambda at_hand, claim: at_hand.database.run(
        stored_files.fail_result, [claim.job_id], "is gone", retention_hours=0
    ),
    "tidy": lambda at_hand, _: at_hand.database.run(
        retention.forget_files, at_hand.database.run(retention.deletable_files, KeepInputs.NEVER)
    ),
}

EXPECTED: dict[tuple[JobState, str], JobState] = {
    (JobState.QUEUED, "claim"): JobState.RUNNING,
    (JobState.RUNNING, "succeed"): JobState.SUCCEEDED,
    (JobState.RUNNING, "fail"): JobState.FAILED,
    (JobState.RUNNING, "cancel"): JobState.CANCELLED,
    (JobState.RUNNING, "lose"): JobState.QUEUED,
    (JobState.RUNNING, "release"): JobState.QUEUED,
    (JobState.RUNNING, "reap"): JobState.QUEUED,
    (JobState.QUEUED, "ask to cancel"): JobState.CANCELLED,
    (JobState.QUEUED, "miss the input"): JobState.FAILED,
    (JobState.SUCCEEDED, "miss the result"): JobState.FAILED,
    (JobState.SUCCEEDED, "expire"): JobState.EXPIRED,
    (JobState.SUCCEEDED, "expire now"): JobState.EXPIRED,
    (JobState.FAILED, "expire"): JobState.EXPIRED,
    (JobState.CANCELLED, "expire"): JobState.EXPIRED,
}
"""Every change that one step makes; every other step leaves the state as it is."""


ENDS_WITH = {
    JobState.QUEUED: {"lost", "released"},
    JobState.RUNNING: {"claimed", "cancel_requested"},
    JobState.SUCCEEDED: {"succeeded"},
    JobState.FAILED: {"failed"},
    JobState.CANCELLED: {"cancelled"},
    JobState.EXPIRED: {"expired"},
}
"""The last event of a job in each state."""


def test_every_state_has_its_transitions_and_expired_has_none() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert TRANSITIONS[JobState.EXPIRED] == frozenset()
    assert all(before is not after for before, some in TRANSITIONS.items() for after in some)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", JobState)
def test_each_step_from_each_state(jobs_at_hand: Jobs, state: JobState, step: str) -> None:
    # Given a job in that state, whose token is still known
    claim = jobs_at_hand.claimed(lease_seconds=0, state=state.value, expires_at=ago(1))
    # When the step is taken
    STEPS[step](jobs_at_hand, claim)
    # Then the state is what the table says, and the step is legal
    after = jobs_at_hand.state(claim.job_id)
    assert after is EXPECTED.get((state, step), state)
    assert after is state or after in TRANSITIONS[state]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=4, max_size=14))
def test_any_sequence_of_steps_is_legal(jobs_at_hand: Jobs, names: list[str]) -> None:
    # Given a running job
    jobs_at_hand.clear()
    claim = jobs_at_hand.claimed(lease_seconds=0)
    before = jobs_at_hand.row(claim.job_id)
    for name in names:
        # When the holder of the last claim, another worker or the janitor takes a step
        taken = STEPS[name](jobs_at_hand, claim)
        claim = taken if isinstance(taken, Claim) else claim
        # Then it is a legal one, and the row makes sense
        row = jobs_at_hand.row(claim.job_id)
        old, new = JobState(before.state), JobState(row.state)
        assert new is old or new in TRANSITIONS[old], name
        is_running = new is JobState.RUNNING
        assert (row.claim_token is not None, row.lease_expires_at is not None) == (is_running, is_running)
        assert 0 <= row.attempt <= POLICY.attempt_limit
        if new in FINISHED:
            assert row.finished_at is not None
            assert row.expires_at is not None
        if new is JobState.SUCCEEDED:
            assert row.progress_percent == COMPLETE_PERCENT
        assert (row.result_file is not None) <= (new in (JobState.SUCCEEDED, JobState.EXPIRED, JobState.FAILED))
        # and the time line ends with what the row says
        kinds = jobs_at_hand.kinds(claim.job_id)
        assert kinds[-1] in ENDS_WITH[new], (name, kinds)
        if new is JobState.FAILED:
            assert row.error_code != JobErrorCode.NONE
            assert row.error_text
        before = row
