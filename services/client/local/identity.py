"""Which process is meant: a process id alone may have been given to another one since."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

CLOCK_STEP_SECONDS = 2.0
"""Creation times are computed from the boot time, which moves a little when the clock is set."""

MARK = "SEGINT_DATA_DIR"
"""Environment variable that names the deployment a process belongs to."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, by its id and the time it was created (seconds since the epoch)."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Whoever has this id now, usually a child that was just started."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    def process(self) -> psutil.Process | None:
        """The process while it runs; None once it has ended, even if nobody has reaped it."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) <= CLOCK_STEP_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it is still the one meant."""
        process = self.process()
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def left_behind(leader: Identity, data_dir: Path) -> list[psutil.Process]:
    """The process and everything in the session it led, also after its own end.

    Others are recognised by the session's id *and* by the mark in their environment.
    """
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            process = psutil.Process(pid)
            if (
                pid != leader.pid
                and os.getsid(pid) == leader.pid
                and process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get(MARK) == str(data_dir)
            ):
                found.append(process)
    alive = leader.process()
    return [alive, *found] if alive is not None else found
