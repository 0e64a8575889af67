"""What the processes of a deployment took: memory at their highest, and processor time."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.deployment import Deployment


def peak_memory_mib(deployment: Deployment) -> dict[str, float]:
    """Peak resident memory (VmHWM) of the API, of the largest worker process, and of the model hosts together."""
    groups = process_groups(deployment)
    return {
        "api": round(sum(map(_peak_mib, groups["api"])), 1),
        "worker": round(max(map(_peak_mib, groups["worker"])), 1),
        "model_hosts": round(sum(map(_peak_mib, groups["model_hosts"])), 1),
    }


def processor_seconds(deployment: Deployment) -> dict[str, float]:
    """Processor time so far of each part, of this process, and of the whole machine.

    What the machine took beyond the sum of the parts was somebody else's.
    """
    parts = {name: sum(map(_seconds, processes)) for name, processes in process_groups(deployment).items()}
    machine = psutil.cpu_times()
    busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
    return {**parts, "load_generator": time.process_time(), "machine": busy}


def process_groups(deployment: Deployment) -> dict[str, list[psutil.Process]]:
    """The living processes of a deployment, by part."""
    master = psutil.Process(deployment.processes["worker"].pid)
    worker = [master, *master.children(recursive=True)]
    hosts = [process for process in worker if any("host_process" in part for part in process.cmdline())]
    return {
        "api": [psutil.Process(deployment.processes["api"].pid)],
        "worker": [process for process in worker if process not in hosts],
        "model_hosts": hosts,
        "servers": list(_servers()),
    }


def _servers() -> Iterator[psutil.Process]:
    """PostgreSQL and Redis, which this process started."""
    for child in psutil.Process().children():
        if child.name() in {"postgres", "redis-server"}:
            yield child
            yield from child.children(recursive=True)


def _peak_mib(process: psutil.Process) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # A server's backends end with their connections; what they took is then their parent's.
    return times.user + times.system + times.children_user + times.children_system
