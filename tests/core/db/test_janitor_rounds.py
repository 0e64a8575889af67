"""The guard over leases: a gap in the janitors' rounds is an outage, and says nothing of the workers."""

from sqlalchemy import select, update

from services.core.db import janitor_rounds
from services.core.db.tables import JanitorRoundRow
from tests.core.db.job_rows import Jobs, ago

LEASE_SECONDS = 30.0


def note(at_hand: Jobs) -> bool:
    return at_hand.database.run(janitor_rounds.note_round, lease_seconds=LEASE_SECONDS)


def was_last(at_hand: Jobs, seconds: float, **values: object) -> None:
    change = update(JanitorRoundRow).values(last_at=ago(seconds), **values)
    at_hand.database.run(lambda session: session.execute(change))


def test_the_first_janitor_of_all_may_reap(jobs_at_hand: Jobs) -> None:
    assert note(jobs_at_hand)


def test_rounds_that_follow_each_other_may_reap(jobs_at_hand: Jobs) -> None:
    note(jobs_at_hand)
    was_last(jobs_at_hand, LEASE_SECONDS / 3 - 2)
    assert note(jobs_at_hand)


def test_after_a_gap_nothing_is_reaped_for_one_lease(jobs_at_hand: Jobs) -> None:
    # Given that no janitor reached the database for longer than a third of a lease
    note(jobs_at_hand)
    was_last(jobs_at_hand, LEASE_SECONDS / 3 + 1)
    # Then rounds may not reap
    assert not note(jobs_at_hand)
    assert not note(jobs_at_hand)
    row = jobs_at_hand.database.run(lambda session: session.scalars(select(JanitorRoundRow)).one())
    assert (row.reap_after - row.last_at).total_seconds() <= LEASE_SECONDS
    # until the lease after the gap is over
    was_last(jobs_at_hand, 1, reap_after=ago(0.1))
    assert note(jobs_at_hand)


def test_a_gap_within_the_wait_starts_it_anew(jobs_at_hand: Jobs) -> None:
    note(jobs_at_hand)
    was_last(jobs_at_hand, LEASE_SECONDS, reap_after=ago(1))
    assert not note(jobs_at_hand)
