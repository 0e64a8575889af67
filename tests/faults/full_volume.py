"""A volume of a few megabytes, to be filled: a tmpfs in a mount namespace of its own.

The namespace belongs to one waiting process and is reached through /proc, so that nothing stays mounted whatever
becomes of the tests, and no right is needed that an ordinary user does not have.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.client.local.children import dying_with_parent

MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$0" && echo mounted && exec sleep infinity'
NAMESPACES = (["--mount"], ["--mount", "--user", "--map-root-user"])
"""Root mounts as it is, other users, and root in many containers, with a user namespace around."""


@contextmanager
def small_volume_dir(mount_point: Path, size_bytes: int) -> Iterator[Path]:
    """A folder on a volume of that size. Skips the test where the kernel allows no mounts at all."""
    refusals = []
    for namespaces in NAMESPACES:
        holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", MOUNT, str(mount_point), str(size_bytes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=dying_with_parent(signal.SIGKILL),  # noqa: PLW1509 # only prctl, loaded before the fork
        )
        with holder:
            assert holder.stdout is not None
            if holder.stdout.readline() == b"mounted\n":
                try:
                    yield Path(f"/proc/{holder.pid}/root") / mount_point.relative_to("/")
                finally:
                    holder.kill()
                return
            assert holder.stderr is not None
            refusals.append(holder.stderr.read().decode().strip())
    pytest.skip(f"no volume can be mounted here: {'; '.join(refusals)}")


@contextmanager
def filled(folder: Path, leave_bytes: int = 0) -> Iterator[None]:
    """While nothing but `leave_bytes` of the volume of `folder` is free."""
    filler = folder / "filler"
    room = os.statvfs(folder)
    try:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave_bytes)
        yield
    finally:
        filler.unlink()
