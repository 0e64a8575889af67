"""The model that is segmented with: it does what its volume says, and its mask shows which volume it got."""

from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from services.core.volumes import Volume
from tests.deployment import Deployment

CHAOS_MODEL = "chaos"
THRESHOLD = 500

FAMILY = """{
  "CanonicalName": "Chaos",
  "FamilyDescription": {"InputChannels": [{"ChannelID": "CT"}]},
  "ModelVersions": [{"ID": "chaos", "Structures": [{"Name": "Bright", "StructureID": "bright"}]}]
}"""

MODULE = """
import ctypes
import os
import signal
import time

import torch

hoard = []


def segfault():
    ctypes.string_at(0)


def kill_parent():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def eat_memory():
    while True:
        hoard.append(os.urandom(1) * 40_000_000)
        time.sleep(0.02)


class Net(torch.nn.Module):
    def forward(self, volume):
        for _ in range(int(volume[0, 0, 0])):
            time.sleep(0.05)
        behaviour = int(volume[0, 0, 1])
        if behaviour:
            [segfault, kill_parent, eat_memory][behaviour - 1]()
        return volume > 500
"""


class Behaviour(IntEnum):
    """What the model does with a volume, as its second voxel says."""

    GOOD = 0
    SEGFAULTS = 1
    KILLS_ITS_PARENT = 2
    EATS_MEMORY = 3


def attach_chaos_model(deployment: Deployment, folder: Path) -> None:
    """Make the model known to the deployment."""
    (folder / "chaos.py").write_text(MODULE, encoding="utf-8")
    torch.save({}, folder / "chaos.pt")
    with deployment.library() as library:
        library.import_family_json(FAMILY)
        library.attach(CHAOS_MODEL, runtime="pytorch", file=folder / "chaos.pt", module=folder / "chaos.py")


def volume_of(
    seed: int,
    shape: tuple[int, int, int],
    channel_id: str,
    *,
    twentieths: int = 0,
    behaviour: Behaviour = Behaviour.GOOD,
) -> Volume:
    """Noise of its own for each seed; its first two voxels say how long the model takes and what it does then."""
    voxels = np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)
    voxels[0, 0, :2] = twentieths, behaviour
    return Volume(voxels, channel_id=channel_id)


def expected_mask(volume: Volume) -> NDArray[np.bool_]:
    """What the model makes of that volume and of no other."""
    mask: NDArray[np.bool_] = volume.voxels > THRESHOLD
    return mask
