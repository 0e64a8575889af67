"""Ports for the servers of tests, apart from those that other test processes and the kernel hand out."""

import os
import socket
from itertools import count

FIRST_PORT = 11_000
"""Above 10080, which browsers refuse."""
PORTS_PER_PROCESS = 1_000
"""Up to twenty test processes stay below 32768, where Linux begins to give ports to clients unless told otherwise."""

_turns = count(os.getpid())
"""Another place to begin for each run, so that two runs on one machine rarely meet."""


def free_port() -> int:
    """A port that nobody listens on, of this test process's own range.

    One that the kernel chose could be a client's, or another test process's, before a server has taken it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    first = FIRST_PORT + PORTS_PER_PROCESS * int(worker.removeprefix("gw") or 0)
    for _ in range(PORTS_PER_PROCESS):
        port = first + next(_turns) % PORTS_PER_PROCESS
        with socket.socket() as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port between {first} and {first + PORTS_PER_PROCESS} is free; end what listens there")
