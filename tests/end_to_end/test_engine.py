"""Options, several channels and several structures through the whole service, to a workstation's result."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.core.volumes import Geometry, Volume
from services.core.wire.model_input import encode_model_input
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, http

FAMILY = """{
  "CanonicalName": "Two",
  "FamilyDescription": {"Name": "Two", "InputChannels": [{"ChannelID": "CT"}, {"ChannelID": "MR"}]},
  "ModelVersions": [{"ID": "two", "Structures": [
    {"Name": "Bone", "StructureID": "bone", "InputChannelID": "CT"},
    {"Name": "Tumour", "StructureID": "tumour", "InputChannelID": "MR"}
  ]}]
}"""

MODULE = """
import torch

runs = 0

class Net(torch.nn.Module):
    def forward(self, batch):
        global runs
        runs += 1
        if runs == 1:
            raise torch.OutOfMemoryError("as a GPU does that is too small")
        return batch
"""
"""A score per channel, once it has been given a second chance."""

OPTIONS = {
    "call": "sliding_window",
    "preprocessing": {"orientation": "LPS", "intensity_window": [-100, 100], "normalisation": "unit_range"},
    "inference": {"patch": [8, 16, 16], "overlap": 0.25, "batch": 2},
    "postprocessing": {"decision": "threshold", "threshold": 0.75, "largest_component": True},
    "mapping": {"Bone": 0, "tumour": 1},
}


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    made, folder = new_deployment(), tmp_path_factory.mktemp("two")
    (folder / "net.py").write_text(MODULE)
    torch.save({}, folder / "net.pt")
    with made.library() as library:
        library.import_family_json(FAMILY)
        library.attach("two", runtime="pytorch", file=folder / "net.pt", module=folder / "net.py", options=OPTIONS)
    return made.start_api().start_worker()


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    z, y, x = np.indices(shape)
    return np.asarray((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2)


def test_each_structure_of_a_model_of_two_channels_comes_back_in_its_place(deployment: Deployment) -> None:
    # Given a CT, and an MR of the same patient that lies the other way round, on a grid of its own
    bone, tumour = ball((20, 30, 40), (8, 12, 14), 5), ball((24, 32, 36), (12, 15, 17), 6)
    speck = ball((20, 30, 40), (17, 27, 37), 1)
    ct = Volume(np.where(bone | speck, 900, -1000).astype(np.int16), Geometry(), "CT")
    turned = Geometry(origin=(37.0, 31.0, -1.0), x_axis=(-1.0, 0.0, 0.0), y_axis=(0.0, -1.0, 0.0))
    mr = Volume(np.where(tumour, 900, -1000).astype(np.int16), turned, "MR")
    # When a workstation submits them, in whatever order
    job_id = deployment.submit(encode_model_input([mr, ct], client_version="tests 1"), "two")
    assert deployment.finished(job_id, "two").error_text == ""
    # Then each structure lies on its own channel's grid, without the speck
    first, second = deployment.result(job_id, "two").channels
    assert (first.structure.name, second.structure.name) == ("Bone", "Tumour")
    np.testing.assert_array_equal(first.mask.voxels.astype(bool), bone)
    # of the MR, what lies within the CT, on whose grid the model works
    z, y, x = np.indices(mr.shape)
    patient = np.stack([37 - x, 31 - y, z - 1])
    within = ((patient >= 0) & (patient <= np.array([39, 29, 19])[:, None, None, None])).all(axis=0)
    np.testing.assert_array_equal(second.mask.voxels.astype(bool), tumour & within)
    # And the time line tells of the device that had no memory
    page = http.get(f"{deployment.url}/api/segint/v1/jobs/{job_id}").json()
    assert [event["kind"] for event in page["events"]] == ["accepted", "claimed", "noted", "succeeded"]
    assert "The device ran out of memory" in page["events"][2]["details"]
