"""From scans to masks on disk through a server: the whole of it without a command line around it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

from services.client.api_client import Refused, SegIntClient, SegmentationFailed, ServerUnreachable
from services.client.scans import Scan
from services.client.segment_files import StructureReport, make_folder, place, write_contact_sheets, write_masks
from services.core.catalogue import ModelFamily
from services.core.errors import ModelUnavailable, SegIntError
from services.core.jobs import COMPLETE_PERCENT, Priority
from services.core.wire.model_input import encode_model_input
from services.core.wire.model_output import decode_model_output

POLL_SECONDS = 0.5
LONGEST_SILENCE_SECONDS = 30.0
"""A server that restarts keeps its segmentations; this long it may be away while one is waited for."""
DEFAULT_TIMEOUT_SECONDS = 1200.0
DEFAULT_CHANNEL = "1"


class GaveUp(SegIntError):
    """A segmentation that did not finish within the time the caller allows."""

    summary = "Segmentation took too long"


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """What each stage took. `wait` is from the end of the upload to the end of the segmentation."""

    upload: float
    wait: float
    download: float
    total: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a segmentation brought. The masks are on disk."""

    segmentation_id: UUID
    model: str
    seconds: StageSeconds
    structures: tuple[StructureReport, ...]
    contact_sheet: Path
    """Of the first channel that has structures."""
    other_contact_sheets: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For --json: paths and identifiers still as objects that print as text."""
        return asdict(self)


class Watcher:
    """Is told how far a segmentation is; this one keeps it to itself."""

    def uploading(self, sent_bytes: int, total_bytes: int) -> None:
        """Called with every piece sent."""

    def waiting(self, percent: int) -> None:
        """Called with every answer of the server."""

    def downloading(self, received_bytes: int, finished: bool) -> None:
        """Called with every piece received, and once more when there are no more."""


def segment_scan(
    client: SegIntClient,
    scans: Mapping[str, Scan],
    model_id: str,
    out_dir: Path,
    *,
    priority: Priority | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    watcher: Watcher | None = None,
) -> Report:
    """Segment `scans` (channel identifier → scan) and write a mask per structure and a contact sheet to `out_dir`.

    Every mask is checked against its scan before the first is written. Raises the client's errors, WrongMask,
    GaveUp, ResultNotStored, MaskNotWritten.
    """
    watch = watcher or Watcher()
    make_folder(out_dir)
    started = time.monotonic()
    volumes = [replace(scan.volume, channel_id=channel) for channel, scan in scans.items()]
    body = encode_model_input(volumes, client_version=f"segint {version('segint')}")
    task = client.submit(model_id, body, priority, lambda sent: watch.uploading(sent, len(body)))
    uploaded = time.monotonic()
    _wait(client, model_id, task.segmentation_id, started + timeout_seconds, watch)
    finished = time.monotonic()
    result = client.result(model_id, task.segmentation_id, lambda received: watch.downloading(received, False))
    watch.downloading(len(result), True)
    output = decode_model_output(result)
    downloaded = time.monotonic()

    placed = place(output.channels, scans)
    structures = write_masks(placed, out_dir)
    sheets = write_contact_sheets(placed, scans, out_dir)
    seconds = StageSeconds(
        upload=round(uploaded - started, 3),
        wait=round(finished - uploaded, 3),
        download=round(downloaded - finished, 3),
        total=round(time.monotonic() - started, 3),
    )
    return Report(task.segmentation_id, model_id, seconds, structures, sheets[0], tuple(sheets[1:]))


def channel_of_model(families: Sequence[ModelFamily], model_id: str) -> str:
    """The first input channel of the model; «1», the usual name, where its family describes none.

    Raises ModelUnavailable where no family offers the model.
    """
    for family in families:
        if any(one.model_id == model_id for one in family.versions):
            return family.input_channels[0].channel_id if family.input_channels else DEFAULT_CHANNEL
    raise ModelUnavailable(f"The server does not offer «{model_id}»; `segint models list` shows what it does.")


def _wait(client: SegIntClient, model_id: str, segmentation_id: UUID, deadline: float, watcher: Watcher) -> None:
    """Return when the result is there. `deadline` is on the monotonic clock."""
    answered = time.monotonic()
    while True:
        try:
            progress = client.progress(model_id, segmentation_id)
        except (ServerUnreachable, Refused) as error:
            away = isinstance(error, ServerUnreachable) or error.status in (502, 503, 504)
            if not away or time.monotonic() - answered > LONGEST_SILENCE_SECONDS:
                raise
        else:
            answered = time.monotonic()
            if progress.error_text:
                raise SegmentationFailed(
                    f"The server could not segment with «{model_id}»: {progress.error_text} "
                    f"(segmentation {segmentation_id}, {progress.error_code.name})"
                )
            watcher.waiting(progress.percent)
            if progress.percent >= COMPLETE_PERCENT:
                return
        if time.monotonic() > deadline:
            raise GaveUp(
                f"Segmentation {segmentation_id} did not finish in time; see the server's queue and log, or allow more "
                "with --timeout."
            )
        time.sleep(POLL_SECONDS)
