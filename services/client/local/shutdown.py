"""`segint down`: ending what a supervisor runs or, after it was killed, what it left behind."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

from services.client.local.data_dir import DataDir, DeploymentState
from services.client.local.faults import AlreadyRunning
from services.client.local.identity import left_behind
from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis

STOP_SIGNALS = {"postgres": LocalPostgres.STOP_SIGNAL}
"""Every other process stops on SIGTERM."""
PATIENCE_SECONDS = 10.0
"""What leftovers get to end by themselves: nobody waits for their work any more, but files should be whole."""
SUPERVISOR_STOP_LIMIT_SECONDS = 120.0
"""Longer than any drain and kill that the supervisor does itself."""
PUBLISH_LIMIT_SECONDS = 10.0
"""How long a supervisor may take from its lock to its first published state."""
POLL_SECONDS = 0.05


def take_down(data_dir: DataDir) -> bool:
    """Stop the deployment of that directory and wait until it is gone.

    Returns:
        Whether anything ran.

    Raises:
        AlreadyRunning: somebody holds the lock and nothing says who, or nothing ends it.
    """
    if not data_dir.exists():
        return False
    lock = data_dir.try_lock()
    stopped = lock is None
    if lock is None:
        lock = _end_supervisor(data_dir)
    try:
        left = data_dir.recorded_state()
        if left is not None:
            stopped = bool(end_leftovers(data_dir, left)) or stopped
            data_dir.forget_state()
    finally:
        os.close(lock)
    return stopped


def _end_supervisor(data_dir: DataDir) -> int:
    """Stop whoever holds the lock; the lock, once it is free."""
    locks: list[int] = []

    def free() -> bool:
        lock = data_dir.try_lock()
        if lock is not None:
            locks.append(lock)
        return bool(locks)

    wait_until(lambda: data_dir.running_state() is not None or free(), PUBLISH_LIMIT_SECONDS)
    state = data_dir.running_state()
    if state is not None and not locks:
        state.supervisor.send(signal.SIGTERM)
        if not wait_until(free, SUPERVISOR_STOP_LIMIT_SECONDS):
            state.supervisor.send(signal.SIGKILL)
            wait_until(free, PATIENCE_SECONDS)
        # It gives up the lock shortly before its own end.
        wait_until(lambda: state.supervisor.process() is None, PATIENCE_SECONDS)
    if not locks:
        raise AlreadyRunning(
            f"A process holds {data_dir.root} and does not end; see {data_dir.log('supervisor')} and end it by hand."
        )
    return locks[0]


def end_leftovers(data_dir: DataDir, state: DeploymentState) -> list[str]:
    """End the processes of a deployment whose supervisor is gone, and remove what it left outside its directory.

    Call it while holding the lock of the data directory. A process id that was given to somebody else since is
    recognised and left alone.

    Returns:
        The names of what still ran.
    """
    leaders = {name: record.identity for name, record in state.processes.items() if record.identity is not None}
    found = [name for name, leader in leaders.items() if left_behind(leader, data_dir.root)]
    for name in found:
        leaders[name].send(STOP_SIGNALS.get(name, signal.SIGTERM))
        leaders[name].send(signal.SIGCONT)  # one that was stopped would not act on it

    def remaining() -> list[psutil.Process]:
        left = []
        for leader in (leaders[name] for name in found):
            session = left_behind(leader, data_dir.root)
            if leader.process() is None:
                _kill(session)  # nobody is left to tell them to stop
            left += session
        return left

    if not wait_until(lambda: not remaining(), PATIENCE_SECONDS):
        _kill(remaining())
        wait_until(lambda: not remaining(), PATIENCE_SECONDS)
    LocalPostgres(data_dir.postgres).release()
    LocalRedis(data_dir.redis).release()
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def wait_until(condition: Callable[[], bool], limit_seconds: float) -> bool:
    """Poll the condition until it holds; False when it did not within the limit."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
