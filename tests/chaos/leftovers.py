"""What must be gone once everything has settled: files, messages, transactions, processes, memory, scratch."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import redis

from services.core.blobs import INPUTS, RESULTS
from services.core.jobs import JobState
from services.core.queue import QUEUE_NAME
from tests.chaos.books import Books
from tests.chaos.world import World

SHARED_MEMORY = Path("/dev/shm")
FAKETIME_PREFIX = "faketime_"


def stray_files(volume_dir: Path, books: Books) -> list[str]:
    """Files that no row names, and rows whose file is not there."""
    jobs = books.jobs.values()
    named = {
        INPUTS: {job.input_file for job in jobs if job.input_file},
        RESULTS: {job.result_file for job in jobs if job.result_file},
    }
    found = []
    for folder, names in named.items():
        present = {path.name for path in (volume_dir / folder).iterdir()}
        found += [f"{folder}/{name} belongs to no job" for name in sorted(present - names)]
    results = {path.name for path in (volume_dir / RESULTS).iterdir()}
    for job in jobs:
        if job.state != JobState.SUCCEEDED:
            continue
        own = [name for name in results if name.startswith(str(job.id))]
        if own != [job.result_file]:
            found.append(f"{job.id} has succeeded, its row names {job.result_file}, and there are {own}")
    return found


def queued_doorbells(world: World) -> list[str]:
    """Doorbells that idle workers do not fetch."""
    with world.deployment.redis.client() as client:
        count = client.llen(_key(world, QUEUE_NAME))
    return [f"{count} doorbells lie on the queue"] if count else []


def doorbells_of_the_dead(world: World) -> tuple[int, list[str]]:
    """How many doorbells count as fetched and not done, and messages that nothing refers to.

    Dramatiq gives a dead worker's doorbells back to the queue when one of its commands, one in a thousand, does the
    maintenance, and not before that worker has been silent for a minute. Nobody waits for them: the janitor has rung
    again long before.
    """
    with world.deployment.redis.client() as client:
        held: set[bytes] = set()
        for key in client.scan_iter(_key(world, "__acks__.*")):
            held |= _members(client, key)
        messages = set(client.hkeys(_key(world, f"{QUEUE_NAME}.msgs")))
        waiting = set(client.lrange(_key(world, QUEUE_NAME), 0, -1))
    lost = messages - held - waiting
    return len(held), [f"the message {message.decode()} is on no list" for message in sorted(lost)]


def processes_left(world: World) -> list[str]:
    """Descendants of this process, orphans included, that run and are not servers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.pid not in world.servers() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} runs still: {' '.join(process.cmdline())[:200]}")
        except psutil.NoSuchProcess:
            continue
    return found


def scratch_left(world: World) -> list[str]:
    """Folders of model hosts. The lock file stays."""
    if not world.scratch_dir.is_dir():
        return []
    return [f"scratch folder {path.name}" for path in world.scratch_dir.iterdir() if path.name != ".lock"]


def shared_memory() -> set[str]:
    """Named segments on this machine that nobody has mapped: whoever made them has left them behind."""
    names = {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
    for process in psutil.process_iter():
        if not names:
            break
        with suppress(OSError):
            mapped = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            names -= {name for name in names if f"{SHARED_MEMORY}/{name}" in mapped}
    return {name for name in names if not name.removeprefix("sem.").startswith(FAKETIME_PREFIX)}


def remove_faketime_segments() -> None:
    """What libfaketime leaves behind when a process with a clock of its own is killed."""
    for process_id, path in _faketime_segments():
        if not psutil.pid_exists(process_id):
            path.unlink(missing_ok=True)


def _faketime_segments() -> Iterator[tuple[int, Path]]:
    for path in SHARED_MEMORY.glob(f"*{FAKETIME_PREFIX}*"):
        number = path.name.rsplit("_", 1)[1]
        if number.isdecimal():
            yield int(number), path


def _key(world: World, name: str) -> str:
    return f"{world.deployment.settings.redis_namespace}:{name}"


def _members(client: redis.Redis, key: bytes) -> set[bytes]:
    members: set[bytes] = client.smembers(key)  # type: ignore[assignment] # typed for both kinds of client
    return members
