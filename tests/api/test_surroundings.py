"""What the API answers when what it needs is away, full or busy."""

import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from services.core.db import migrate
from services.core.settings import Settings
from services.core.wire.refusals import decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, Deployment, http, request_body, small_volume, wait_for

SUBMIT = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


# --- Too many uploads ----------------------------------------------------------------------------------------


def test_one_upload_too_many_is_503_with_retry_after(own_deployment: MakeDeployment) -> None:
    # Given a server that takes one upload at a time, and one that is under way
    deployment = own_deployment(max_concurrent_uploads=1).import_sample().start_api()
    body = request_body()
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:1000])
        wait_for(deployment.files, "the first upload to be under way")
        # When another comes
        response = deployment.post(SUBMIT, body)
        # Then it is told to come back, and the first one still completes
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "1 uploads are under way" in decode_refusal(response.content).details
        connection.sendall(body[1000:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert deployment.post(SUBMIT, body).status_code == 200


# --- Volume full ---------------------------------------------------------------------------------------------


def test_a_full_volume_is_507_and_leaves_nothing(own_deployment: MakeDeployment) -> None:
    # Given a server whose kernel refuses to let files grow beyond 64 KiB
    deployment = own_deployment().import_sample().start_api()
    pid = deployment.processes["api"].pid
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (65536, hard))
    # When more is uploaded
    response = deployment.post(SUBMIT, request_body())
    # Then it says so, nothing is left, and with room again the next one passes
    assert response.status_code == 507
    assert "full" in decode_refusal(response.content).details
    assert deployment.files() == []
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert deployment.post(SUBMIT, request_body()).status_code == 200


# --- Database and Redis away ---------------------------------------------------------------------------------


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[LocalPostgres]:
    with LocalPostgres(tmp_path / "pg", fsync=False) as server:
        server.create_database("segint")
        migrate.upgrade(server.url("segint"))
        yield server


def test_a_database_that_takes_no_writes_is_503_and_not_ready(
    own_postgres: LocalPostgres, redis_server: LocalRedis, tmp_path: Path
) -> None:
    settings = Settings(
        database_url=own_postgres.url("segint"), redis_url=redis_server.url, volume_dir=tmp_path / "volume"
    )
    with Deployment(settings, log_dir=tmp_path) as deployment:
        deployment.import_sample().start_api()
        # Given PostgreSQL turned into what a standby is to its clients
        _on(own_postgres, "ALTER SYSTEM SET default_transaction_read_only = on")
        _on(own_postgres, "SELECT pg_reload_conf()")
        wait_for(lambda: http.get(deployment.url + "/readyz").status_code == 503, "the API to notice")
        # Then nothing can be stored, and no word of the client is in the log
        secret = b"\x22\x0bPATIENT-DOE"  # GeneralComments
        response = deployment.post("/api/v2/Feedback/segmentation", secret)
        assert response.status_code == 503
        assert "takes no writes" in decode_refusal(response.content).details
        assert "PATIENT-DOE" not in (tmp_path / "api.log").read_text(encoding="utf-8")


def _on(postgres: LocalPostgres, statement: str) -> None:
    with psycopg.connect(postgres.url("segint"), autocommit=True) as connection:
        connection.execute(statement)


def test_a_schema_that_is_not_there_is_not_ready(
    empty_database: Callable[[], str], redis_server: LocalRedis, tmp_path: Path
) -> None:
    settings = Settings(database_url=empty_database(), redis_url=redis_server.url, volume_dir=tmp_path / "volume")
    with Deployment(settings, log_dir=tmp_path) as deployment:
        deployment.start_api(until_ready=False)
        wait_for(deployment.answers, "the API to answer")
        ready = http.get(deployment.url + "/readyz")
        assert ready.status_code == 503
        assert "run the migrations" in ready.json()["checks"]["database"]


def test_a_volume_that_cannot_be_written_is_not_ready(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().start_api()
    (deployment.volume_dir / "segmentation").rename(deployment.volume_dir / "away")
    ready = http.get(deployment.url + "/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "ok")
    assert "segmentation" in ready.json()["checks"]["volume"]


def test_a_large_upload_is_streamed_not_held(own_deployment: MakeDeployment) -> None:
    """The API's memory grows by far less than the body's 200 MB."""
    deployment = own_deployment().import_sample().start_api()
    deployment.submit()
    before = _peak_kib(deployment)
    volume = small_volume((200, 512, 1024))
    body = request_body(volume)
    assert len(body) > 150e6
    assert deployment.post(SUBMIT, body).status_code == 200
    # The mapped file is not counted: it is the page cache's.
    assert _peak_kib(deployment) - before < 64 * 1024


def _peak_kib(deployment: Deployment) -> int:
    status = Path(f"/proc/{deployment.processes['api'].pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
