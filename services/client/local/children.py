"""Child processes that never outlive their purpose: each leads a session of its own and dies with its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""

LARGEST_LOG_BYTES = 10 * 1024**2
"""A log over this size is set aside when its process starts; the one set aside before it is dropped."""

TAIL_BYTES = 32 * 1024


def dying_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` that makes the kernel send `death_signal` when the parent dies, even by SIGKILL.

    The kernel watches the *thread* that forks, so children are started from the main thread only. Elsewhere than
    on Linux it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    # Loaded before the fork: the child must not need locks that another thread may hold.
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask_kernel


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    death_signal: signal.Signals,
    options: Mapping[str, Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` in its own session, its output appended to `log`. Call it from the main thread.

    A session of its own keeps the terminal's Ctrl-C away from the child and gives it a process group to kill.

    Args:
        argv: the command.
        log: where stdout and stderr go; its folder exists.
        death_signal: what the child gets when this process dies.
        options: further arguments of Popen, such as env, cwd, user.
    """
    set_aside_if_large(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dying_with_parent(death_signal),  # noqa: PLW1509 # only prctl, loaded before the fork
            **(options or {}),
        )


def set_aside_if_large(log: Path) -> None:
    """Rename a log over the limit to NAME.1, replacing the one there."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > LARGEST_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process is over; if so it is reaped, and what it left in its group is killed.

    The group is killed while the leader is still a zombie: until it is reaped its id cannot name anything else.
    """
    if process.returncode is not None:
        return True
    try:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
    except ChildProcessError:
        return process.poll() is not None
    kill_group(process.pid)
    process.wait()
    return True


def kill_group(leader: int) -> None:
    """SIGKILL every process of the group that `leader` leads; none left is no fault."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals, limit_seconds: float) -> bool:
    """Signal the process alone, wait for its end, and kill its whole group at the limit.

    Returns:
        Whether it ended by itself in time.
    """
    if not has_ended(process):
        process.send_signal(stop_signal)
    deadline = time.monotonic() + limit_seconds
    while not has_ended(process):
        if time.monotonic() > deadline:
            kill_group(process.pid)
            process.wait()
            return False
        time.sleep(0.02)
    return True


def tail(log: Path, *, since: int = 0, lines: int = 15) -> str:
    """The last lines of a log, of what was written after its first `since` bytes; empty when there is none."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            begin = since if since <= size else 0  # a log set aside begins anew
            stream.seek(max(begin, size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
