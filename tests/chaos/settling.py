"""After the faults: waits, never for ever, until everything has settled, and tells what has not."""

import time
from collections.abc import Callable

import psycopg
import redis

from services.client.local.postgres import DATABASE
from tests.chaos import books, leftovers
from tests.chaos.journal import Journal, Wrong
from tests.chaos.world import ORPHAN_SECONDS, World

LOOK_SECONDS = 0.3
QUIET_SECONDS = 20.0
"""For what should go within a second or two."""
FILES_SECONDS = 2 * ORPHAN_SECONDS + 10
"""A file is believed an orphan after one such time, counted anew when the process that looks changes."""
OPEN_SECONDS = 3.0


def settle(world: World, journal: Journal, until: float) -> None:
    """Wait until nothing is queued or running, then until nothing is left lying about. Tells violations.

    Args:
        world: with everything healed.
        journal: for what does not settle.
        until: when jobs have had time enough, on the monotonic clock.
    """
    url = world.deployment.postgres.url(DATABASE)
    drain_seconds = max(0.0, until - time.monotonic())
    _wait(journal, Wrong.STUCK, lambda: [] if world.supervisor.all_up() else ["a process does not come up"])
    _wait(journal, Wrong.STUCK, lambda: books.unfinished(url), drain_seconds)
    _wait(journal, Wrong.LEAKED, lambda: leftovers.queued_doorbells(world))
    _wait(journal, Wrong.LEAKED, lambda: books.open_transactions(url, OPEN_SECONDS))
    _wait(
        journal,
        Wrong.LEAKED,
        lambda: leftovers.stray_files(world.volume_dir, books.read_books(url)),
        FILES_SECONDS,
    )


def shut_down(world: World, journal: Journal, segments_before: set[str]) -> None:
    """End the deployment's processes as a platform does, and see that nothing of them stays. Tells violations."""
    world.supervisor.stop()
    try:
        world.deployment.stop()
    except AssertionError as late:
        journal.violated(Wrong.STUCK, str(late))
    _wait(journal, Wrong.LEAKED, lambda: leftovers.processes_left(world))
    for text in leftovers.scratch_left(world):
        journal.violated(Wrong.LEAKED, text)
    leftovers.remove_faketime_segments()
    for name in sorted(leftovers.shared_memory() - segments_before):
        journal.violated(Wrong.LEAKED, f"shared memory {name}")


def _wait(journal: Journal, wrong: Wrong, left: Callable[[], list[str]], limit_seconds: float = QUIET_SECONDS) -> None:
    """Until `left` is empty; what it still holds at the limit are violations."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            found = left()
        except (psycopg.Error, redis.RedisError) as error:
            found = [f"it cannot be told: {error!r}"]
        if not found:
            return
        if time.monotonic() > deadline:
            for text in found:
                journal.violated(wrong, text)
            return
        time.sleep(LOOK_SECONDS)
