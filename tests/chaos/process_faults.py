"""API processes, workers and model hosts that die, stop, freeze, or disagree about the time."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import psutil
import pytest

from tests.chaos.fault import Injected
from tests.chaos.world import Nothing, World
from tests.faults.clocks import skewed
from tests.faults.processes import freeze, hosts_of, kill_at_once, thaw, tree_of, worker_processes

SKEW_SECONDS = 3600.0


def kill_api(world: World, name: str, random: Random) -> Injected:
    pid = world.deployment.processes[name].pid
    kill_at_once([psutil.Process(pid)])
    return Injected(pids=frozenset({pid}))


def terminate_api(world: World, name: str, random: Random) -> Injected:
    process = psutil.Process(world.deployment.processes[name].pid)
    process.terminate()
    return Injected(pids=frozenset({process.pid}))


def freeze_api(world: World, name: str, random: Random) -> Injected:
    return _frozen([psutil.Process(world.deployment.processes[name].pid)])


def kill_worker(world: World, name: str, random: Random) -> Injected:
    """All of Dramatiq's processes at once; the model hosts have to end by themselves."""
    processes = worker_processes(world.deployment, name)
    kill_at_once(processes)
    return Injected(pids=_pids(processes))


def kill_worker_child(world: World, name: str, random: Random) -> Injected:
    """Only the process that claims jobs, not the first one, which looks after it."""
    children = worker_processes(world.deployment, name)[1:]
    if not children:
        raise Nothing(f"{name} has not forked yet")
    kill_at_once(children)
    return Injected(pids=_pids(children))


def kill_host(world: World, name: str, random: Random) -> Injected:
    hosts = hosts_of(world.deployment, name)
    if not hosts:
        raise Nothing(f"{name} has no model loaded")
    kill_at_once(hosts)
    return Injected(f"{len(hosts)} hosts", _pids([*hosts, *worker_processes(world.deployment, name)]))


def terminate_worker(world: World, names: str, random: Random) -> Injected:
    """As in a rolling restart: the second one when the fault heals, which is soon after the first has begun to end."""
    first, *rest = names.split("+")
    pids = set(_terminate(world, first))

    def go_on() -> None:
        for name in rest:
            _terminate(world, name)

    for name in rest:
        pids |= _pids(worker_processes(world.deployment, name))
    return Injected(pids=frozenset(pids), heal=go_on)


def freeze_worker(world: World, name: str, random: Random) -> Injected:
    """With its model hosts, or without them: then a model goes on while nobody tells of it."""
    if random.random() < 0.5:
        return _frozen(tree_of(world.deployment, name), "hosts too")
    return _frozen(worker_processes(world.deployment, name), "without its hosts")


def skew_worker_clock(world: World, name: str, random: Random) -> Injected:
    """A restart on a machine whose time is wrong; healed by a restart with the right time."""
    off_by = random.choice([-SKEW_SECONDS, SKEW_SECONDS])
    right = world.deployment.commands[name]
    try:
        wrong = replace(right, environment={**right.environment, **skewed(off_by)})
    except pytest.skip.Exception as error:
        raise Nothing(str(error)) from error
    world.deployment.commands[name] = wrong
    pids = _terminate(world, name)

    def heal() -> None:
        world.deployment.commands[name] = right
        _terminate(world, name)

    return Injected(f"{off_by:+.0f} s", pids, heal)


def _frozen(processes: list[psutil.Process], details: str = "") -> Injected:
    freeze(processes)
    return Injected(details, _pids(processes), lambda: thaw(processes))


def _terminate(world: World, name: str) -> frozenset[int]:
    """Tell the first process alone, as a platform does; returns all that this ends."""
    processes = worker_processes(world.deployment, name)
    processes[0].terminate()
    return _pids(processes)


def _pids(processes: Iterable[psutil.Process]) -> frozenset[int]:
    return frozenset(process.pid for process in processes)
