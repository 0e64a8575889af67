"""`segint demo`: the whole service, started, used and stopped again, on a synthetic head CT or a scan of one's own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.client.terminal import RESEARCH_USE, JsonFlag, faults_as_one_line, print_json, print_text, talk
from services.core.errors import SegIntError

if TYPE_CHECKING:
    from services.client.scans import Scan
    from services.client.segment_scan import Report
    from services.core.catalogue import ModelFamily

SAMPLE_FAMILY = "Centered Square"
EXAMPLE_MODEL = "body-and-bone"
COMMAND_TIMEOUT_SECONDS = 180.0
"""Any one `segint` command; starting the databases for the first time is the slowest."""


class DemoFailed(SegIntError):
    """A stage of the demonstration that did not work."""

    summary = "Demonstration failed"


@dataclass(slots=True)
class Stages:
    """Times each stage and tells it on stderr. `seconds` is by name, in the order they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        talk().print(f"{name} …", markup=False)
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        talk().print(f"  [dim]{self.seconds[name]:.1f} s[/dim]")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the scan, the masks and the pictures.")] = Path("demo-output"),
    scan: Annotated[
        Path | None,
        typer.Option(help="A scan of your own, instead of the synthetic head CT.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start the service, segment a scan with two models, show the results, stop the service.

    Example: segint demo --out demo-output
    """
    with faults_as_one_line(as_json), _stoppable():
        stages = Stages()
        reports = run_demo(out, scan, stages)
    if as_json:
        print_json({"seconds": stages.seconds, "segmentations": [report.as_json() for report in reports]})
        return
    print_text(_summary(stages, reports))
    talk().print(f"[dim]{RESEARCH_USE}[/dim]")


def run_demo(out: Path, scan_path: Path | None, stages: Stages) -> "list[Report]":
    """Run the demonstration; the service and its data are gone when this returns or raises."""
    from services.client.api_client import SegIntClient
    from services.client.segment import progress_bars
    from services.client.segment_files import make_folder
    from services.client.segment_scan import channel_of_model, segment_scan

    example = _example_folder()
    make_folder(out)
    with stages.timed("read the scan" if scan_path else "make a synthetic head CT"):
        scan = _scan(out, scan_path)
    if scan.modality != "CT" and scan.volume.voxels.min() >= 0:
        talk().print(
            f"This scan does not look like CT; what «{EXAMPLE_MODEL}» draws on it means nothing.", markup=False
        )
    reports = []
    with tempfile.TemporaryDirectory(prefix="segint-demo-") as folder:
        data_dir = Path(folder) / "data"
        with _service(data_dir, stages) as url, SegIntClient(url) as client:
            with stages.timed("make and attach the example model"):
                _attach_example(example, Path(folder), data_dir)
            families = client.models()
            for model in (_sample_model(families), EXAMPLE_MODEL):
                with stages.timed(f"segment with «{model}»"), progress_bars() as watcher:
                    scans = {channel_of_model(families, model): scan}
                    target = out / model.lower().replace(" ", "-")
                    reports.append(segment_scan(client, scans, model, target, watcher=watcher))
    return reports


def _scan(out: Path, scan_path: Path | None) -> "Scan":
    from services.client.head_phantom import make_head_ct, write_dicom_series
    from services.client.scans import read_scan

    if scan_path is None:
        scan_path = out / "head-ct"
        write_dicom_series(make_head_ct(), scan_path)
    return read_scan(scan_path)


@contextmanager
def _service(data_dir: Path, stages: Stages) -> Iterator[str]:
    """A service of its own below `data_dir`, at the URL given; stopped at the end whatever happens."""
    try:
        with stages.timed("start PostgreSQL, Redis, the API and a worker"):
            answer = _segint("up", "--detach", "--port", "0", "--json", data_dir=data_dir)
            url = _url_in(answer)
        yield url
    finally:
        with stages.timed("stop the service"):
            _segint("down", data_dir=data_dir)


def _url_in(answer: str) -> str:
    try:
        return str(json.loads(answer)["url"])
    except (ValueError, KeyError, TypeError) as error:
        raise DemoFailed(f"`segint up` did not say where it listens but «{answer.strip()}».") from error


def _attach_example(example: Path, folder: Path, data_dir: Path) -> None:
    """Make the example's weights with its own script, and put the model into the catalogue."""
    weights = folder / "body_and_bone.pt"
    _run([sys.executable, str(example / "make_model.py"), str(weights)])
    _segint("models", "import", str(example / "family.json"), data_dir=data_dir)
    options = {"runtime": "pytorch", "file": weights, "module": example / "network.py", "class": "BodyAndBone"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    _segint("models", "attach", EXAMPLE_MODEL, *arguments, data_dir=data_dir)


def _sample_model(families: "tuple[ModelFamily, ...]") -> str:
    for family in families:
        if family.canonical_name == SAMPLE_FAMILY and family.versions:
            return family.versions[0].model_id
    raise DemoFailed(f"The service does not offer the sample model «{SAMPLE_FAMILY}» that `segint up` brings along.")


def _example_folder() -> Path:
    import services

    root = Path(services.__file__ or "").resolve().parents[1]
    folder = root / "examples" / "body_and_bone"
    if not (folder / "family.json").is_file():
        raise DemoFailed(f"{folder} is not there: the examples come with the repository, so run the demo from a clone.")
    return folder


def _segint(*arguments: str, data_dir: Path) -> str:
    """Run one `segint` command on the demo's own data; returns what it printed."""
    return _run([sys.executable, "-m", "services.client.cli", *arguments, "--data-dir", str(data_dir)])


def _run(command: list[str]) -> str:
    """Run `command` to its end and return its stdout. Raises DemoFailed with its last words."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=_environment(),
    ) as process:
        try:
            said, complaints = process.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
        except KeyboardInterrupt:
            # Ctrl-C reached it too; killed halfway through starting, it would leave things running.
            process.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
            raise
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise DemoFailed(f"`{_shown(command)}` did not end within {COMMAND_TIMEOUT_SECONDS:.0f} s.") from error
    if process.returncode:
        last = (complaints.strip() or said.strip() or "no word").splitlines()[-1]
        raise DemoFailed(f"`{_shown(command)}` ended with exit code {process.returncode}: {last}")
    return said


def _shown(command: list[str]) -> str:
    return " ".join(["segint", *command[3:]] if command[1] == "-m" else command)


def _environment() -> dict[str, str]:
    """Ours without any deployment's settings: the demo must never write into a real catalogue."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SEGINT_")}


@contextmanager
def _stoppable() -> Iterator[None]:
    """Take a request to terminate like Ctrl-C, so that the service is stopped then, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(stages: Stages, reports: "list[Report]") -> str:
    from services.client.segment import report_as_text

    widest = max(map(len, stages.seconds))
    lines = [f"{name:<{widest}}  {seconds:>6.1f} s" for name, seconds in stages.seconds.items()]
    for report in reports:
        took = report.seconds
        stages_of_one = f"upload {took.upload:.1f} s, segment {took.wait:.1f} s, download {took.download:.1f} s"
        lines += ["", f"«{report.model}»   {stages_of_one}", report_as_text(report)]
    return "\n".join(lines)
