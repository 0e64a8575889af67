"""Time one segmentation of a 512×512×200 head CT through a deployment, stage by stage; prints JSON.

What is compared with, in the same run and taking turns: the same deployment with a worker that inflates and deflates
with Python's gzip at its default level. The floor under both is printed too: the codec alone, on the same bytes.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
from numpy.typing import NDArray

from services.client.api_client import SegIntClient
from services.client.head_phantom import make_head_ct
from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from services.core.db import jobs as job_rows
from services.core.db import migrate
from services.core.settings import Settings
from services.core.volumes import Volume
from services.core.wire._pb.Model_pb2 import ModelInput
from services.core.wire.model_input import decode_model_input, encode_model_input
from services.core.wire.model_output import decode_model_output
from services.core.wire.voxels import MASK_LEVEL, deflate, inflate_into
from tests.deployment import SAMPLE_MODEL, Deployment

SHAPE = (200, 512, 512)
ZLIB_DEFAULT_LEVEL = 6
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segint-bench-")))
        postgres = stack.enter_context(LocalPostgres(folder / "postgres"))
        redis = stack.enter_context(LocalRedis(folder / "redis"))

        def deployment(name: str, worker_module: str) -> Deployment:
            postgres.create_database(name)
            migrate.upgrade(postgres.url(name))
            (folder / name).mkdir()
            settings = Settings(
                database_url=postgres.url(name),
                redis_url=redis.url,
                redis_namespace=name,
                volume_dir=folder / name / "volume",
            )
            made = stack.enter_context(Deployment(settings, {"SEGINT_LOG_LEVEL": "WARNING"}, log_dir=folder / name))
            return made.import_sample().start_api().start_worker(module=worker_module)

        segint = deployment("segint", "services.worker")
        reference = deployment("python_gzip", "benchmarks.python_gzip_worker")
        seconds: dict[str, Stages] = {"segint": {}, "python_gzip": {}}
        mask = segment(segint, body, {})
        segment(reference, body, {})
        for _ in range(runs):
            segment(segint, body, seconds["segint"])
            segment(reference, body, seconds["python_gzip"])
        memory = {"segint": peak_memory_mib(segint), "python_gzip": peak_memory_mib(reference)}
    codec = {"isal": isal_codec(body, mask), "python_gzip": python_gzip_codec(body, mask)}
    print(json.dumps(report(seconds, codec, memory, volume, body, runs), indent=2))


def request_as_dotnet_sends_it(volume: Volume) -> bytes:
    """A request whose voxels were deflated by zlib at its level 6, as .NET's GZipStream does by default."""
    request = ModelInput.FromString(encode_model_input([volume], client_version="benchmark"))
    request.Channels[0].CalibratedVolume.Volume.Data = gzip.compress(volume.voxels.tobytes(), ZLIB_DEFAULT_LEVEL)
    return request.SerializeToString()


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


def isal_codec(body: bytes, mask: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the codec alone, as the server uses it."""
    target = np.empty(SHAPE, np.int16)
    return codec_seconds(lambda: inflate_into(voxel_data(body), target), lambda: deflate(mask, MASK_LEVEL))


def python_gzip_codec(body: bytes, mask: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the same with the standard library at its default level."""
    return codec_seconds(lambda: gzip.decompress(voxel_data(body)), lambda: gzip.compress(mask.tobytes()))


def voxel_data(body: bytes) -> memoryview:
    [channel] = decode_model_input(memoryview(body)).channels
    return memoryview(body)[channel.data.start : channel.data.start + channel.data.length]


def codec_seconds(inflate: Callable[[], object], deflate_mask: Callable[[], object]) -> dict[str, float]:
    inflating, deflating = best_of(inflate), best_of(deflate_mask)
    return {"inflate": inflating, "deflate": deflating, "sum": round(inflating + deflating, 4)}


def best_of(work: Callable[[], object], tries: int = 3) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 4)


def peak_memory_mib(deployment: Deployment) -> dict[str, float]:
    """Peak resident memory (VmHWM) of the API, of the largest worker process, and of the model hosts together."""

    def peak(process: psutil.Process) -> float:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    master = psutil.Process(deployment.processes["worker"].pid)
    below = master.children(recursive=True)
    hosts = [process for process in below if any("host_process" in part for part in process.cmdline())]
    return {
        "api": round(peak(psutil.Process(deployment.processes["api"].pid)), 1),
        "worker": round(max(peak(process) for process in [master, *below] if process not in hosts), 1),
        "model_hosts": round(sum(peak(process) for process in hosts), 1),
    }


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
