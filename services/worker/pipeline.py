"""One segmentation from request bytes to result bytes: decode, run, encode. Knows neither PostgreSQL nor Redis."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from services.core.blobs import mapped
from services.core.catalogue import CatalogueEntry, channel_order
from services.core.errors import AttemptLost, InvalidModelInput, JobError, MalformedMessage
from services.core.model_spec import ModelSpec
from services.core.volumes import Volume
from services.core.wire.model_input import ModelInput, SubmittedVolume, decode_model_input
from services.core.wire.model_output import encode_model_output
from services.core.wire.voxels import MASK_LEVEL, check_declared_size, deflate_pieces, inflate_into
from services.worker.hosts import ModelHosts
from services.worker.masks import Masks
from services.worker.model_host import ModelHost
from services.worker.workspace import Workspace

DECODED_PERCENT, LOADED_PERCENT, SEGMENTED_PERCENT, ENCODED_PERCENT = 10, 15, 90, 95
"""How far a job is after each stage. The model's own reports fill the space between loaded and segmented."""


@dataclass(slots=True)
class Stages:
    """Seconds per stage, in the order they ended."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 4)


def _ignore(_: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Run:
    """What one run needs from its surroundings."""

    hosts: ModelHosts
    time_limit_seconds: float
    report_percent: Callable[[int], None]
    note: Callable[[str], None]
    """Called with what a person should know of the run."""
    host_started: Callable[[ModelHost], None]
    """Called with the host as soon as there is one, even before its model is loaded, so that it can be killed."""
    model_ran: Callable[[Mapping[str, float]], None] = _ignore
    """Called with what parts of the model's run took, as far as its host tells, once it ended well."""
    on_device: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around what only one job at a time may do: loading and running its model. Raises Cancelled."""


def segment(
    request: Path, input_sha256: str | None, entry: CatalogueEntry, spec: ModelSpec, run: Run
) -> tuple[bytes, dict[str, float]]:
    """The serialized ModelOutput for the serialized ModelInput in `request`, and the seconds of each stage.

    Args:
        request: the uploaded file.
        input_sha256: what its bytes must hash to, hexadecimal; None where that is not known.

    Raises:
        JobError: a fault of the request's data or of the model, which another attempt would repeat.
        AttemptLost: the model host crashed or ran out of time.
        Cancelled: the host was killed on purpose.
    """
    stages = Stages()
    buffer = _mapped(request)
    with _verifying(buffer, input_sha256) as verify:
        model_input = decode_model_input(buffer)
        volumes = _in_model_order(model_input, entry)
        data = [buffer[volume.data.start : volume.data.start + volume.data.length] for volume in volumes]
        for volume, compressed in zip(volumes, data, strict=True):
            check_declared_size(compressed, 2 * volume.voxel_count)
        shapes = [volume.shape for volume in volumes]
        with Workspace(shapes, [structure.channel_index for structure in spec.structures]) as workspace:
            with stages.timed("decode"):
                workspace.prefault()
                for compressed, voxels in zip(data, workspace.inputs, strict=True):
                    inflate_into(compressed, voxels)
                verify()
            run.report_percent(DECODED_PERCENT)
            with run.on_device():
                with stages.timed("load"):
                    _check_files(spec)
                    host = run.hosts.acquire(spec, on_start=run.host_started)
                run.report_percent(LOADED_PERCENT)
                with stages.timed("model"):
                    model_stage_seconds = host.segment(
                        workspace,
                        [
                            Volume(voxels, volume.geometry, volume.channel_id)
                            for voxels, volume in zip(workspace.inputs, volumes, strict=True)
                        ],
                        time_limit_seconds=run.time_limit_seconds,
                        on_progress=lambda done: run.report_percent(
                            LOADED_PERCENT + int(done * (SEGMENTED_PERCENT - LOADED_PERCENT))
                        ),
                        on_note=run.note,
                    )
            run.model_ran(model_stage_seconds)
            run.report_percent(SEGMENTED_PERCENT)
            with stages.timed("encode"):
                message = _encode(entry, workspace.masks)
            run.report_percent(ENCODED_PERCENT)
    return message, stages.seconds


@contextmanager
def _verifying(buffer: memoryview, sha256: str | None) -> Iterator[Callable[[], None]]:
    """Hash `buffer` beside the work of the context, which calls what it is given once it needs to know.

    A fault that the context finds in the request is the server's where the bytes are not those that were uploaded.
    """
    if sha256 is None:
        yield lambda: None
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="verify") as executor:
        digest = executor.submit(lambda: hashlib.sha256(buffer).hexdigest())

        def verify() -> None:
            if digest.result() != sha256:
                raise JobError("The uploaded volume was damaged on the server's volume; submit it again.")

        try:
            yield verify
        except (JobError, InvalidModelInput, MalformedMessage):
            verify()
            raise


def _mapped(path: Path) -> memoryview:
    try:
        return mapped(path)
    except FileNotFoundError as error:
        raise JobError("The uploaded volume is not on the server's volume any more; submit it again.") from error


def _check_files(spec: ModelSpec) -> None:
    """Files are gone when the model was attached anew since the job was claimed; the next attempt sees the new ones."""
    for path in (spec.artifact, spec.module):
        if path is not None and not path.exists():
            raise AttemptLost(f"the files of the model «{spec.model_id}» were replaced just now")


def _in_model_order(model_input: ModelInput, entry: CatalogueEntry) -> list[SubmittedVolume]:
    order = channel_order(entry.input_channels, [volume.channel_id for volume in model_input.channels])
    return [model_input.channels[position] for position in order]


def _encode(entry: CatalogueEntry, masks: Masks) -> bytes:
    encoded = masks.encoded(lambda slabs: deflate_pieces(slabs, MASK_LEVEL))
    shapes = [masks.shape(structure) for structure in range(len(masks))]
    return encode_model_output(entry.version, list(zip(shapes, encoded, strict=True)))
