"""Killing, freezing and restarting a deployment's processes: one alone, a worker whole, or everything below it."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

import psutil

from services.client.local import children
from tests.deployment import Deployment

RESTART_INTERVAL_SECONDS = 0.1


def worker_processes(deployment: Deployment, name: str = "worker") -> list[psutil.Process]:
    """Dramatiq's processes of a worker, its first one first; not the model hosts below them."""
    first = psutil.Process(deployment.processes[name].pid)
    return [first, *first.children()]


def hosts_of(deployment: Deployment, name: str = "worker") -> list[psutil.Process]:
    """The model host processes below a worker."""
    below = psutil.Process(deployment.processes[name].pid).children(recursive=True)
    return [process for process in below if any("host_process" in part for part in process.cmdline())]


def tree_of(deployment: Deployment, name: str) -> list[psutil.Process]:
    """A process and everything below it."""
    first = psutil.Process(deployment.processes[name].pid)
    return [first, *first.children(recursive=True)]


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; a zombie that nobody has reaped yet runs no more."""
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def kill(deployment: Deployment, name: str) -> None:
    """Kill one process and nothing that it started; the deployment forgets it."""
    process = deployment.processes.pop(name)
    process.kill()
    process.wait()


def kill_worker(deployment: Deployment, name: str = "worker") -> None:
    """Kill all of Dramatiq's processes of a worker at once; its model hosts have to end by themselves."""
    kill_at_once(worker_processes(deployment, name))
    deployment.processes.pop(name).wait()


def kill_at_once(processes: Sequence[psutil.Process]) -> None:
    """Kill processes none of which gets to see another's end."""
    _send(processes, signal.SIGSTOP)
    _send(processes, signal.SIGKILL)


def freeze(processes: Sequence[psutil.Process]) -> None:
    """Stop them where they are; they end nothing and answer nothing until `thaw`."""
    _send(processes, signal.SIGSTOP)


def thaw(processes: Sequence[psutil.Process]) -> None:
    """Let frozen processes go on."""
    _send(processes, signal.SIGCONT)


@contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Frozen until the block ends."""
    freeze(processes)
    try:
        yield
    finally:
        thaw(processes)


def _send(processes: Sequence[psutil.Process], what: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(what)


class Supervisor:
    """Starts each of a deployment's processes again when it ends, as a container platform does, while in its context.

    A process that `Deployment.stop`, `kill` or `kill_worker` has made the deployment forget stays away: kill by
    `kill_at_once`, or by a process's own number, what is to come back.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.restarts: Counter[str] = Counter()
        self._deployment = deployment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_INTERVAL_SECONDS):
            for name, process in list(self._deployment.processes.items()):
                # What a killed first process leaves of its group is killed here, as with a container.
                if children.has_ended(process) and self._deployment.processes.get(name) is process:
                    self._deployment.start_again(name)
                    self.restarts[name] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
