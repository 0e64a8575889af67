"""Time one segmentation of a 512×512×200 head CT through a local deployment, stage by stage; prints JSON.

What is compared with: a server that inflates the request and deflates the mask with Python's gzip at its default
level, measured in the same run on the same bytes. The floor under any server is printed too: the bytes that must
be moved and the time that the codec alone takes on them.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from services.client.api_client import SegIntClient
from services.client.head_phantom import make_head_ct
from services.client.local.settings import local_settings
from services.core.db import jobs as job_rows
from services.core.db.session import Database
from services.core.volumes import Volume
from services.core.wire._pb.Model_pb2 import ModelInput
from services.core.wire.model_input import decode_model_input, encode_model_input
from services.core.wire.model_output import decode_model_output
from services.core.wire.voxels import MASK_LEVEL, deflate, inflate_into

SHAPE = (200, 512, 512)
MODEL = "Centered Orange Square"
ZLIB_DEFAULT_LEVEL = 6
POLL_SECONDS = 0.01
"""Velocity polls slower; a benchmark that did would measure its own sleep."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="measured segmentations, after one to warm up")
    runs = parser.parse_args().runs

    head = make_head_ct(SHAPE)
    volume = Volume(head.voxels, head.geometry, channel_id="1")
    body = request_as_dotnet_sends_it(volume)
    with local_deployment() as (url, data_dir, pids):
        measured, mask = segmentations(url, data_dir, body, runs)
        memory = peak_memory_mib(pids)
    codecs = {"isal": isal_codec(body, mask), "python_gzip": python_gzip_codec(body, mask)}
    report(measured, codecs, memory, body, volume, runs)


def request_as_dotnet_sends_it(volume: Volume) -> bytes:
    """A request whose voxels were deflated by zlib at its level 6, as .NET's GZipStream does by default."""
    request = ModelInput.FromString(encode_model_input([volume], client_version="benchmark"))
    request.Channels[0].CalibratedVolume.Volume.Data = gzip.compress(volume.voxels.tobytes(), ZLIB_DEFAULT_LEVEL)
    return request.SerializeToString()


@contextmanager
def local_deployment() -> Iterator[tuple[str, Path, dict[str, int]]]:
    """`segint up` in a folder of its own; gives its URL, its folder and its process identifiers."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SEGINT_")}

    def segint(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "services.client.cli", *arguments, "--data-dir", folder, "--json"]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    with tempfile.TemporaryDirectory(prefix="segint-bench-") as folder:
        segint("up", "--port", "0", "--detach")
        try:
            status = segint("status")
            pids = {name: process["pid"] for name, process in status["processes"].items()}
            yield status["url"], Path(folder), pids
        finally:
            segint("down")


def segmentations(
    url: str, data_dir: Path, body: bytes, runs: int
) -> tuple[dict[str, list[float]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Seconds of each stage over `runs` segmentations, and the mask that came back."""
    measured: dict[str, list[float]] = {}
    database = Database(local_settings(data_dir).database_url)
    mask = None
    with SegIntClient(url) as client:
        for run in range(runs + 1):
            started = time.perf_counter()
            task = client.submit(MODEL, body)
            uploaded = time.perf_counter()
            while True:
                progress = client.progress(MODEL, task.segmentation_id)
                if progress.error_text:
                    raise SystemExit(progress.error_text)
                if progress.percent == 100:
                    break
                time.sleep(POLL_SECONDS)
            done = time.perf_counter()
            result = client.result(MODEL, task.segmentation_id)
            downloaded = time.perf_counter()
            if run == 0:  # the first one loads the model
                mask = decode_model_output(result).channels[0].mask.voxels
                continue
            job = database.run(job_rows.find, task.segmentation_id)
            if job is None:
                raise SystemExit(f"{task.segmentation_id} is not in the database")
            stages = {"upload": uploaded - started, **job.stage_seconds, "download": downloaded - done}
            for name, seconds in {**stages, "total": downloaded - started}.items():
                measured.setdefault("pick_up" if name == "queued" else name, []).append(seconds)
    database.close()
    if mask is None:
        raise SystemExit("nothing was measured")
    return measured, mask


def isal_codec(body: bytes, mask: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, float]:
    """Seconds of the codec alone, as the server uses it."""
    [channel] = decode_model_input(memoryview(body)).channels
    data = memoryview(body)[channel.data.start : channel.data.start + channel.data.length]
    target = np.empty(channel.shape, np.int16)
    return codec(lambda: inflate_into(data, target), lambda: deflate(mask, MASK_LEVEL))


def python_gzip_codec(body: bytes, mask: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, float]:
    """Seconds of the same with the standard library at its default level, as the predecessor did it."""
    [channel] = decode_model_input(memoryview(body)).channels
    data = body[channel.data.start : channel.data.start + channel.data.length]
    return codec(lambda: gzip.decompress(data), lambda: gzip.compress(mask.tobytes()))


def codec(inflate: Callable[[], object], deflate_mask: Callable[[], object]) -> dict[str, float]:
    inflating, deflating = best_of(inflate), best_of(deflate_mask)
    return {"inflate": inflating, "deflate": deflating, "sum": inflating + deflating}


def best_of(work: Callable[[], object], tries: int = 3) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def peak_memory_mib(pids: dict[str, int]) -> dict[str, float]:
    """Peak resident memory (VmHWM) of the API, the worker's largest process, and its model hosts together."""

    def peak(process: psutil.Process) -> float:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    below = psutil.Process(pids["worker"]).children(recursive=True)
    hosts = [process for process in below if any("host_process" in part for part in process.cmdline())]
    workers = [process for process in [psutil.Process(pids["worker"]), *below] if process not in hosts]
    return {
        "api": round(peak(psutil.Process(pids["api"])), 1),
        "worker": round(max(peak(process) for process in workers), 1),
        "model_hosts": round(sum(peak(process) for process in hosts), 1),
    }


def report(
    measured: dict[str, list[float]],
    codecs: dict[str, dict[str, float]],
    memory: dict[str, float],
    body: bytes,
    volume: Volume,
    runs: int,
) -> None:
    stages = {name: {"median": median(values), "p95": p95(values)} for name, values in measured.items()}
    total = stages["total"]["median"]
    isal_sum, gzip_sum = codecs["isal"]["sum"], codecs["python_gzip"]["sum"]
    with_python_gzip = total - stages["decode"]["median"] - stages["encode"]["median"] + gzip_sum
    document = {
        "volume": "x".join(str(side) for side in reversed(volume.shape)),
        "bytes": {"voxels": volume.voxels.nbytes, "request": len(body)},
        "runs": runs,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "seconds": stages,
        "codec_alone_seconds": {name: rounded(values) for name, values in codecs.items()},
        "same_server_with_python_gzip_seconds": round(with_python_gzip, 4),
        "total_relative_to_python_gzip_codec_alone": round(total / gzip_sum, 3),
        "total_relative_to_same_server_with_python_gzip": round(total / with_python_gzip, 3),
        "total_relative_to_own_codec_alone": round(total / isal_sum, 3),
        "peak_memory_mib": memory,
    }
    print(json.dumps(document, indent=2))


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)


def p95(values: Sequence[float]) -> float:
    return round(float(np.percentile(values, 95)), 4)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in values.items()}


if __name__ == "__main__":
    main()
