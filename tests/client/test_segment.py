"""`segint segment` as it is typed: its options, what it prints, and one line for any fault."""

import io
import json
import sys
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from services.client.outlook import Outlook
from services.client.segment import progress_bars, segment
from services.core.catalogue import FamilyDescription, InputChannel, ModelFamily, ModelVersion, Structure
from tests.client.conftest import MakeScan
from tests.client.test_segment_files import FakeServer

app = typer.Typer()
app.command()(segment)

FAMILY = ModelFamily("A", FamilyDescription(input_channels=(InputChannel("CT"),)), (ModelVersion("7"),))


class FakeClient(FakeServer):
    """What the command makes of a server's address and a token."""

    made: ClassVar[list["FakeClient"]] = []

    def __init__(self, server: str, token: str | None) -> None:
        super().__init__((Structure("Liver\x1b[31m", input_channel_id="CT"),))
        self.server, self.token = server, token
        self.made.append(self)

    def models(self) -> tuple[ModelFamily, ...]:
        return (FAMILY,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        """Nothing to close."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> "list[FakeClient]":
    monkeypatch.setattr("services.client.api_client.SegIntClient", FakeClient)
    monkeypatch.setattr("services.client.segment_scan.POLL_SECONDS", 0.001)
    FakeClient.made.clear()
    return FakeClient.made


def invoke(*arguments: Any, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def test_a_scan_becomes_masks_and_lines_on_stdout(fake: list[FakeClient], make_scan: MakeScan, tmp_path: Path) -> None:
    scan = make_scan()
    result = invoke(scan.path, "--model", "7", "--out", tmp_path / "out", env={"SEGINT_TOKEN": "t"})
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "out" / "Liver_31m.nii.gz") in result.stdout
    assert "\x1b" not in result.stdout
    assert "contact_sheet.png" in result.stdout
    assert "research" in result.stderr
    assert (fake[0].server, fake[0].token) == ("http://127.0.0.1:8080", "t")
    assert fake[0].channels == {"CT": (4, 5, 6)}


def test_json_is_all_of_stdout(fake: list[FakeClient], make_scan: MakeScan, tmp_path: Path) -> None:
    result = invoke(make_scan().path, "--model", "7", "--out", tmp_path / "out", "--json", "--server", "http://gpu:1")
    document = json.loads(result.stdout)
    assert document["segmentation_id"] == str(UUID(int=1))
    assert document["structures"][0]["file"] == str(tmp_path / "out" / "Liver_31m.nii.gz")
    assert document["contact_sheet"] == str(tmp_path / "out" / "contact_sheet.png")
    assert fake[0].server == "http://gpu:1"


def test_channels_are_named_by_hand(fake: list[FakeClient], make_scan: MakeScan, tmp_path: Path) -> None:
    ct, pet = make_scan(name="ct.nrrd"), make_scan(np.zeros((2, 2, 2), np.int16), name="pet.nrrd")
    channels = ("--channel", f"CT={ct.path}", "--channel", f"PET={pet.path}")
    result = invoke("--model", "7", *channels, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert fake[0].channels == {"CT": (4, 5, 6), "PET": (2, 2, 2)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either one SCAN"),
        (("scan.nrrd", "--channel", "1=scan.nrrd"), "either one SCAN"),
        (("--channel", "scan.nrrd"), "ID=PATH"),
        (("--channel", "1=a", "--channel", "1=b"), "given twice"),
        (("--channel", "1=a", "--channel", "2=b", "--series", "1.2"), "one file of each series"),
        (("nowhere",), "does not exist"),
    ],
)
def test_a_fault_is_one_line_and_an_exit_code(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("--model", "7", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert said in line


def test_a_server_that_is_not_there_is_one_line(make_scan: MakeScan, tmp_path: Path) -> None:
    result = invoke(make_scan().path, "--model", "7", "--server", "http://127.0.0.1:9", "--out", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Server unreachable: http://127.0.0.1:9 cannot be reached")


def test_a_model_that_is_not_offered_is_said_before_the_upload(
    fake: list[FakeClient], make_scan: MakeScan, tmp_path: Path
) -> None:
    result = invoke(make_scan().path, "--model", "8", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.strip().splitlines()
    assert "«8»" in line
    assert fake[0].channels == {}


class Terminal(io.StringIO):
    """Something that bars are drawn on."""

    def isatty(self) -> bool:
        return True


def test_only_what_began_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bars() as watcher:
        watcher.uploading(1, 2)
        watcher.waiting(Outlook(0))
    drawn = terminal.getvalue()
    assert [name in drawn for name in ("upload", "segment", "download")] == [True, True, False]
