"""`segint segment`: one scan, or one per channel, through a server's model, and its masks onto disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from services.client.server_options import DEFAULT_SERVER, ServerOption, TokenOption
from services.client.terminal import (
    INTERRUPTED,
    RESEARCH_USE,
    JsonFlag,
    faults_as_one_line,
    print_json,
    print_text,
    printable,
    talk,
)
from services.core.errors import InvalidParameter
from services.core.jobs import Priority

if TYPE_CHECKING:
    from services.client.api_client import SegIntClient
    from services.client.scans import Scan
    from services.client.segment_scan import Report, Watcher

BAR_WIDTH = 30
"""With the words beside it, a line fits a terminal of 80 columns."""


class PriorityName(StrEnum):
    """`interactive` for somebody who waits, `batch` for the rest."""

    BATCH = "batch"
    INTERACTIVE = "interactive"


def segment(
    model: Annotated[str, typer.Option(help="Identifier of the model version, as `segint models list` prints it.")],
    scan: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCAN",
            help="Folder with a DICOM series, or a DICOM, NIfTI, NRRD or MetaImage file.",
            readable=False,  # read_scan says so itself, in one line and as JSON
        ),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    out: Annotated[Path, typer.Option(help="Folder for the masks and the contact sheet.")] = Path("segmentation"),
    priority: Annotated[
        PriorityName | None, typer.Option(help="`batch` lets people who wait go first.", show_default=False)
    ] = None,
    series: Annotated[str | None, typer.Option(help="DICOM series UID, where a folder holds several.")] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="Scan of one input channel, instead of SCAN; once per channel."),
    ] = None,
    token: TokenOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the segmentation.", min=1)] = 1200.0,
    as_json: JsonFlag = False,
) -> None:
    """Segment a scan: one NIfTI mask per structure, and a contact sheet to look at.

    Example: segint segment ./ct-series --model body-and-bone --out ./masks
    """
    with faults_as_one_line(as_json):
        from services.client.api_client import SegIntClient
        from services.client.segment_scan import segment_scan

        scans = _read(_paths_by_channel(scan, channel or []), series)
        chosen = None if priority is None else Priority[priority.name]
        with SegIntClient(server, token) as client:
            named = _named(scans, client, model)
            with _announcing_how_to_cancel(server, as_json), progress_bars() as watcher:
                report = segment_scan(
                    client, named, model, out, priority=chosen, timeout_seconds=timeout, watcher=watcher
                )
    if as_json:
        print_json(report.as_json())
    else:
        print_text(report_as_text(report))
        talk().print(f"[dim]{RESEARCH_USE}[/dim]")


@contextmanager
def _announcing_how_to_cancel(server: str, as_json: bool) -> Iterator[None]:
    """Say, when Ctrl-C ends the waiting, that the server goes on, and how to end that too."""
    from services.client.segment_scan import LeftBehind

    try:
        yield
    except LeftBehind as left:
        where = "" if server == DEFAULT_SERVER else f" --server {server}"
        command = f"segint cancel {left.segmentation_id}{where}"
        if as_json:
            print_json({"error": "Interrupted", "segmentation_id": str(left.segmentation_id), "cancel": command})
        talk().print(
            f"Stopped waiting. The server goes on with segmentation {left.segmentation_id}; to cancel it:\n  {command}",
            markup=False,
        )
        raise typer.Exit(INTERRUPTED) from left


@contextmanager
def progress_bars() -> "Iterator[Watcher]":
    """A watcher that draws bars on stderr: bytes sent, then percent segmented."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from services.client.outlook import Outlook
    from services.client.segment_scan import Watcher

    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=BAR_WIDTH),
        TextColumn("{task.fields[done]:>20}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=talk()) as bars:
        # Each is shown once it begins: a bar that never does looks like one that is full.
        upload = bars.add_task("upload", total=None, start=False, visible=False, done="")
        wait = bars.add_task("segment", total=100, start=False, visible=False, done="")
        download = bars.add_task("download", total=None, start=False, visible=False, done="")

        def show(task: TaskID, **progress: Any) -> None:
            bars.start_task(task)
            bars.update(task, visible=True, **progress)

        class Bars(Watcher):
            def uploading(self, sent_bytes: int, total_bytes: int) -> None:
                done = f"{sent_bytes / 1e6:,.1f} of {total_bytes / 1e6:,.1f} MB"
                show(upload, completed=sent_bytes, total=total_bytes, done=done)

            def accepted(self, segmentation_id: UUID) -> None:
                bars.console.print(f"[dim]segmentation {segmentation_id}[/dim]")

            def waiting(self, outlook: Outlook) -> None:
                show(wait, completed=outlook.percent, done=outlook.in_words())

            def downloading(self, received_bytes: int, finished: bool) -> None:
                total = max(1, received_bytes) if finished else None
                show(download, completed=received_bytes, total=total, done=f"{received_bytes / 1e6:,.1f} MB")

        yield Bars()


def report_as_text(report: "Report") -> str:
    """One line per structure with its volume and its file, then where the picture is."""
    names = [" ".join(printable(structure.name).split()) for structure in report.structures]
    widest = max(map(len, names), default=0)
    lines = [
        f"{name:<{widest}}  {structure.millilitres:>10,.1f} ml  {structure.file}"
        for name, structure in zip(names, report.structures, strict=True)
    ]
    lines += [f"contact sheet: {sheet}" for sheet in (report.contact_sheet, *report.other_contact_sheets)]
    return "\n".join(lines)


def _paths_by_channel(scan: Path | None, channels: list[str]) -> dict[str | None, Path]:
    """The scan of each channel; None stands for the model's own first channel."""
    if (scan is None) == (not channels):
        raise InvalidParameter("Give either one SCAN, or --channel ID=PATH once per input channel of the model.")
    if scan is not None:
        return {None: scan}
    paths: dict[str | None, Path] = {}
    for text in channels:
        channel_id, equals, path = text.partition("=")
        if not (channel_id and equals and path):
            raise InvalidParameter(f"--channel {text} is not of the form ID=PATH, such as --channel T1=scan.nii.gz.")
        if channel_id in paths:
            raise InvalidParameter(f"The channel {channel_id} is given twice; give each channel one scan.")
        paths[channel_id] = Path(path)
    return paths


def _read(paths: dict[str | None, Path], series: str | None) -> "dict[str | None, Scan]":
    from services.client.scans import read_scan

    if series and len(paths) > 1:
        raise InvalidParameter("--series goes with one SCAN; for several channels give one file of each series.")
    return {channel_id: read_scan(path, series) for channel_id, path in paths.items()}


def _named(scans: "dict[str | None, Scan]", client: "SegIntClient", model: str) -> "dict[str, Scan]":
    """`scans` with the identifier of the model's first channel in place of None."""
    from services.client.segment_scan import channel_of_model

    return {
        channel_of_model(client.models(), model) if channel_id is None else channel_id: scan
        for channel_id, scan in scans.items()
    }
