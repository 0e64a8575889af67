"""Start a program in a process group of its own, watch it, and end the whole group."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

from services.worker.output_tail import OutputTail

REAP_LIMIT_SECONDS = 30.0
"""A killed process that is stuck in a GPU driver must not hold the worker for ever."""

logger = logging.getLogger(__name__)


class ChildProcess:
    """A running child, and how it ended once it has. Every method may be called from any thread."""

    def __init__(
        self,
        program: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        inherited_fd: int,
        spawner: Executor,
    ) -> None:
        """Start `program` in `folder` with nothing but `environment` and `inherited_fd`.

        `spawner` is an executor whose one thread outlives the child: the kernel sends a child its parent's death
        signal when the *thread* that started it ends. Raises OSError when no process can be started.
        """
        reading, writing = os.pipe()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=folder,
                env=environment,
                pass_fds=(inherited_fd,),
                start_new_session=True,
            )

        try:
            self._process = spawner.submit(start).result()
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.output = OutputTail(reading)
        self._ending = threading.Lock()
        self._ended = False

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group."""
        return self._process.pid

    def exited(self) -> bool:
        """Whether the process has ended. Leaves it unreaped, so that its group's number stays taken."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def exits_within(self, seconds: float) -> bool:
        """Whether the process ends by itself in that time."""
        deadline = time.monotonic() + seconds
        while not self.exited():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def kill(self) -> None:
        """Send SIGKILL to the process and all it started, without waiting for them to end."""
        with self._ending:
            if not self._ended:
                self._kill_group()

    def end(self) -> None:
        """Kill the group and reap the process. Ending twice is allowed."""
        with self._ending:
            if self._ended:
                return
            self._kill_group()  # before reaping: afterwards the number may belong to others
            try:
                self._process.wait(REAP_LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                logger.error("process %d cannot be killed; look at the GPU driver of this machine", self.pid)
            self._ended = True
            self.output.finish()

    def how_it_ended(self) -> str:
        """After `end`: what became of the process, to follow a subject."""
        code = self._process.returncode
        if code is None:
            return "cannot be killed"
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL, most likely because memory ran out,"
        if code < 0:
            return f"was killed by {_signal_name(-code)}"
        return f"exited with code {code}"

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
