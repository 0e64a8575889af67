"""What a workstation learns while it waits: its place, how long still, and how to stop; from servers old and new."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID

import pytest

from services.client.api_client import SegIntClient
from services.client.faults import Refused, ServerUnreachable
from services.client.outlook import Outlook, Outlooks, about, place
from services.client.segment_scan import Report, Watcher, segment_scan
from services.core.jobs import JobState
from services.core.wire.fields import Encoding
from services.core.wire.refusals import Refusal, encode_refusal
from services.core.wire.segmentations import Progress, encode_progress
from tests.client.conftest import Answer, MakeScan, Server
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, wait_for

SEGMENT = [sys.executable, "-m", "services.client.cli", "segment"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "about 5 s"),
        (12, "about 10 s"),
        (57, "about 55 s"),
        (61, "about 1 min"),
        (150, "about 2 min"),
        (5399, "about 90 min"),
        (7200, "about 2.0 h"),
    ],
)
def test_estimates_are_no_more_exact_than_they_are(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_places_and_progress_in_words() -> None:
    assert [place(1), place(12)] == ["next", "place 12"]
    assert Outlook(0, queue_position=2, remaining_seconds=150).in_words() == "place 2, about 2 min"
    assert Outlook(45).in_words() == "45 %"


def test_who_waits_sees_the_place_and_then_the_progress(
    own_deployment: MakeDeployment, make_scan: MakeScan, tmp_path: Path
) -> None:
    # Given a job before ours, and nobody who works
    deployment = own_deployment().import_sample().start_api()
    deployment.submit()
    seen: list[Outlook] = []
    accepted: list[UUID] = []
    reports: list[Report] = []

    class Noting(Watcher):
        def accepted(self, segmentation_id: UUID) -> None:
            accepted.append(segmentation_id)

        def waiting(self, outlook: Outlook) -> None:
            seen.append(outlook)

    def segment() -> None:
        with SegIntClient(deployment.url) as client:
            scans = {"1": make_scan()}
            reports.append(segment_scan(client, scans, SAMPLE_MODEL, tmp_path / "out", watcher=Noting()))

    thread = threading.Thread(target=segment)
    thread.start()
    # When we wait, Then we see our place
    wait_for(lambda: seen, "an outlook")
    assert seen[0].queue_position == 2
    # and, when somebody works, the end
    deployment.start_worker()
    thread.join(60)
    assert [report.segmentation_id for report in reports] == accepted
    assert seen[-1] == Outlook(100)


def test_an_older_server_tells_its_progress(server: Server) -> None:
    # Given a server that knows no job pages
    server.answers = [
        Answer(b"<html>no such page</html>", 404, {"Content-Type": "text/html"}),
        Answer(encode_progress(Progress(40), Encoding.PROTOBUF)),
    ]
    with SegIntClient(server.url) as client:
        outlooks = Outlooks(client, "7", UUID(int=7))
        assert outlooks.look() == Outlook(40)
        assert outlooks.look() == Outlook(40)
    # Then it is asked for one only once
    assert [asked.path.startswith("/api/segint") for asked in server.asked] == [True, False, False]


def test_another_server_that_answers_anything_tells_its_progress(server: Server) -> None:
    server.answers = [Answer(b"{}"), Answer(encode_progress(Progress(40), Encoding.PROTOBUF))]
    with SegIntClient(server.url) as client:
        assert Outlooks(client, "7", UUID(int=7)).look() == Outlook(40)


def test_a_server_that_is_away_keeps_its_pages(server: Server) -> None:
    said = encode_refusal(Refusal("Service temporarily unavailable", "Try again."), Encoding.PROTOBUF)
    server.answers = [Answer(said, 503), Answer(said, 503)]
    with SegIntClient(server.url) as client:
        outlooks = Outlooks(client, "7", UUID(int=7))
        for _ in range(2):
            with pytest.raises(Refused, match="temporarily unavailable"):
                outlooks.look()
    assert all(asked.path.startswith("/api/segint") for asked in server.asked)


def test_nobody_there_is_no_older_server() -> None:
    with SegIntClient("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable):
        Outlooks(client, "7", UUID(int=7)).look()


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_leaves_the_segmentation_and_says_how_to_cancel_it(
    own_deployment: MakeDeployment, make_scan: MakeScan, tmp_path: Path, as_json: bool
) -> None:
    # Given somebody who waits for a server where nobody works
    deployment = own_deployment().import_sample().start_api()
    options = ["--model", SAMPLE_MODEL, "--server", deployment.url, "--out", str(tmp_path / "out")]
    options += ["--json"] if as_json else []
    process = subprocess.Popen(
        [*SEGMENT, str(make_scan().path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    [job_id] = wait_for(lambda: [Path(name).stem for name in deployment.files() if name.endswith(".pb")], "the upload")
    wait_for(lambda: _asked_for_pages(deployment.get("/metrics").text), "the waiting")
    # When Ctrl-C comes
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    # Then it is told how to cancel it, and nothing is cancelled
    assert process.returncode == 130
    assert f"segint cancel {job_id} --server {deployment.url}" in (stdout if as_json else stderr)
    assert "Traceback" not in stderr
    assert deployment.row(UUID(job_id)).state == JobState.QUEUED


def _asked_for_pages(metrics: str) -> bool:
    return any("/api/segint/v1/jobs/{id}" in line and not line.startswith("#") for line in metrics.splitlines())
