"""Every process is replaced, one after the other, while clients are at work: none of their requests fails."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from services.core.jobs import JobState
from services.core.wire.segmentations import decode_task
from tests.deployment import LIMIT_SECONDS, PROTOBUF, SAMPLE_MODEL, http, request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.verdicts import files_of
from tests.slow_model import SLOW_MODEL, Gate, wait_until_running, with_slow_model

APIS, WORKERS = ("api", "second"), ("one", "two")
CLIENTS = 4
LEAST_JOBS = 2 * CLIENTS
"""That every client has met more than one state of the deployment."""


class LoadBalancer:
    """Gives each request to one of the servers in rotation, in turn, as a proxy in front of a deployment does."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        self._rotation = list(servers)
        self._using: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def server(self) -> Iterator[str]:
        """The server for one request."""
        with self._changed:
            name = self._rotation[0]
            self._rotation.append(self._rotation.pop(0))
            self._using[name] += 1
        try:
            yield name
        finally:
            with self._changed:
                self._using[name] -= 1
                self._changed.notify_all()

    def take_out(self, name: str) -> None:
        """Give this server nothing more, and wait until it has answered what it has."""
        with self._changed:
            self._rotation.remove(name)
            assert self._changed.wait_for(lambda: not self._using[name], LIMIT_SECONDS)

    def put_in(self, name: str) -> None:
        with self._changed:
            self._rotation.append(name)


@pytest.fixture(scope="module")
def site(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> BreakableDeployment:
    deployment = new_breakable(lease_seconds=30, drain_seconds=50)
    with_slow_model(deployment.import_sample(), tmp_path_factory.mktemp("slow"))
    for name in APIS:
        deployment.start_api(name, "--timeout-graceful-shutdown", "50")
    for name in WORKERS:
        deployment.start_worker(name, until_ready=True)
    return deployment


def test_a_rolling_restart_fails_no_request(site: BreakableDeployment) -> None:
    balancer = LoadBalancer(APIS)
    enough = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as clients:
        # Given clients that submit, poll and fetch all the time
        at_work = [clients.submit(segment_again_and_again, site, balancer, enough) for _ in range(CLIENTS)]
        try:
            # When every process is replaced
            for name in APIS:
                replace_api(site, balancer, name)
            for name in WORKERS:
                site.stop(name)
                site.start_worker(name, until_ready=True)
        finally:
            enough.set()
        # Then no request has failed, and each job was done once
        jobs = [job_id for client in at_work for job_id in client.result()]
    assert len(jobs) >= LEAST_JOBS
    for job_id in jobs:
        row = site.row(job_id)
        assert (row.state, row.attempt) == (JobState.SUCCEEDED, 1)
        assert [row.result_file] == [name for name in files_of(site, job_id) if name in site.files("results")]


def segment_again_and_again(
    deployment: BreakableDeployment, balancer: LoadBalancer, enough: threading.Event
) -> list[UUID]:
    """One client; its requests raise what goes wrong with them."""
    done = []
    while not enough.is_set():
        with balancer.server() as name:
            job_id = deployment.at(name).submit()
        percent = 0
        while percent < 100:
            with balancer.server() as name:
                progress = deployment.at(name).progress(job_id)
            assert progress.error_text == ""
            percent = progress.percent
        with balancer.server() as name:
            assert deployment.at(name).result(job_id).channels
        done.append(job_id)
    return done


def replace_api(deployment: BreakableDeployment, balancer: LoadBalancer, name: str) -> None:
    """Restart one API process, in the middle of an upload that it has accepted."""
    upload = HalfAnUpload(deployment, name)
    balancer.take_out(name)
    process = deployment.processes.pop(name)
    process.terminate()
    wait_for(lambda: refuses(deployment.ports[name]), "it to take no more connections")
    job_id = upload.finish()
    assert process.wait(LIMIT_SECONDS) in {0, -15}
    deployment.start_again(name)
    wait_for(lambda: deployment.ready(name), "the API")
    balancer.put_in(name)
    assert deployment.at(name).finished(job_id).percent == 100


class HalfAnUpload:
    """An upload whose first half the server has when this is made."""

    def __init__(self, deployment: BreakableDeployment, name: str) -> None:
        body = request_body()
        path = f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation"
        labels = f"Content-Type: {PROTOBUF}\r\nAccept: {PROTOBUF}"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{labels}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._rest = body[len(body) // 2 :]
        self._connection = socket.create_connection(("127.0.0.1", deployment.ports[name]), timeout=LIMIT_SECONDS)
        known = {*deployment.files("segmentation")}
        self._connection.sendall(head.encode() + body[: len(body) // 2])
        wait_for(
            lambda: any(file.endswith(".part") for file in {*deployment.files("segmentation")} - known),
            "the upload to be under way",
        )

    def finish(self) -> UUID:
        """Send the other half, and give back the identifier that it is answered with."""
        with self._connection as connection:
            connection.sendall(self._rest)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        return decode_task(body).segmentation_id


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_open_event_stream_holds_up_no_restart(site: BreakableDeployment) -> None:
    """A job may run for many minutes; whoever watches it asks again, and another process goes on telling."""
    with Gate(site) as gate, ThreadPoolExecutor(1) as watcher:
        # Given somebody who watches a running job
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        began = threading.Event()
        watching: Future[list[str]] = watcher.submit(watch, site.at("second"), job_id, began)
        assert began.wait(LIMIT_SECONDS)
        # When the process that tells is told to stop, Then it does, well before its limit
        process = site.processes.pop("second")
        process.terminate()
        assert process.wait(25) in {0, -15}
        assert watching.result(LIMIT_SECONDS)[-1] == JobState.RUNNING
        # And another one tells the rest
        watching = watcher.submit(watch, site.at("api"), job_id, threading.Event())
        gate.open()
        assert watching.result(LIMIT_SECONDS)[-1] == JobState.SUCCEEDED
    site.start_again("second")


def watch(deployment: BreakableDeployment, job_id: UUID, began: threading.Event) -> list[str]:
    """The states that the stream tells, until it ends, or is cut: a browser's EventSource asks again after either."""
    states = []
    url = f"{deployment.url}/api/segint/v1/jobs/{job_id}/events"
    with suppress(httpx.RemoteProtocolError), http.stream("GET", url, timeout=LIMIT_SECONDS) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                states.append(json.loads(line.removeprefix("data:"))["state"])
                began.set()
    return states
