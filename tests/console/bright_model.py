"""A model that draws what is bright, so that a mask and what it was drawn on can be compared by eye and by pixel."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from services.core.volumes import Geometry, Shape, Volume
from tests.deployment import Deployment

MODEL = "bright"
BRIGHT, BRIGHTEST, DARK = 1000, 2000, -1000

MODULE = """
import numpy as np
import torch

class Bright(torch.nn.Module):
    def forward(self, volume):
        return np.stack([volume > 500, volume > 1500])
"""

FAMILY = """{
  "CanonicalName": "Bright",
  "FamilyDescription": {"InputChannels": [{"ChannelID": "CT", "Constraints": {"AcceptedModalities": ["CT"]}}]},
  "ModelVersions": [{"ID": "bright", "Structures": [
    {"Name": "Bright", "StructureID": "b", "InputChannelID": "CT", "Color": {"R": 255}},
    {"Name": "Brightest <img src=x onerror=alert(1)>", "StructureID": "bb", "InputChannelID": "CT", "Color": {"B": 255}}
  ]}]
}"""


def with_bright_model(deployment: Deployment, folder: Path) -> Deployment:
    """Let `deployment` have the model; its files are made in `folder`."""
    (folder / "bright.py").write_text(MODULE)
    torch.save({}, folder / "bright.pt")
    with deployment.library() as library:
        library.import_family_json(FAMILY)
        library.attach(MODEL, runtime="pytorch", file=folder / "bright.pt", module=folder / "bright.py")
    return deployment


def corner_piece(shape: Shape = (24, 40, 48)) -> NDArray[np.bool_]:
    """Three bars of different lengths, thicknesses and corners: no turn and no reflection of it looks the same."""
    piece = np.zeros(shape, bool)
    piece[3:7, 4:10, 5:30] = True
    piece[3:7, 4:30, 5:13] = True
    piece[3:19, 4:10, 5:13] = True
    return piece


def volume_of(piece: NDArray[np.bool_], geometry: Geometry, channel_id: str = "CT") -> Volume:
    """`piece` bright on a dark ground, and one bar of it brightest at its end."""
    voxels = np.where(piece, BRIGHT, DARK).astype(np.int16)
    voxels[3:7, 4:10, 24:30] = BRIGHTEST
    return Volume(voxels, geometry, channel_id)
