"""Voxel data that is not what it claims: the request is accepted, and the job says what was wrong."""

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from services.core.jobs import JobErrorCode
from services.core.wire._pb import Model_pb2 as pb
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, request_body, small_volume, wait_for
from tests.faults.processes import worker_processes

SHAPE = (4, 30, 20)
SIZE = 2 * 4 * 30 * 20


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    return new_deployment(keep_inputs="never").import_sample().start_api().start_worker(until_ready=True)


def body_with(data: bytes) -> bytes:
    message = pb.ModelInput.FromString(request_body(small_volume(SHAPE)))
    message.Channels[0].CalibratedVolume.Volume.Data = data
    return message.SerializeToString()


SOUND = gzip.compress(np.arange(SIZE // 2, dtype="<i2").tobytes())
DAMAGED = bytearray(SOUND)
DAMAGED[-6] ^= 1  # the checksum
NOT_GZIP = JobErrorCode.DECOMPRESSION
WRONG_SIZE = JobErrorCode.DECOMPRESSION_BUFFER_SIZE_MISMATCH


@pytest.mark.parametrize(
    ("data", "code"),
    {
        "nothing": (b"", NOT_GZIP),
        "raw voxels": (bytes(SIZE), NOT_GZIP),
        "zlib": (zlib.compress(bytes(SIZE)), NOT_GZIP),
        "cut off": (SOUND[: len(SOUND) // 2], NOT_GZIP),
        "damaged": (bytes(DAMAGED), NOT_GZIP),
        "one voxel short": (gzip.compress(bytes(SIZE - 2)), WRONG_SIZE),
        "one byte long": (gzip.compress(bytes(SIZE + 1)), WRONG_SIZE),
        "a bomb of 2 GB": (gzip.compress(bytes(64 << 20)) * 32, WRONG_SIZE),
    }.values(),
    ids=lambda value: value.name if isinstance(value, JobErrorCode) else f"{len(value)} bytes",
)
def test_bad_voxel_data_fails_the_job_with_its_own_code(
    deployment: Deployment, data: bytes, code: JobErrorCode
) -> None:
    job_id = deployment.submit(body_with(data))
    progress = deployment.finished(job_id)
    assert progress.error_code is code, progress
    assert progress.percent < 100
    assert "voxel data" in progress.error_text
    wait_for(lambda: not deployment.files("segmentation"), "the input to be deleted")
    # And the next job runs
    assert deployment.finished(deployment.submit(body_with(SOUND))).percent == 100


def test_a_few_bytes_cannot_claim_gigabytes(deployment: Deployment) -> None:
    """Deflate's own limit says that they cannot inflate so far; no memory is taken to find out."""
    message = pb.ModelInput.FromString(body_with(SOUND))
    volume = message.Channels[0].CalibratedVolume.Volume
    volume.Width = volume.Height = volume.Depth = 1024
    worker = worker_processes(deployment)
    before = _most_memory_mib(worker)
    progress = deployment.finished(deployment.submit(message.SerializeToString()))
    assert progress.error_code is WRONG_SIZE
    assert _most_memory_mib(worker) - before < 256


def _most_memory_mib(processes: Sequence[psutil.Process]) -> float:
    """The most that they have ever had in memory, what is shared included."""
    status = [Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8") for process in processes]
    return sum(int(re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)[0]) for text in status) / 1024
