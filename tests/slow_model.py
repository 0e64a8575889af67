"""A model that takes as long as its volume says, or until a test lets it go on: for tests of running jobs."""

from itertools import count
from pathlib import Path
from typing import Self
from uuid import UUID

import numpy as np
import torch

from services.core.jobs import JobState
from services.core.volumes import Volume
from tests.deployment import Deployment, request_body, wait_for
from tests.worker.models import SHAPE

SLOW_MODEL = "slow"

MODULE = """
import os
import time
import torch

class Slow(torch.nn.Module):
    def forward(self, volume):
        for _ in range(int(volume[0, 0, 0])):
            time.sleep(0.05)
        gate = int(volume[0, 0, 1])
        while gate > 1 and not os.path.exists(f"{GATES}/{gate}.open"):
            time.sleep(0.02)
        return volume > 0
"""

FAMILY = """{
  "CanonicalName": "Slow",
  "FamilyDescription": {"InputChannels": [{"ChannelID": "CT"}]},
  "ModelVersions": [{"ID": "slow", "Structures": [{"Name": "Brain", "StructureID": "brain"}]}]
}"""

RUNNING_PERCENT = 15
"""Progress of a job whose model is loaded."""


def with_slow_model(deployment: Deployment, folder: Path) -> Deployment:
    """A model that sleeps for a twentieth of a second times the first voxel, and waits for the second one's gate."""
    (folder / "slow.py").write_text(f"GATES = {str(deployment.log_dir)!r}\n{MODULE}")
    torch.save({}, folder / "slow.pt")
    with deployment.library() as library:
        library.import_family_json(FAMILY)
        library.attach(SLOW_MODEL, runtime="pytorch", file=folder / "slow.pt", module=folder / "slow.py")
    return deployment


def sleeping(twentieths: int, gate: int = 1) -> bytes:
    """A request that keeps the model busy for that many twentieths of a second, and until the gate is open."""
    voxels = np.ones(SHAPE, np.int16)
    voxels[0, 0, :2] = max(twentieths, 1), gate
    return request_body(Volume(voxels, channel_id="CT"))


class Gate:
    """What runs of the slow model wait for, in any worker and at any attempt. Leaving its context opens it."""

    _numbers = count(2)

    def __init__(self, deployment: Deployment) -> None:
        self._number = next(self._numbers)
        self._file = deployment.log_dir / f"{self._number}.open"

    @property
    def request(self) -> bytes:
        """A request whose run ends once the gate is open."""
        return sleeping(0, self._number)

    def open(self) -> None:
        self._file.touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def wait_until_running(deployment: Deployment, job_id: UUID) -> None:
    """Until the model works on the job."""

    def runs() -> bool:
        row = deployment.row(job_id)
        return row.state == JobState.RUNNING and row.progress_percent >= RUNNING_PERCENT

    wait_for(runs, "the model to run")
