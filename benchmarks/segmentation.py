"""Time one segmentation of a 512×512×200 head CT through a deployment, stage by stage; prints JSON.

What is compared with, in the same run and taking turns: the same deployment with a worker that inflates and deflates
with Python's gzip at its default level. The floor under both is printed too: the codec alone, on the same bytes.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from benchmarks.codec import isal_codec, python_gzip_codec
from benchmarks.deployments import Deployments
from benchmarks.dotnet_request import request_as_dotnet_sends_it
from benchmarks.processes import peak_memory_mib
from services.client.api_client import SegIntClient
from services.client.head_phantom import make_head_ct
from services.core.db import jobs as job_rows
from services.core.volumes import Volume
from services.core.wire.model_output import decode_model_output
from tests.deployment import SAMPLE_MODEL, Deployment

SHAPE = (200, 512, 512)
POLL_SECONDS = 0.02
"""Velocity polls slower; a benchmark that did would measure its own sleep."""

Stages = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="measured segmentations of each kind, after one to warm up")
    runs = parser.parse_args().runs

    head = make_head_ct(SHAPE)
    volume = Volume(head.voxels, head.geometry, channel_id="1")
    body = request_as_dotnet_sends_it(volume)
    with Deployments() as deployments:
        segint = deployments.start("segint")
        reference = deployments.start("python_gzip", "benchmarks.python_gzip_worker")
        seconds: dict[str, Stages] = {"segint": {}, "python_gzip": {}}
        mask = segment(segint, body, {})
        segment(reference, body, {})
        for _ in range(runs):
            segment(segint, body, seconds["segint"])
            segment(reference, body, seconds["python_gzip"])
        memory = {"segint": peak_memory_mib(segint), "python_gzip": peak_memory_mib(reference)}
    codec = {"isal": isal_codec(body, mask), "python_gzip": python_gzip_codec(body, mask)}
    print(json.dumps(report(seconds, codec, memory, volume, body, runs), indent=2))


def segment(deployment: Deployment, body: bytes, measured: Stages) -> NDArray[np.uint8]:
    """One segmentation; its seconds are appended to `measured`, stage by stage. Gives the mask."""
    with SegIntClient(deployment.url) as client:
        started = time.perf_counter()
        task = client.submit(SAMPLE_MODEL, body)
        uploaded = time.perf_counter()
        while (progress := client.progress(SAMPLE_MODEL, task.segmentation_id)).percent < 100:
            if progress.error_text:
                sys.exit(progress.error_text)
            time.sleep(POLL_SECONDS)
        done = time.perf_counter()
        result = client.result(SAMPLE_MODEL, task.segmentation_id)
        downloaded = time.perf_counter()
    stages = {
        "upload": uploaded - started,
        **worker_stages(deployment, task.segmentation_id),
        "download": downloaded - done,
        "total": downloaded - started,
    }
    for name, value in stages.items():
        measured.setdefault(name, []).append(value)
    return decode_model_output(result).channels[0].mask.voxels


def worker_stages(deployment: Deployment, job_id: UUID) -> dict[str, float]:
    """What the worker measured: waiting until it picked the job up, and its own stages."""
    database = deployment.database()
    job = database.run(job_rows.find, job_id)
    database.close()
    if job is None:
        sys.exit(f"{job_id} is not in the database")
    names = {"queued": "pick_up", "decode": "decode", "load": "load", "model": "model", "encode": "encode"}
    return {names[stage]: job.stage_seconds[stage] for stage in names}


def report(
    seconds: dict[str, Stages],
    codec: dict[str, dict[str, float]],
    memory: dict[str, dict[str, float]],
    volume: Volume,
    body: bytes,
    runs: int,
) -> dict[str, Any]:
    stages = {
        kind: {name: {"median": median(values), "p95": p95(values)} for name, values in measured.items()}
        for kind, measured in seconds.items()
    }
    total = stages["segint"]["total"]["median"]
    return {
        "volume": "x".join(str(side) for side in reversed(volume.shape)),
        "bytes": {"voxels": volume.voxels.nbytes, "request": len(body)},
        "runs": runs,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "seconds": stages,
        "codec_alone_seconds": codec,
        "total_relative_to_python_gzip": round(total / stages["python_gzip"]["total"]["median"], 3),
        "total_relative_to_own_codec_alone": round(total / codec["isal"]["sum"], 3),
        "peak_memory_mib": memory,
    }


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)


def p95(values: Sequence[float]) -> float:
    return round(float(np.percentile(values, 95)), 4)


if __name__ == "__main__":
    main()
