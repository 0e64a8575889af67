"""Makes this process the one that inherits orphans, so that nothing which it ever started can hide."""

import ctypes
import os
from contextlib import suppress

PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""


def inherit_orphans() -> None:
    """From now on, for this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_CHILD_SUBREAPER")


def reap_orphans() -> None:
    """Forget those that have ended. Only once nobody waits for a child of their own any more."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
