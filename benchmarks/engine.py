"""Time the engine around a network: 512×512×200 voxels, fourteen structures, a 3D U-Net of twenty million parameters.

Prints JSON, an object for each overlap of the patches: seconds of each stage, what lies around the forward passes as a
share of them, peak memory of device and host, and beside it the same forward passes in a bare loop with nothing around
them. Needs PyTorch, NumPy and MONAI only, so that it also runs on a bare GPU machine; neither database nor Redis is
imported.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as model hosts have it; PyTorch reads it once

import torch
from monai.networks.nets.unet import UNet

from benchmarks.engine_ends import CODEC, decode, encoding, encoding_of_shapes, scan
from services.core.model_choices import Activation, Blending, Call, Decision, Normalisation, Precision
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Geometry, Volume
from services.worker.engine import compiled
from services.worker.engine import model as engine
from services.worker.engine.decisions import Decider
from services.worker.engine.preprocessing import ModelInput
from services.worker.engine.windows import patch_starts
from services.worker.masks import Masks, plane_count

STRUCTURES = 14
CHANNELS, STRIDES, UNITS = (32, 64, 128, 256, 512), (2, 2, 2, 2), 2
"""Of MONAI's U-Net: 19.2 million parameters with fifteen outputs."""
OVERLAPS = (0.25, 0.5)
"""The default of MONAI and SegInt, and nnU-Net's (its tile_step_size): fewer and more passes for as many voxels."""
Seconds = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), metavar=("DEPTH", "HEIGHT", "WIDTH"))
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 96, 96), metavar=("DEPTH", "HEIGHT", "WIDTH"))
    parser.add_argument("--overlap", type=float, nargs="+", default=OVERLAPS, metavar="SHARE")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=1, help="measured jobs, each followed by a bare loop")
    parser.add_argument(
        "--bare-patches", type=int, default=0, help="patches of the bare loop; 0 for as many as a job has"
    )
    arguments = parser.parse_args()
    print(json.dumps([measured(arguments, overlap) for overlap in arguments.overlap], indent=2))


def measured(arguments: argparse.Namespace, overlap: float) -> dict[str, Any]:
    device = torch.device(arguments.device)
    shape, patch = tuple(arguments.shape), tuple(arguments.patch)
    half = torch.float16 if device.type == "cuda" else torch.float32
    started = time.perf_counter()
    torch.manual_seed(0)
    network = UNet(3, 1, STRUCTURES + 1, CHANNELS, STRIDES, num_res_units=UNITS).eval().to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's own gap
    load_seconds = time.perf_counter() - started
    compressed = scan(shape)
    raw_bytes = 2 * int(np.prod(shape))
    patches = int(np.prod([len(starts) for starts in patch_starts(shape, patch, overlap)]))
    predictor = Timed(network, device, half)
    model = engine.EngineModel(spec(), options(patch, overlap, arguments), predictor)

    warm_up = torch.zeros((arguments.batch, 1, *patch), device=device)
    with torch.inference_mode():
        predictor(warm_up)
    jobs, bare, loop_share = [], [], []
    for _ in range(arguments.runs):
        count = arguments.bare_patches or patches
        forget_peaks(device)
        predictor.seconds = 0.0
        bare.append(bare_loop(predictor, warm_up, count) / count * patches)
        loop_share.append(bare[-1] / (predictor.seconds / count * patches))
        bare_peaks = peaks(device)
        forget_peaks(device)
        jobs.append(job(model, predictor, compressed, shape))
        job_peaks = peaks(device)
    middle = sorted(jobs, key=lambda seconds: seconds["total"])[len(jobs) // 2]
    of_shapes = encoding_of_shapes(shape, STRUCTURES)
    # What the loop itself takes, mostly giving back the memory of each answer, is nothing that lies around it.
    bare_forward = middle["forward"] * sorted(loop_share)[len(loop_share) // 2]
    return {
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "codec": CODEC,
            "sums": "compiled" if device.type == "cpu" and compiled.is_available() else "PyTorch",
        },
        "job": {
            "shape": shape,
            "structures": STRUCTURES,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "patch": patch,
            "overlap": overlap,
            "patches": patches,
            "precision": str(half).removeprefix("torch."),
        },
        "load_seconds": round(load_seconds, 3),
        "seconds": {name: round(value, 4) for name, value in middle.items()},
        "bare_loop_seconds": round(sorted(bare)[len(bare) // 2], 4),
        "bare_loop_patches": arguments.bare_patches or patches,
        "around_forward": round(middle["total"] / middle["forward"] - 1, 4),
        "around_bare_loop": round(middle["total"] / bare_forward - 1, 4),
        "with_shapes_for_masks": {
            "encode": round(of_shapes, 4),
            "around_forward": round((middle["total"] - middle["encode"] + of_shapes) / middle["forward"] - 1, 4),
        },
        "peak_bytes": {
            "raw_volume": raw_bytes,
            "host_job": job_peaks["host"],
            "host_bare_loop": bare_peaks["host"],
            "host_beyond_the_model_in_raw_volumes": round((job_peaks["host"] - bare_peaks["host"]) / raw_bytes, 3),
            "device_job": job_peaks["device"],
            "device_bare_loop": bare_peaks["device"],
        },
    }


class Timed:
    """The network as the engine calls it, and how long that took."""

    def __init__(self, network: torch.nn.Module, device: torch.device, precision: torch.dtype) -> None:
        self.device = device
        self.seconds = 0.0
        self._network = network
        self._precision = precision

    def __call__(self, batch: Any) -> Any:
        synchronize(self.device)
        started = time.perf_counter()
        if self.device.type == "cuda":
            batch = batch.to(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, self._precision, enabled=self._precision is not torch.float32):
            answer = self._network(batch)
        synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return answer


def job(model: engine.EngineModel, predictor: Timed, compressed: bytes, shape: tuple[int, ...]) -> Seconds:
    """One job's seconds by stage. Stages on a GPU are waited for, which costs the total a little."""
    seconds: Seconds = {}
    predictor.seconds = 0.0
    began = time.perf_counter()
    started = began
    voxels = np.empty(shape, np.int16)
    decode(compressed, voxels)
    seconds["decode"] = time.perf_counter() - started
    masks = Masks([np.zeros((plane_count(STRUCTURES), *shape), np.uint8)], [0] * STRUCTURES)
    with (
        added_up(seconds, "to_device", engine, "model_input", predictor.device),
        added_up(seconds, "preprocess", ModelInput, "patches", predictor.device),
        added_up(seconds, "argmax", Decider, "bits", predictor.device),
    ):
        started = time.perf_counter()
        model.segment([Volume(voxels, Geometry(), "CT")], masks, Silent())
        segmented = time.perf_counter() - started
    seconds["forward"] = predictor.seconds
    seconds["blend"] = segmented - sum(seconds[name] for name in ("to_device", "preprocess", "argmax", "forward"))
    seconds["encode"] = encoding(masks)
    seconds["total"] = time.perf_counter() - began
    return seconds


def bare_loop(predictor: Timed, batch: torch.Tensor, count: int) -> float:
    """Seconds of that many patches through the network alone."""
    synchronize(predictor.device)
    started = time.perf_counter()
    with torch.inference_mode():
        for _ in range(-(-count // len(batch))):
            predictor(batch)
    return time.perf_counter() - started


class Silent:
    """Hears nothing."""

    def report(self, fraction: float) -> None:
        pass

    def note(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)


@contextmanager
def added_up(seconds: Seconds, name: str, owner: Any, function: str, device: torch.device) -> Iterator[None]:
    """Adds the time of every call of that function to `seconds`, within the block."""
    own: Callable[..., Any] = getattr(owner, function)
    seconds[name] = 0.0

    def timed(*arguments: Any, **keywords: Any) -> Any:
        synchronize(device)
        started = time.perf_counter()
        answer = own(*arguments, **keywords)
        synchronize(device)
        seconds[name] += time.perf_counter() - started
        return answer

    setattr(owner, function, timed)
    try:
        yield
    finally:
        setattr(owner, function, own)


def spec() -> ModelSpec:
    structures = tuple(StructureSpec(f"structure {index}", str(index)) for index in range(STRUCTURES))
    return ModelSpec("benchmark", "pytorch", structures=structures, channels=("CT",))


def options(patch: tuple[int, ...], overlap: float, arguments: argparse.Namespace) -> Any:
    """The options of such a model, as plain values: their schema needs pydantic, which a bare machine lacks."""
    scaling = SimpleNamespace(intensity_window=(-1000.0, 1000.0), normalisation=Normalisation.UNIT_RANGE)
    cleanup = SimpleNamespace(fill_holes=False, largest_component=False, minimum_volume_mm3=0.0)
    return SimpleNamespace(
        call=Call.SLIDING_WINDOW,
        features=(),
        mapping={},
        ignored_outputs=(),
        preprocessing=SimpleNamespace(
            channel_order=(), orientation=None, spacing=None, outside=None, of_channel=lambda _: scaling
        ),
        inference=SimpleNamespace(
            device=arguments.device,
            precision=Precision.AUTO,
            patch=patch,
            overlap=overlap,
            blending=Blending.GAUSSIAN,
            batch=arguments.batch,
            flips=(),
        ),
        postprocessing=SimpleNamespace(
            activation=Activation.SOFTMAX, decision=Decision.ARGMAX, threshold=0.5, structures={}, **vars(cleanup)
        ),
    )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peaks(device: torch.device) -> None:
    """Count peaks from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, int]:
    """Greatest resident memory of this process (VmHWM; proc(5)), and of torch's allocator on the device."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {"host": int(found[1]) * 1024 if found else 0, "device": on_device}


def processor() -> str:
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return cpu[1] if cpu else platform.processor()


if __name__ == "__main__":
    main()
