"""A segmentation over the wire: real API process, real worker process, real PostgreSQL and Redis."""

import numpy as np
import pytest

from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment, request_body, small_volume, wait_for


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    return new_deployment().import_sample().start_api().start_worker()


def test_a_volume_goes_in_and_a_mask_comes_out(deployment: Deployment) -> None:
    # Given a volume
    volume = small_volume((8, 80, 100))

    # When it is segmented
    job_id = deployment.submit(request_body(volume))
    progress = deployment.finished(job_id)

    # Then the mask lies where the phantom draws its box, on the grid of the volume
    assert (progress.percent, progress.error_text) == (100, "")
    output = deployment.result(job_id)
    assert (output.model_id, output.version, output.language_code) == (SAMPLE_MODEL, "0.1", "en")
    [channel] = output.channels
    assert channel.structure.name == "liver"
    expected = np.zeros((8, 80, 100), np.uint8)
    expected[2:6, 10:70, 20:80] = 1
    np.testing.assert_array_equal(channel.mask.voxels, expected)


def test_the_input_is_deleted_once_done_and_the_result_stays(deployment: Deployment) -> None:
    job_id = deployment.submit()
    deployment.finished(job_id)
    wait_for(lambda: not deployment.files("segmentation"), "the input to be deleted")
    assert [name for name in deployment.files("results") if name.startswith(str(job_id))]
    assert deployment.result(job_id) is not None
