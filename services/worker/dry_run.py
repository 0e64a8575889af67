"""`python -m services.worker.dry_run`: what runtimes there are, and whether a model works, without any database.

`list` prints each runtime with what it lacks. `check` reads a request as JSON from stdin, runs the model on a tiny
volume in a host like any other, and prints what it measured, or what is wrong. Both print one JSON object.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.checked_options import model_options
from services.core.errors import AttemptLost, InvalidModel, ModelFailed, RuntimeUnavailable, SegIntError
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.core.volumes import Geometry, Shape, Volume
from services.worker.hosts import ModelHosts
from services.worker.runtimes import MODULES, runtime
from services.worker.workspace import Workspace

TINY: Shape = (32, 64, 64)
"""(depth, height, width) of the volume: what networks that halve their input five times can still take."""
SCRATCH_BYTES = 8 * 1024**3
"""A check may unpack what it likes; the worker's own limit is its setting."""


def main(arguments: Sequence[str]) -> int:
    """Answer one request."""
    if list(arguments) == ["list"]:
        _print({"runtimes": [{"name": str(name), "missing": runtime(name).missing()} for name in MODULES]})
        return 0
    if list(arguments) != ["check"]:
        raise SystemExit("python -m services.worker.dry_run list | check")
    request = json.load(sys.stdin)
    try:
        _print(check(ModelSpec.from_json(request["spec"]), float(request["time_limit_seconds"])))
    except SegIntError as error:
        unavailable = isinstance(error, RuntimeUnavailable)
        _print({"error": "RuntimeUnavailable" if unavailable else "InvalidModel", "details": error.details})
    return 0


def check(spec: ModelSpec, time_limit_seconds: float) -> dict[str, Any]:
    """Load the model and run it once.

    Raises:
        RuntimeUnavailable: its library is not here.
        InvalidModel: it does not load, or does not answer with its structures.
    """
    options = model_options(spec.runtime, spec.options)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="segint-check-") as scratch:
        hosts = ModelHosts(1, max(1, int(time_limit_seconds)), SCRATCH_BYTES, Path(scratch))
        with hosts, Workspace(*_layout(spec, options)) as workspace:
            volumes = _tiny_volumes(spec, options, workspace.inputs)
            try:
                host = hosts.acquire(spec)
                started = time.monotonic()
                host.segment(
                    workspace,
                    volumes,
                    time_limit_seconds=time_limit_seconds,
                    on_progress=lambda _: None,
                    on_note=notes.append,
                )
            except (ModelFailed, AttemptLost) as error:
                raise InvalidModel(f"The dry run on a tiny volume failed: {error.details}") from error
            return {
                "load_seconds": round(hosts.last_load_seconds, 3),
                "run_seconds": round(time.monotonic() - started, 3),
                "memory_bytes": host.memory_use.host_bytes,
                "device_bytes": host.memory_use.device_bytes,
                "notes": notes,
            }


def _layout(spec: ModelSpec, options: ModelOptions) -> tuple[list[Shape], list[int]]:
    patch = options.inference.patch
    shape = TINY if patch is None else tuple(length + max(1, length // 2) for length in patch)
    depth, height, width = shape
    return [(depth, height, width)] * max(1, len(spec.channels)), [s.channel_index for s in spec.structures]


def _tiny_volumes(spec: ModelSpec, options: ModelOptions, inputs: Sequence[NDArray[np.int16]]) -> list[Volume]:
    """A bright ball in air, on the spacing that the model wants, so that nothing is resampled to a single voxel."""
    spacing = options.preprocessing.spacing or (1.0, 1.0, 1.0)
    names = spec.channels or ("",)
    volumes = []
    for voxels, name in zip(inputs, names, strict=True):
        grid = np.ogrid[tuple(slice(-1, 1, length * 1j) for length in voxels.shape)]
        voxels[...] = np.where(sum(axis**2 for axis in grid) < 0.5, 100, -1000)
        volumes.append(Volume(voxels, Geometry(spacing=spacing), name))
    return volumes


def _print(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
