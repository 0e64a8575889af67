"""`segint job` and `segint cancel` as they are typed, against a server of real processes."""

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from services.client.api_client import SegIntClient
from services.client.cli import app
from services.client.job import changes
from services.client.job_page import JobPage, decode_job_page
from services.client.job_text import job_as_text, state_in_words
from services.core.errors import MalformedMessage
from services.core.jobs import JobErrorCode, JobState
from tests.api.test_finished_segmentations import put_into
from tests.client.conftest import Answer, Server
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment, http, wait_for
from tests.slow_model import SLOW_MODEL, sleeping, wait_until_running, with_slow_model

PAGE = {
    "id": str(UUID(int=7)),
    "model": "slow",
    "state": "running",
    "priority": "batch",
    "percent": 45,
    "attempt": 2,
    "attempt_limit": 3,
    "remaining_seconds": 130.0,
    "worker": "gpu:1",
    "created_at": "2026-01-02T03:04:05.678+00:00",
    "events": [
        {"at": "2026-01-02T03:04:05.678+00:00", "kind": "accepted", "attempt": 0, "worker": None, "details": ""},
        {
            "at": "2026-01-02T03:04:07+00:00",
            "kind": "lost",
            "attempt": 1,
            "worker": "gpu:1",
            "details": "it\x1b[31m died",
        },
    ],
    "of a newer server": 1,
}


@pytest.fixture(scope="module")
def waiting(new_deployment: MakeDeployment) -> Deployment:
    """Nobody works here, so every job waits."""
    return new_deployment().import_sample().start_api()


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose zone is 5 h 30 min ahead of UTC."""
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def page(**values: Any) -> JobPage:
    return decode_job_page(json.dumps(PAGE | values))


def segint(*arguments: object, deployment: Deployment | None = None, **environment: str) -> Any:
    variables = {"SEGINT_SERVER": deployment.url} if deployment else {}
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, env=variables | environment)


def one_line(result: Any) -> str:
    """What a fault says; nothing but it."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.strip().splitlines()
    return str(line)


# --- What it says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "running, 45 %, about 2 min left"),
        ({"remaining_seconds": None}, "running, 45 %"),
        ({"remaining_seconds": 3}, "running, 45 %, about 5 s left"),
        ({"remaining_seconds": 6000.0}, "running, 45 %, about 1.7 h left"),
        ({"cancel_requested": True}, "running, 45 %, being cancelled"),
        ({"state": "queued", "queue_position": 1}, "queued, next in the queue, about 2 min left"),
        ({"state": "queued", "queue_position": 3, "remaining_seconds": None}, "queued, place 3 in the queue"),
        ({"state": "succeeded"}, "succeeded"),
        ({"state": "of a newer server"}, "of a newer server"),
    ],
)
def test_the_state_in_words(values: dict[str, Any], words: str) -> None:
    assert state_in_words(page(**values)) == words


@pytest.mark.usefixtures("far_away")
def test_the_time_line_is_aligned_in_local_time_and_tells_no_terminal_what_to_do() -> None:
    text = job_as_text(page()).plain
    assert "\x1b" not in text
    header, accepted, lost = text.splitlines()[-3:]
    assert accepted.startswith("2026-01-02 08:34:05  accepted  -")
    assert lost.startswith("2026-01-02 08:34:07  lost      1        gpu:1   it[31m died")
    assert [header.index(name) for name in ("WHAT", "ATTEMPT", "WORKER", "WHY")] == [21, 31, 40, 48]


def test_a_reason_is_wrapped_below_its_own_column() -> None:
    why = "it did not fit into the memory that it may have, and was stopped for it"
    events = [PAGE["events"][1] | {"details": why}]  # type: ignore[index] # a list
    text = job_as_text(page(events=events), width=80).plain
    header, *lines = text[text.index("WHEN") :].splitlines()
    indent = header.index("WHY")
    assert len(lines) > 1
    assert all(not line[:indent].strip() for line in lines[1:])
    assert " ".join(line[indent:] for line in lines) == why
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"<html>", json.dumps(PAGE | {"percent": "half"}).encode()])
def test_what_is_no_page_is_told_as_such(document: bytes) -> None:
    with pytest.raises(MalformedMessage, match="job document"):
        decode_job_page(document)


# --- segint job ----------------------------------------------------------------------------------------------


def test_a_waiting_job_is_shown_with_its_place(waiting: Deployment) -> None:
    job_id = waiting.submit()
    result = segint("job", job_id, deployment=waiting)
    assert result.exit_code == 0, result.output
    assert re.search(rf"^Segmentation {job_id}: queued, (next|place \d+) in the queue", result.stdout)
    assert re.search(rf"(?m)^  model +{SAMPLE_MODEL}$", result.stdout)
    assert re.search(r"(?m)^  priority +interactive$", result.stdout)
    assert re.search(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  accepted ", result.stdout)
    assert "\x1b" not in result.stdout


def test_a_failed_job_is_shown_with_its_error_and_is_no_fault_of_the_command(waiting: Deployment) -> None:
    words = {"error_code": JobErrorCode.DECOMPRESSION, "error_text": "The voxel data is not gzip."}
    result = segint("job", put_into(waiting, JobState.FAILED, **words), deployment=waiting)
    assert result.exit_code == 0
    assert re.search(r"(?m)^  error +The voxel data is not gzip\. \(DECOMPRESSION\)$", result.stdout)


def test_json_is_what_the_server_says(waiting: Deployment) -> None:
    job_id = waiting.submit()
    result = segint("job", job_id, "--json", deployment=waiting)
    said = json.loads(result.stdout)
    server_says = http.get(f"{waiting.url}/api/segint/v1/jobs/{job_id}").json()
    assert said.keys() == server_says.keys()
    assert datetime.fromisoformat(said["created_at"]) == datetime.fromisoformat(server_says["created_at"])
    assert said["created_at"].endswith(("Z", "+00:00"))
    assert datetime.fromisoformat(said["created_at"]).tzinfo == UTC
    assert (said["id"], said["state"], said["input"]) == (str(job_id), "queued", server_says["input"])


def test_it_follows_to_the_end(waiting: Deployment) -> None:
    job_id = waiting.submit()
    seen: list[JobPage] = []

    def follow() -> None:
        with SegIntClient(waiting.url) as client:
            seen.extend(changes(client, job_id))

    thread = threading.Thread(target=follow)
    thread.start()
    with SegIntClient(waiting.url) as client:
        client.cancel(SAMPLE_MODEL, job_id)
    thread.join(30)
    assert not thread.is_alive()
    assert seen[-1].state == "cancelled"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_finished_job_is_followed_no_further(waiting: Deployment, as_json: bool) -> None:
    job_id = put_into(waiting, JobState.CANCELLED)
    result = segint("job", job_id, "--follow", *(["--json"] if as_json else []), deployment=waiting)
    assert result.exit_code == 0
    if as_json:
        (line,) = result.stdout.splitlines()
        assert json.loads(line)["state"] == "cancelled"
    else:
        assert result.stdout.startswith(f"cancelled\n\nSegmentation {job_id}: cancelled\n")


def test_it_follows_over_a_restart_of_the_api(own_deployment: MakeDeployment) -> None:
    # Given a job that is followed
    deployment = own_deployment().import_sample().start_api()
    job_id = deployment.submit()
    seen: list[JobPage] = []
    faults: list[BaseException] = []

    def follow() -> None:
        try:
            with SegIntClient(deployment.url) as client:
                for page in changes(client, job_id):
                    seen.append(page)
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: seen, "the first page")
    # When the API is restarted, and the job cancelled then
    deployment.stop("api")
    deployment.start_api()
    with SegIntClient(deployment.url) as client:
        client.cancel(SAMPLE_MODEL, job_id)
    # Then its end is seen
    thread.join(60)
    assert not thread.is_alive()
    assert not faults
    assert seen[-1].state == "cancelled"


@pytest.mark.parametrize("command", ["job", "cancel"])
def test_refusals_are_one_line(waiting: Deployment, own_deployment: MakeDeployment, command: str) -> None:
    assert "Segmentation not found" in one_line(segint(command, uuid4(), deployment=waiting))
    assert "not the identifier" in one_line(segint(command, "nonsense", deployment=waiting))
    assert "cannot be reached" in one_line(segint(command, uuid4(), "--server", "http://127.0.0.1:9"))
    refused = segint(command, "nonsense", "--json", deployment=waiting)
    assert json.loads(refused.stdout)["error"] == "Invalid parameter"
    assert refused.exit_code == 1


def test_a_token_opens_what_asks_for_it(own_deployment: MakeDeployment) -> None:
    guarded = own_deployment(trusted_networks="").import_sample().start_api()
    secret = guarded.new_token("workstation", "segment")
    assert "Credentials required" in one_line(segint("job", uuid4(), deployment=guarded))
    assert "Segmentation not found" in one_line(segint("job", uuid4(), "--token", secret, deployment=guarded))
    assert "Segmentation not found" in one_line(segint("cancel", uuid4(), deployment=guarded, SEGINT_TOKEN=secret))


@pytest.mark.parametrize("command", [("job",), ("job", "--follow"), ("cancel",)])
def test_a_server_without_job_pages_is_told_as_such(server: Server, command: tuple[str, ...]) -> None:
    server.answers = [Answer(b"<html>no such page</html>", 404, {"Content-Type": "text/html"})]
    name, *options = command
    assert "does not tell of jobs" in one_line(segint(name, uuid4(), *options, "--server", server.url))


# --- segint cancel -------------------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_and_stays_so(waiting: Deployment) -> None:
    job_id = waiting.submit()
    result = segint("cancel", job_id, deployment=waiting)
    assert (result.exit_code, result.stdout) == (0, f"Segmentation {job_id} was cancelled while it waited.\n")
    assert waiting.row(job_id).state == JobState.CANCELLED
    again = segint("cancel", job_id, deployment=waiting)
    assert (again.exit_code, again.stdout) == (0, f"Segmentation {job_id} had been cancelled before.\n")
    as_json = segint("cancel", job_id, "--json", deployment=waiting)
    assert json.loads(as_json.stdout) == {"id": str(job_id), "outcome": "cancelled"}


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED])
def test_a_finished_job_is_not_cancelled(waiting: Deployment, state: JobState) -> None:
    job_id = put_into(waiting, state)
    line = one_line(segint("cancel", job_id, deployment=waiting))
    how = "finished and expired" if state is JobState.EXPIRED else state.value
    assert line == f"Nothing to cancel: Segmentation {job_id} had already {how}."
    assert waiting.row(job_id).state == state


def test_a_running_job_is_stopped(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(heartbeat_seconds=0.5), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(4000), SLOW_MODEL)
    wait_until_running(deployment, job_id)
    result = segint("cancel", job_id, deployment=deployment)
    assert (result.exit_code, result.stdout) == (
        0,
        f"Segmentation {job_id} is running; it will be stopped within seconds.\n",
    )
    wait_for(lambda: deployment.row(job_id).state == JobState.CANCELLED, "the job to be cancelled")
    shown = segint("job", job_id, deployment=deployment).stdout
    assert re.search(r"(?m) claimed +1 +\S+:\d+$", shown)
