"""The supervisor of `segint up --detach`: `python -m services.client.local JSON`, with what `launch_detached` writes.

It reports through a pipe, once: the URL when the service is ready, or why it could not start. Its talk goes to its
log.
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


def main(text: str) -> int:
    """Supervise until told to stop; 0 after a clean stop, 1 when the deployment could not start."""
    arguments = json.loads(text)
    report_to = int(arguments["report"])
    os.set_inheritable(report_to, False)  # the children must not keep the launcher waiting,
    os.set_inheritable(int(arguments["lock"]), False)  # nor the directory locked
    request = Request(DataDir(Path(arguments["data_dir"])), arguments["host"], arguments["port"], arguments["lock"])

    reported = False

    def report(**what: str) -> None:
        nonlocal reported
        if reported:
            return
        reported = True
        with suppress(BrokenPipeError):  # the launcher was killed; the service runs all the same
            os.write(report_to, json.dumps(what).encode())
        os.close(report_to)

    try:
        supervise(request, say, on_ready=lambda url: report(url=url))
    except SegIntError as error:
        say(f"{error.summary}: {error.details}")
        report(failure=error.details)
        return 1
    report(failure="It was told to stop before it was ready.")
    return 0


def say(line: str) -> None:
    """Write one line of talk with the time it was said."""
    sys.stderr.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
