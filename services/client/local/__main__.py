"""The supervisor of `segint up --detach`: `python -m services.client.local JSON`, with what `launch_detached` writes.

It reports through a pipe, once: the URL when the service is ready, or why it could not start. Its talk goes to its
log, and until then to the launcher too.
"""

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from services.client.local.data_dir import DataDir
from services.client.local.launch import Request, supervise
from services.core.errors import SegIntError


class Launcher:
    """The other end of the pipe: whoever waits for this supervisor to be ready."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._talk: list[str] = []

    def say(self, line: str) -> None:
        """Log one line of talk with the time it was said, and keep it for the report while there is one to come."""
        sys.stderr.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
        if self._descriptor is not None:
            self._talk.append(line)

    def report(self, **outcome: str) -> None:
        """Send the one report; later ones go nowhere."""
        if self._descriptor is None:
            return
        with suppress(BrokenPipeError):  # the launcher was killed; the service runs all the same
            os.write(self._descriptor, json.dumps({**outcome, "talk": "\n".join(self._talk)}).encode())
        os.close(self._descriptor)
        self._descriptor = None


def main(text: str) -> int:
    """Supervise until told to stop; 0 after a clean stop, 1 when the deployment could not start."""
    arguments = json.loads(text)
    request = Request(DataDir(Path(arguments["data_dir"])), arguments["host"], arguments["port"], arguments["lock"])
    for descriptor in (arguments["report"], request.lock):
        os.set_inheritable(descriptor, False)  # a child must neither keep the launcher waiting nor the lock taken
    launcher = Launcher(arguments["report"])
    try:
        supervise(request, launcher.say, on_ready=lambda url: launcher.report(url=url))
    except SegIntError as error:
        launcher.report(failure=error.details)
        launcher.say(f"{error.summary}: {error.details}")
        return 1
    launcher.report(failure="It was told to stop before it was ready.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
