"""What the viewer's endpoints say and send, without a browser."""

import base64
import gzip
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import nibabel
import numpy as np
import pytest

from services.client.itk import simple_itk
from services.core.jobs import JobState
from services.core.volumes import Geometry, Volume
from services.core.wire.model_input import encode_model_input
from tests.conftest import MakeDeployment
from tests.console.bright_model import MODEL, corner_piece, volume_of, with_bright_model
from tests.console.viewer_app import ASSETS_VARIABLE, PREFIX
from tests.deployment import SAMPLE_MODEL, Deployment, http, request_body, small_volume, wait_for
from tests.slow_model import SLOW_MODEL, Gate, wait_until_running, with_slow_model

GEOMETRY = Geometry(
    origin=(-20.0, 35.0, 100.0),
    x_axis=(0.0, 1.0, 0.0),
    y_axis=(0.0, 0.0, -1.0),
    z_axis=(1.0, 0.0, 0.0),
    spacing=(1.5, 1.0, 2.0),
)
"""A sagittal scan."""

APPLICATION = "tests.console.viewer_app:create_app"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Scans are kept."""
    made = new_deployment(keep_inputs="always").import_sample()
    with_bright_model(made, tmp_path_factory.mktemp("bright"))
    with_slow_model(made, tmp_path_factory.mktemp("slow"))
    return made.start_api().start_api("viewer", application=APPLICATION).start_worker()


@pytest.fixture(scope="module")
def forgetful(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Scans are deleted when their job has succeeded, as by default."""
    made = with_bright_model(new_deployment(), tmp_path_factory.mktemp("bright"))
    return made.start_api().start_api("viewer", application=APPLICATION).start_worker()


def view(deployment: Deployment, job_id: UUID | str, path: str = "") -> httpx.Response:
    return http.get(f"{deployment.at('viewer').url}{PREFIX}/jobs/{job_id}/view{path}", timeout=30)


def segmented(deployment: Deployment, *volumes: Volume, model: str = MODEL) -> UUID:
    job_id = deployment.submit(request_body(*volumes), model)
    assert deployment.finished(job_id, model).error_text == ""
    return job_id


def test_a_job_is_described_and_sent_as_it_lies_on_the_volume(deployment: Deployment) -> None:
    # Given a finished job of a sagittal scan
    piece = corner_piece()
    volume = volume_of(piece, GEOMETRY)
    job_id = segmented(deployment, volume)
    # When its page is described
    page = view(deployment, job_id, "/description")
    # Then everything about the patient is kept out of caches
    assert page.headers["cache-control"] == "private, no-store"
    about = page.json()
    assert (about["id"], about["model"], about["state"]) == (str(job_id), MODEL, "succeeded")
    assert about["remarks"] == []
    [grid] = about["grids"]
    assert (grid["name"], grid["placed"], grid["shape"], grid["modalities"]) == ("CT", True, [48, 40, 24], ["CT"])
    assert grid["spacing"] == pytest.approx([1.5, 1.0, 2.0])
    # And each structure has its name, colour and grid
    assert [(one["id"], one["color"], one["grid"]) for one in about["structures"]] == [
        ("b", "#ff0000", 0),
        ("bb", "#0000ff", 0),
    ]
    # And header and inflated voxels together are the volume where it lies in the patient
    sent = view(deployment, job_id, f"/{grid['data']}")
    assert sent.headers["content-type"] == "application/octet-stream"
    assert "content-encoding" not in sent.headers
    assert (int(sent.headers["content-length"]), len(sent.content)) == (grid["bytes"], grid["bytes"])
    scan = nibabel.Nifti1Image.from_bytes(base64.b64decode(grid["header"]) + gzip.decompress(sent.content))
    np.testing.assert_array_equal(scan.get_fdata(), volume.voxels.transpose())
    image = simple_itk().GetImageFromArray(volume.voxels)
    image.SetOrigin(GEOMETRY.origin)
    image.SetSpacing(GEOMETRY.spacing)
    image.SetDirection(np.column_stack([GEOMETRY.x_axis, GEOMETRY.y_axis, GEOMETRY.z_axis]).ravel().tolist())
    left, back, up = image.TransformIndexToPhysicalPoint((5, 4, 3))
    assert scan.affine @ [5, 4, 3, 1] == pytest.approx([-left, -back, up, 1])
    # And the masks lie on the same grid
    data = view(deployment, job_id, f"/{about['structures'][0]['data']}").content
    mask = nibabel.Nifti1Image.from_bytes(base64.b64decode(grid["label_header"]) + gzip.decompress(data))
    np.testing.assert_array_equal(mask.get_fdata(), piece.transpose())
    np.testing.assert_array_equal(mask.affine, scan.affine)


def test_masks_whose_scan_was_deleted_are_shown_without_a_place(forgetful: Deployment) -> None:
    job_id = segmented(forgetful, volume_of(corner_piece(), GEOMETRY))
    wait_for(lambda: not forgetful.files("segmentation"), "the scan to be deleted")
    about = view(forgetful, job_id, "/description").json()
    [remark] = about["remarks"]
    assert "deleted when the job succeeded" in remark
    assert "SEGINT_KEEP_INPUTS=always" in remark
    [grid] = about["grids"]
    assert (grid["shape"], grid["placed"], grid["data"]) == ([48, 40, 24], False, None)
    assert len(about["structures"]) == 2
    gone = view(forgetful, job_id, "/channels/0")
    assert (gone.status_code, gone.json()["error"]) == (404, remark)


def test_a_job_that_runs_is_shown_without_masks(deployment: Deployment) -> None:
    with Gate(deployment) as gate:
        job_id = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, job_id)
        about = view(deployment, job_id, "/description").json()
        assert about["remarks"] == ["There are no masks yet: the job is running."]
        assert (len(about["grids"]), about["structures"]) == (1, [])
        assert view(deployment, job_id, "/structures/0").status_code == 404
    assert deployment.finished(job_id, SLOW_MODEL).percent == 100


def test_a_damaged_file_is_not_shown(deployment: Deployment) -> None:
    # Given a job one byte of whose result has turned, and one whose scan has
    broken_result, broken_scan = (segmented(deployment, volume_of(corner_piece(), GEOMETRY)) for _ in range(2))
    turn_a_byte(next((deployment.volume_dir / "results").glob(f"{broken_result}*")))
    turn_a_byte(deployment.volume_dir / "segmentation" / f"{broken_scan}.pb")
    # Then the one is shown without masks
    about = view(deployment, broken_result, "/description").json()
    assert about["remarks"] == ["The result was damaged on the server's volume, so it is not shown."]
    assert (len(about["grids"]), about["structures"]) == (1, [])
    assert "damaged" in view(deployment, broken_result, "/structures/0").json()["error"]
    # And the other without its scan and place
    about = view(deployment, broken_scan, "/description").json()
    assert about["remarks"] == ["The scan was damaged on the server's volume, so it is not shown."]
    assert [grid["placed"] for grid in about["grids"]] == [False]
    assert "damaged" in view(deployment, broken_scan, "/channels/0").json()["error"]
    # And looking changed nothing
    assert deployment.row(broken_result).state == JobState.SUCCEEDED


def turn_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_file_that_is_lost_is_said(deployment: Deployment) -> None:
    job_id = segmented(deployment, volume_of(corner_piece(), GEOMETRY))
    (deployment.volume_dir / "segmentation" / f"{job_id}.pb").unlink()
    about = view(deployment, job_id, "/description").json()
    assert about["remarks"] == ["The scan is not on the server's volume any more."]


def test_a_geometry_that_places_nothing_is_said(deployment: Deployment) -> None:
    job_id = segmented(deployment, Volume(small_volume().voxels, Geometry(y_axis=(1.0, 0.0, 0.0))), model=SAMPLE_MODEL)
    about = view(deployment, job_id, "/description").json()
    assert "does not place its voxels in a patient" in about["remarks"][0]
    assert (about["grids"][0]["placed"], len(about["structures"])) == (False, 1)


@pytest.mark.parametrize("job_id", ["not-an-identifier", "2f4fe0ad-0d5d-4fa6-9f61-01aa7725616c"])
def test_a_job_that_does_not_exist_is_said(deployment: Deployment, job_id: str) -> None:
    answer = view(deployment, job_id, "/description")
    assert answer.status_code == 404
    assert "segmentation" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/channels/1", "/channels/64", "/structures/2", "/structures/99999999999999999999"])
def test_what_a_job_does_not_have_is_said(deployment: Deployment, path: str) -> None:
    job_id = segmented(deployment, volume_of(corner_piece(), GEOMETRY))
    assert view(deployment, job_id, path).status_code == 404


@pytest.mark.usefixtures("built_assets")
def test_the_page_allows_no_code_but_its_own(deployment: Deployment) -> None:
    page = view(deployment, uuid4())
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'self'", "'self'", "'none'")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "://" not in page.text  # no other host
    assert "Research use only, not for clinical use" in page.text


@pytest.mark.usefixtures("built_assets")
@pytest.mark.parametrize("name", ["viewer.js", "viewer.css", "licences.txt"])
def test_the_pages_own_files_are_sent(deployment: Deployment, name: str) -> None:
    answer = http.get(f"{deployment.at('viewer').url}{PREFIX}/viewer/{name}")
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["..%2Fpage.html", "%2e%2e%2fviewer.py", "viewer.py", "nothing.js", "%00.js"])
def test_no_other_file_is_sent(deployment: Deployment, name: str) -> None:
    answer = http.get(f"{deployment.at('viewer').url}{PREFIX}/viewer/{name}")
    assert answer.status_code == 404


def test_without_its_script_the_page_says_how_to_get_it(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_api("bare", application=APPLICATION, environment={ASSETS_VARIABLE: str(tmp_path)})
    page = http.get(f"{deployment.at('bare').url}{PREFIX}/jobs/{uuid4()}/view")
    assert "make console-assets" in page.text


def test_nothing_of_a_patient_is_logged(deployment: Deployment) -> None:
    # Given a request whose channel has a name that could be a patient's, and a job that is not there
    volume = Volume(small_volume().voxels, channel_id="Doe^Jane", volume_id="Doe^Jane")
    job_id = deployment.submit(encode_model_input([volume], client_version="tests"), SAMPLE_MODEL)
    deployment.finished(job_id)
    # When it is looked at
    assert "Doe^Jane" in view(deployment, job_id, "/description").text
    view(deployment, job_id, "/channels/0")
    # Then the log has nothing of it
    assert "Doe" not in deployment.log_of("viewer").read_text()
