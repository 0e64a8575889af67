"""The files of a segmentation: safe names, masks on the right scan, nothing written where a result does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.client.api_client import SegIntClient
from services.client.faults import Refused, SegmentationFailed, ServerUnreachable
from services.client.job_page import JobPage
from services.client.outlook import Outlook
from services.client.scans import read_scan
from services.client.segment import report_as_text
from services.client.segment_files import ResultNotStored, WrongMask, file_names
from services.client.segment_scan import GaveUp, Report, Watcher, channel_of_model, segment_scan
from services.core.catalogue import (
    Color,
    FamilyDescription,
    InputChannel,
    ModelFamily,
    ModelVersion,
    Structure,
)
from services.core.errors import ModelUnavailable
from services.core.jobs import JobErrorCode
from services.core.volumes import Shape
from services.core.wire.model_input import decode_model_input
from services.core.wire.model_output import encode_model_output
from services.core.wire.segmentations import Progress, SegmentationTask
from services.core.wire.voxels import deflate
from tests.client.conftest import MakeScan

SHAPE = (4, 5, 6)


# --- Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("Spinal Cord", "Spinal_Cord"),
        ("../../etc/passwd", "etc_passwd"),
        ("..\\..\\boot", "boot"),
        ("/absolute", "absolute"),
        ("a\x00b\nc", "a_b_c"),
        ("Leber (links)", "Leber_links"),
        ("肝臓", "肝臓"),
        ("NUL", "NUL_"),
        ("con.x", "con.x_"),
        ("..", "id"),
        ("", "id"),
        ("é" * 200, "é" * 60),
    ],
)
def test_a_file_is_named_for_its_structure_and_stays_in_its_folder(name: str, file_name: str) -> None:
    assert file_names([Structure(name, structure_id="id")]) == [file_name]


def test_names_that_fall_together_are_told_apart() -> None:
    names = ["Lung", "lung", "Lung?", "Lung_2", "", "."]
    assert file_names([Structure(name) for name in names]) == [
        "Lung", "lung_2", "Lung_3", "Lung_2_2", "structure", "structure_2",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=40), max_size=8))
def test_no_name_leaves_the_folder_or_overwrites_another(names: list[str]) -> None:
    made = file_names([Structure(name) for name in names])
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert Path(name).name == name
        assert name not in (".", "..")
        assert not set(name) & set('/\\:*?"<>|\0')
        assert len(f"{name}.nii.gz".encode()) < 255


# --- A whole segmentation ------------------------------------------------------------------------------------


class FakeServer:
    """A SegIntClient that answers itself: `progress` in turn, and masks that mark voxels over 50."""

    def __init__(
        self,
        structures: tuple[Structure, ...],
        progress: tuple[Progress | Exception, ...] = (Progress(10), Progress(100)),
        shape_of_mask: Callable[[Shape], Shape] = lambda shape: shape,
    ) -> None:
        self.structures = structures
        self.progress_to_tell = list(progress)
        self.shape_of_mask = shape_of_mask
        self.channels: dict[str, Shape] = {}

    def submit(self, model_id: str, body: bytes, priority: object, on_sent: Callable[[int], None]) -> SegmentationTask:
        decoded = decode_model_input(memoryview(body))
        self.channels = {channel.channel_id: channel.shape for channel in decoded.channels}
        on_sent(len(body))
        return SegmentationTask(UUID(int=1), cast(Any, None))

    def progress(self, model_id: str, segmentation_id: UUID) -> Progress:
        told = self.progress_to_tell.pop(0) if len(self.progress_to_tell) > 1 else self.progress_to_tell[0]
        if isinstance(told, Exception):
            raise told
        return told

    def job(self, segmentation_id: UUID) -> JobPage:
        raise Refused("an older server", status=404)

    def result(self, model_id: str, segmentation_id: UUID, on_received: Callable[[int], None]) -> bytes:
        masks = []
        for structure in self.structures:
            shape = self.shape_of_mask(self.channels.get(structure.input_channel_id, SHAPE))
            voxels = np.zeros(shape, np.uint8)
            voxels[0, 0, 0] = 1
            masks.append((shape, deflate(voxels, 1)))
        body = encode_model_output(ModelVersion("7", structures=self.structures), masks)
        on_received(len(body))
        return body


@pytest.fixture(autouse=True)
def no_pause_between_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.segment_scan.POLL_SECONDS", 0.001)


def run(server: FakeServer, scans: Any, out: Path, **options: Any) -> Report:
    return segment_scan(cast(SegIntClient, server), scans, "7", out, **options)


LIVER = Structure("Liver", structure_id="1", color=Color(255, 120, 0), input_channel_id="1")


def test_a_segmentation_leaves_masks_and_a_contact_sheet(make_scan: MakeScan, tmp_path: Path) -> None:
    scan = make_scan(spacing=(2, 2, 5))
    report = run(FakeServer((LIVER, Structure("../liver", input_channel_id="1"))), {"1": scan}, tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Liver.nii.gz",
        "contact_sheet.png",
        "liver_2.nii.gz",
    ]
    first = report.structures[0]
    assert (first.name, first.color, first.voxels, first.millilitres) == ("Liver", "#ff7800", 1, 0.02)
    mask = read_scan(first.file).volume
    assert np.array_equal(np.argwhere(mask.voxels), [[0, 0, 0]])
    document = report.as_json()
    assert set(document["seconds"]) == {"upload", "wait", "download", "total"}
    assert document["segmentation_id"] == UUID(int=1)
    assert "Liver" in report_as_text(report)


def test_a_mask_of_another_shape_is_refused_before_anything_is_written(make_scan: MakeScan, tmp_path: Path) -> None:
    server = FakeServer((LIVER,), shape_of_mask=lambda shape: (shape[2], shape[1], shape[0]))
    with pytest.raises(WrongMask, match=r"shape \(6, 5, 4\) and its scan \(4, 5, 6\)"):
        run(server, {"1": make_scan()}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_masks_lie_on_the_scan_of_their_channel(make_scan: MakeScan, tmp_path: Path) -> None:
    scans = {
        "T1": make_scan(name="t1.nrrd"),
        "T2": make_scan(np.zeros((2, 3, 4), np.int16), name="t2.nrrd", spacing=(3, 3, 3)),
    }
    structures = (Structure("a", input_channel_id="T2"), Structure("b", input_channel_id="T1"))
    report = run(FakeServer(structures), scans, tmp_path / "out")
    assert [read_scan(one.file).volume.shape for one in report.structures] == [(2, 3, 4), (4, 5, 6)]
    assert [path.name for path in report.other_contact_sheets] == ["contact_sheet_2.png"]

    with pytest.raises(WrongMask, match="«FLAIR», which was not sent"):
        run(FakeServer((Structure("c", input_channel_id="FLAIR"),)), scans, tmp_path / "out")


def test_a_model_without_structures_leaves_a_picture_only(make_scan: MakeScan, tmp_path: Path) -> None:
    report = run(FakeServer(()), {"1": make_scan()}, tmp_path / "out")
    assert report.structures == ()
    assert report.contact_sheet.exists()


def test_a_failed_segmentation_is_told_with_the_servers_words(make_scan: MakeScan, tmp_path: Path) -> None:
    server = FakeServer((LIVER,), (Progress(20), Progress(20, "The model raised.", JobErrorCode.INTERNAL)))
    with pytest.raises(SegmentationFailed, match="The model raised"):
        run(server, {"1": make_scan()}, tmp_path / "out")


def test_a_server_away_for_a_moment_is_waited_for(make_scan: MakeScan, tmp_path: Path) -> None:
    away = ServerUnreachable("restarting")
    server = FakeServer((LIVER,), (Progress(20), away, away, Progress(100)))
    percents: list[int] = []

    class Noting(Watcher):
        def waiting(self, outlook: Outlook) -> None:
            percents.append(outlook.percent)

    run(server, {"1": make_scan()}, tmp_path / "out", watcher=Noting())
    assert percents == [20, 100]


def test_a_segmentation_that_never_ends_is_given_up(make_scan: MakeScan, tmp_path: Path) -> None:
    with pytest.raises(GaveUp, match="--timeout"):
        run(FakeServer((LIVER,), (Progress(20),)), {"1": make_scan()}, tmp_path / "out", timeout_seconds=0.05)


def test_a_folder_that_cannot_be_made_is_said_before_the_upload(make_scan: MakeScan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    server = FakeServer((LIVER,))
    with pytest.raises(ResultNotStored, match="choose another folder"):
        run(server, {"1": make_scan()}, tmp_path / "out")
    assert server.channels == {}


def test_a_folder_that_cannot_be_written_to_is_said_before_the_upload(
    make_scan: MakeScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.client.segment_files.os.access", lambda path, mode: path != tmp_path / "out")
    server = FakeServer((LIVER,))
    with pytest.raises(ResultNotStored, match="cannot be written to; choose another folder"):
        run(server, {"1": make_scan()}, tmp_path / "out")
    assert server.channels == {}


def test_the_channel_is_the_models_own() -> None:
    described = FamilyDescription(input_channels=(InputChannel("CT"), InputChannel("PET")))
    families = (ModelFamily("A", described, (ModelVersion("7"),)), ModelFamily("B", None, (ModelVersion("8"),)))
    assert [channel_of_model(families, model) for model in ("7", "8")] == ["CT", "1"]
    with pytest.raises(ModelUnavailable, match="«9»"):
        channel_of_model(families, "9")
