"""A model that takes as long as its volume says, for tests that need a job to be running."""

from pathlib import Path
from uuid import UUID

import numpy as np
import torch

from services.core.jobs import JobState
from services.core.volumes import Volume
from tests.deployment import Deployment, request_body, wait_for
from tests.worker.models import SHAPE

SLOW_MODEL = "slow"

MODULE = """
import time
import torch

class Slow(torch.nn.Module):
    def forward(self, volume):
        for _ in range(int(volume[0, 0, 0])):
            time.sleep(0.05)
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
    """A model that sleeps for a twentieth of a second times the first voxel."""
    (folder / "slow.py").write_text(MODULE)
    torch.save({}, folder / "slow.pt")
    with deployment.library() as library:
        library.import_family_json(FAMILY)
        library.attach(SLOW_MODEL, runtime="pytorch", file=folder / "slow.pt", module=folder / "slow.py")
    return deployment


def sleeping(twentieths: int) -> bytes:
    """A request that keeps the model busy for that many twentieths of a second."""
    voxels = np.ones(SHAPE, np.int16)
    voxels[0, 0, 0] = twentieths
    return request_body(Volume(voxels, channel_id="CT"))


def wait_until_running(deployment: Deployment, job_id: UUID) -> None:
    """Until the model works on the job."""

    def runs() -> bool:
        row = deployment.row(job_id)
        return row.state == JobState.RUNNING and row.progress_percent >= RUNNING_PERCENT

    wait_for(runs, "the model to run")
