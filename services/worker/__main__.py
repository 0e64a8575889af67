"""`python -m services.worker`: Dramatiq's command line with the flags this design needs, in one place.

One process, one thread for doorbells, one queue, no prefetch: a doorbell never waits behind a busy worker while another
is idle. The jobs have threads of their own, see `job_runner`; the doorbells' one waits for them.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

PICK_UP_MS = 50
"""Dramatiq's idle poll; its default of a second would be the wait of every job. It has no flag, only this variable."""
SHUTDOWN_MARGIN_SECONDS = 15
"""What is left after the drain limit to kill a host, write a verdict and end."""
NICENESS = 10
"""Where worker and API share a machine, answering takes little of it and comes first; a model may take the rest."""
PR_SET_DUMPABLE = 4


def main() -> int:
    """Run a worker until it is told to stop."""
    os.environ["dramatiq_worker_timeout"] = str(PICK_UP_MS)  # noqa: SIM112 # Dramatiq's own spelling
    os.environ["dramatiq_queue_prefetch"] = "1"  # noqa: SIM112
    hide_environment()
    os.nice(NICENESS)
    # Dramatiq reads those variables when it is imported.
    from dramatiq import cli

    from services.core.queue import QUEUE_NAME
    from services.core.settings import settings_or_exit
    from services.worker.pool_device import keep_to_device
    from services.worker.pool_runtimes import check_named_runtimes

    settings = settings_or_exit()
    forget_signs_of_life(settings.heartbeat_file)
    keep_to_device(settings.pool_device)
    check_named_runtimes(settings)
    shutdown_ms = (settings.drain_seconds + SHUTDOWN_MARGIN_SECONDS) * 1000
    arguments = ["services.worker.main:create_broker", "--processes", "1", "--threads", "1", "--queues", QUEUE_NAME]
    arguments += ["--worker-shutdown-timeout", str(shutdown_ms)]
    parsed = cli.make_argument_parser().parse_args(arguments)  # type: ignore[no-untyped-call] # untyped there
    return int(cli.main(parsed) or 0)  # type: ignore[no-untyped-call] # untyped there


def forget_signs_of_life(heartbeat_file: str) -> None:
    """Remove what an earlier worker left in the same container: this one is not ready because that one was."""
    if heartbeat_file:
        with suppress(OSError):  # where it cannot be removed it cannot be written either, which is told later
            Path(heartbeat_file).unlink()


def hide_environment() -> None:
    """Keep /proc/PID/environ and memory of this process and its forks from other processes of the same user.

    A model host runs uploaded code as the worker's user; without this it could read the credentials it was not given.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_DUMPABLE")


if __name__ == "__main__":
    sys.exit(main())
