"""Models that misbehave, through the whole deployment: a clear error, nothing left, and the next job runs.

One of each kind of end: what it raises, a wrong answer, the time limit, a crash, the scratch limit, broken protocol.
All the ways in which a model may misbehave are tried on a host alone, in tests/worker/test_host_faults.py.
"""

from pathlib import Path

import numpy as np
import pytest

from services.core.jobs import JobErrorCode
from services.core.volumes import Volume
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, request_body, wait_for
from tests.worker.models import GOOD_VOXELS, SHAPE, Behaviour, faulty_spec

FAMILY = """{
  "CanonicalName": "Faulty",
  "FamilyDescription": {"Name": "Faulty", "InputChannels": [{"ChannelID": "CT"}]},
  "ModelVersions": [{"ID": "faulty", "Structures": [{"Name": "Brain", "StructureID": "brain", "InputChannelID": "CT"}]}]
}"""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Two attempts, quick back-off, and room for 8 MiB of scratch."""
    made = new_deployment(
        attempt_limit=2, retry_delay_seconds=0.1, model_scratch_bytes=8 * 1024**2, keep_inputs="never"
    )
    spec = faulty_spec(tmp_path_factory.mktemp("faulty"))
    with made.library() as library:
        library.import_family_json(FAMILY)
        library.attach("faulty", runtime="pytorch", file=spec.artifact, module=spec.module, time_limit_seconds=2)
    return made.start_api().start_worker()


def body_asking_for(behaviour: Behaviour) -> bytes:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    voxels[0, 0, 0] = behaviour
    return request_body(Volume(voxels, channel_id="CT"))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour.RAISES, "no contrast in this volume"),
        (Behaviour.RETURNS_NAN, "NaN"),
        (Behaviour.HANGS, "2 s"),
        (Behaviour.SEGFAULTS, "SIGSEGV"),
        (Behaviour.WRITES_MANY_FILES, "scratch"),
        (Behaviour.SENDS_NONSENSE, "faulty"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Behaviour) else "",
)
def test_a_model_that_misbehaves_fails_its_job_and_no_other(
    deployment: Deployment, behaviour: Behaviour, words: str
) -> None:
    # When a volume makes the model misbehave
    job_id = deployment.submit(body_asking_for(behaviour), "faulty")
    progress = deployment.finished(job_id, "faulty")

    # Then the job fails with words that say what happened
    assert progress.percent < 100
    assert progress.error_code is JobErrorCode.INTERNAL
    assert words in progress.error_text, progress.error_text

    # And the next job runs, and nothing of the failed one is left
    good = deployment.submit(body_asking_for(Behaviour.GOOD), "faulty")
    assert deployment.finished(good, "faulty").percent == 100
    [channel] = deployment.result(good, "faulty").channels
    assert channel.mask.voxels.sum() == GOOD_VOXELS
    wait_for(lambda: not deployment.files("segmentation"), "the inputs to be deleted")
    assert not [name for name in deployment.files("results") if name.startswith(str(job_id))]


def test_a_model_that_prints_too_much_still_succeeds(deployment: Deployment) -> None:
    job_id = deployment.submit(body_asking_for(Behaviour.PRINTS_200_MB), "faulty")
    assert deployment.finished(job_id, "faulty").percent == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"this is not a model\n" * 100, "not"), (b"PK\x03\x04 a broken zip", "")],
    ids=["empty", "text", "broken zip"],
)
def test_a_file_that_is_no_model_fails_the_job_with_the_reason(
    deployment: Deployment, tmp_path: Path, content: bytes, words: str
) -> None:
    # Given a model version whose file is not a model
    model_id = f"no model of {len(content)} bytes"
    family = FAMILY.replace('"Faulty"', f'"{model_id}"').replace('"faulty"', f'"{model_id}"')
    (tmp_path / "model.pt").write_bytes(content)
    with deployment.library() as library:
        library.import_family_json(family)
        library.attach(model_id, runtime="pytorch", file=tmp_path / "model.pt", allow_pickle=True)
    # When it is asked for a segmentation
    job_id = deployment.submit(body_asking_for(Behaviour.GOOD), model_id)
    progress = deployment.finished(job_id, model_id)
    # Then that fails at the first attempt, in words
    assert progress.error_code is JobErrorCode.INTERNAL
    assert words in progress.error_text
    assert len(progress.error_text) > 30
    good = deployment.submit(body_asking_for(Behaviour.GOOD), "faulty")
    assert deployment.finished(good, "faulty").percent == 100
