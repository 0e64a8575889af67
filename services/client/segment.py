"""`segint segment`: one scan, or one per channel, through a server's model, and its masks onto disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.client.terminal import (
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

DEFAULT_SERVER = "http://127.0.0.1:8080"


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
    server: Annotated[str, typer.Option(envvar="SEGINT_SERVER", help="Address of the server.")] = DEFAULT_SERVER,
    out: Annotated[Path, typer.Option(help="Folder for the masks and the contact sheet.")] = Path("segmentation"),
    priority: Annotated[
        PriorityName | None, typer.Option(help="`batch` lets people who wait go first.", show_default=False)
    ] = None,
    series: Annotated[str | None, typer.Option(help="DICOM series UID, where a folder holds several.")] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="Scan of one input channel, instead of SCAN; once per channel."),
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="SEGINT_TOKEN", help="Token, where the server asks.")] = None,
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
            with progress_bars() as watcher:
                report = segment_scan(
                    client, named, model, out, priority=chosen, timeout_seconds=timeout, watcher=watcher
                )
    if as_json:
        print_json(report.as_json())
    else:
        print_text(report_as_text(report))
        talk().print(f"[dim]{RESEARCH_USE}[/dim]")


@contextmanager
def progress_bars() -> "Iterator[Watcher]":
    """A watcher that draws bars on stderr: bytes sent, then percent segmented."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from services.client.segment_scan import Watcher

    columns = (TextColumn("{task.description:<11}"), BarColumn(), TextColumn("{task.fields[done]:>20}"))
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

            def waiting(self, percent: int) -> None:
                show(wait, completed=percent, done=f"{percent} %")

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
