"""The status page of a job and its stream: place, estimate, time line, live."""

import json
import threading
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from services.core.jobs import JobState
from tests.api.test_finished_segmentations import put_into
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment, http, request_body, wait_for
from tests.slow_model import SLOW_MODEL, sleeping, wait_until_running, with_slow_model


@pytest.fixture(scope="module")
def waiting(new_deployment: MakeDeployment) -> Deployment:
    """Nobody works here, so every job waits."""
    return new_deployment().import_sample().start_api()


def status(deployment: Deployment, job_id: object) -> dict[str, Any]:
    response = http.get(f"{deployment.url}/api/segint/v1/jobs/{job_id}", timeout=30)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return dict(response.json())


def kinds(document: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in document["events"]]


def test_a_waiting_job_tells_its_place(waiting: Deployment) -> None:
    before = status(waiting, waiting.submit())["queue_position"]
    document = status(waiting, waiting.submit())
    assert document["queue_position"] == before + 1
    assert (document["state"], document["percent"], document["attempt"]) == ("queued", 0, 0)
    assert document["model"] == SAMPLE_MODEL
    assert document["priority"] == "interactive"
    assert document["remaining_seconds"] is None
    assert document["error"] is None
    assert document["result"] is None
    assert document["input"]["bytes"] == len(request_body())
    assert len(document["input"]["sha256"]) == 64
    assert kinds(document) == ["accepted"]
    assert document["created_at"].endswith("+00:00")


@pytest.mark.parametrize("job_id", [uuid4(), "nonsense"])
def test_what_is_not_there_is_refused_in_words(waiting: Deployment, job_id: object) -> None:
    response = http.get(f"{waiting.url}/api/segint/v1/jobs/{job_id}")
    assert response.status_code == 400
    assert response.json()["ErrorMessage"] == "Segmentation not found"
    assert http.get(f"{waiting.url}/api/segint/v1/jobs/{job_id}/events").status_code == 400


def test_a_failed_job_tells_why_and_an_expired_one_is_still_told_of(waiting: Deployment) -> None:
    failed = put_into(waiting, JobState.FAILED, error_code=3, error_text="The voxel data is not gzip.")
    assert status(waiting, failed)["error"] == {"code": "DECOMPRESSION", "text": "The voxel data is not gzip."}
    expired = put_into(waiting, JobState.EXPIRED)
    assert status(waiting, expired)["state"] == "expired"


def test_it_asks_for_credentials_where_the_deployment_does(own_deployment: MakeDeployment) -> None:
    guarded = own_deployment(trusted_networks="").import_sample().start_api()
    for suffix in ("", "/events"):
        assert http.get(f"{guarded.url}/api/segint/v1/jobs/{uuid4()}{suffix}").status_code == 401


def events_of(deployment: Deployment, job_id: UUID) -> Generator[dict[str, Any]]:
    """Each document that the stream sends, until it ends."""
    with http.stream("GET", f"{deployment.url}/api/segint/v1/jobs/{job_id}/events", timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                assert name == "job"
                yield json.loads(value)


def test_the_stream_follows_a_job_to_its_end(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a model with a history, and a job that waits for a worker
    deployment = with_slow_model(own_deployment(jobs_at_once=1), tmp_path).start_api().start_worker()
    history = deployment.submit(sleeping(40), SLOW_MODEL)
    deployment.finished(history, SLOW_MODEL)
    first, second = (deployment.submit(sleeping(40), SLOW_MODEL) for _ in range(2))
    # When it is followed
    documents = list(events_of(deployment, second))
    # Then it goes from the queue to the end, never backwards, each change once
    states = [document["state"] for document in documents]
    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert "running" in states
    percents = [document["percent"] for document in documents]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert all(one != next_one for one, next_one in pairwise(documents))
    # and the estimate is about what it takes
    estimates = [document["remaining_seconds"] for document in documents if document["state"] == "queued"]
    typical = deployment.row(history).run_seconds
    assert typical is not None
    assert all(1 < estimate < 2 * typical + 1 for estimate in estimates), estimates
    last = documents[-1]
    assert kinds(last) == ["accepted", "claimed", "succeeded"]
    assert last["result"]["bytes"] > 0
    assert last["events"][1]["worker"] == last["worker"]
    assert status(deployment, first)["state"] == "succeeded"


def test_a_stream_of_a_finished_job_says_so_and_ends(waiting: Deployment) -> None:
    [document] = events_of(waiting, put_into(waiting, JobState.CANCELLED))
    assert document["state"] == "cancelled"


def test_a_server_that_stops_ends_its_streams(own_deployment: MakeDeployment) -> None:
    # Given a stream of a job that nobody will run
    deployment = own_deployment().import_sample().start_api()
    job_id = deployment.submit()
    seen: list[dict[str, Any]] = []
    ended = threading.Event()

    def follow() -> None:
        try:
            seen.extend(events_of(deployment, job_id))
        except httpx.TransportError:
            pass
        finally:
            ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: http.get(f"{deployment.url}/healthz").status_code == 200, "the API")
    # When the server is told to stop, Then it does not wait for the watcher
    deployment.stop("api")
    assert ended.wait(10)
    thread.join()


def test_a_stream_outlives_nothing_when_its_watcher_goes(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(60), SLOW_MODEL)
    wait_until_running(deployment, job_id)
    for _ in range(70):  # more than may be open at one time
        stream = events_of(deployment, job_id)
        next(stream)
        stream.close()
    assert deployment.finished(job_id, SLOW_MODEL).percent == 100
