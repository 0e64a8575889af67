"""PostgreSQL that restarts, freezes, loses a backend, or cannot be reached."""

import signal
from collections.abc import Mapping
from random import Random

import psutil
import psycopg

from services.client.local.postgres import DATABASE
from tests.chaos.fault import Inject, Injected
from tests.chaos.traps import let_go
from tests.chaos.world import WORKERS, Nothing, World
from tests.deployment import wait_for
from tests.faults.processes import freeze, kill_at_once, thaw, worker_processes

MOMENTS: Mapping[str, tuple[str, ...]] = {
    "accept": ("INSERT INTO segmentation_job ",),
    "claim": ("UPDATE segmentation_job", "SKIP LOCKED"),
    "finish": ("UPDATE segmentation_job", "stage_seconds="),
}
"""What tells the statements that matter most from others."""


def restart(stop_signal: signal.Signals) -> Inject:
    """Shut down in that way, and started again when the fault heals."""

    def stop(world: World, victim: str, random: Random) -> Injected:
        server = world.deployment.postgres
        server.end(stop_signal)
        return Injected(heal=server.start)

    return stop


def freeze_server(world: World, victim: str, random: Random) -> Injected:
    processes = world.deployment.postgres.processes()
    freeze(processes)
    return Injected(heal=lambda: thaw(processes))


def freeze_backend(world: World, client: str, random: Random) -> Injected:
    """One connection of that process gets no answer, and holds what it has locked."""
    backend = _backend(world, client, random)
    freeze([backend])
    return Injected(f"a backend of {client}", _pids_of(world, client), lambda: thaw([backend]))


def terminate_backend(world: World, client: str, random: Random) -> Injected:
    backend = _backend(world, client, random)
    backend.terminate()
    return Injected(f"a backend of {client}", _pids_of(world, client))


def kill_backend(world: World, client: str, random: Random) -> Injected:
    """As by the kernel when memory runs out: the server drops every connection and recovers, which is the healing."""
    backend = _backend(world, client, random)
    kill_at_once([backend])
    return Injected(f"a backend of {client}", _pids_of(world, client), lambda: _wait_for_recovery(world))


def cut(world: World, victim: str, random: Random) -> Injected:
    """Every connection ends at once, and none can be made until the fault heals."""
    proxy = world.deployment.postgres_proxy
    proxy.refuse()
    return Injected(f"{proxy.cut()} connections", heal=lambda: proxy.refuse(False))


def freeze_network(world: World, victim: str, random: Random) -> Injected:
    """Nothing passes between PostgreSQL and anybody, and nobody is told."""
    proxy = world.deployment.postgres_proxy
    proxy.freeze()
    return Injected(heal=proxy.thaw)


def lose_commit(moment: str) -> Inject:
    """The next commit at that moment of a job's life happens, and its sender is cut off before it is told."""

    def lose(world: World, victim: str, random: Random) -> Injected:
        proxy = world.deployment.postgres_proxy
        trap = proxy.lose_reply("COMMIT", *MOMENTS[moment])
        return Injected(moment, heal=lambda: let_go(proxy, trap))

    return lose


def _wait_for_recovery(world: World) -> None:
    def answers() -> bool:
        try:
            psycopg.connect(world.deployment.postgres.url(DATABASE), connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_for(answers, "PostgreSQL to recover")


def _backend(world: World, client: str, random: Random) -> psutil.Process:
    backends = sorted(world.deployment.postgres.backends_of(client), key=lambda process: process.pid)
    if not backends:
        raise Nothing(f"{client} has no connection")
    return random.choice(backends)


def _pids_of(world: World, client: str) -> frozenset[int]:
    if client not in WORKERS:
        return frozenset()
    return frozenset(process.pid for process in worker_processes(world.deployment, client))
