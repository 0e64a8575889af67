"""From scans to masks on disk through a server: the whole of it without a command line around it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

from services.client.api_client import SegIntClient
from services.client.faults import SegmentationFailed
from services.client.outlook import Outlook, Outlooks
from services.client.patience import Patience
from services.client.scans import Scan
from services.client.segment_files import StructureReport, make_folder, place, write_contact_sheets, write_masks
from services.core.catalogue import ModelFamily
from services.core.errors import ModelUnavailable, SegIntError
from services.core.jobs import COMPLETE_PERCENT, Priority
from services.core.wire.model_input import encode_model_input
from services.core.wire.model_output import decode_model_output

POLL_SECONDS = 0.5
DEFAULT_TIMEOUT_SECONDS = 1200.0
DEFAULT_CHANNEL = "1"


class GaveUp(SegIntError):
    """A segmentation that did not finish within the time the caller allows."""

    summary = "Segmentation took too long"


class LeftBehind(KeyboardInterrupt):
    """Ctrl-C while the server works on a segmentation that it has accepted. It goes on."""

    def __init__(self, segmentation_id: UUID) -> None:
        super().__init__()
        self.segmentation_id = segmentation_id


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

    def accepted(self, segmentation_id: UUID) -> None:
        """Called once, when the server has it."""

    def waiting(self, outlook: Outlook) -> None:
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
    GaveUp, ResultNotStored, MaskNotWritten, and LeftBehind for a KeyboardInterrupt while it waits.
    """
    watch = watcher or Watcher()
    make_folder(out_dir)
    started = time.monotonic()
    volumes = [replace(scan.volume, channel_id=channel) for channel, scan in scans.items()]
    body = encode_model_input(volumes, client_version=f"segint {version('segint')}")
    task = client.submit(model_id, body, priority, lambda sent: watch.uploading(sent, len(body)))
    uploaded = time.monotonic()
    watch.accepted(task.segmentation_id)
    try:
        _wait(client, model_id, task.segmentation_id, started + timeout_seconds, watch)
    except KeyboardInterrupt as interrupt:
        raise LeftBehind(task.segmentation_id) from interrupt
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
    outlooks = Outlooks(client, model_id, segmentation_id)
    patience = Patience()
    while True:
        try:
            outlook = outlooks.look()
        except SegIntError as error:
            patience.bear(error)
        else:
            patience.answered()
            if outlook.error_text:
                raise SegmentationFailed(
                    f"The server could not segment with «{model_id}»: {outlook.error_text} "
                    f"(segmentation {segmentation_id}, {outlook.error_code.name})"
                )
            watcher.waiting(outlook)
            if outlook.percent >= COMPLETE_PERCENT:
                return
        if time.monotonic() > deadline:
            raise GaveUp(
                f"Segmentation {segmentation_id} did not finish in time; look at it with `segint job`, end it with "
                "`segint cancel`, or allow more with --timeout."
            )
        time.sleep(POLL_SECONDS)
