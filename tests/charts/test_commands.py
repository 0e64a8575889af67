"""The containers' own commands, with the environment that the chart gives them, on this machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.client.local.redis import LocalRedis
from services.core.db import tokens
from services.core.db.session import Database, Session
from services.core.model_library import ModelLibrary
from tests.charts.rendering import CHART, Document, Rendered, render, values_of
from tests.charts.test_settings import environment_of
from tests.database_roles import REFUSED, as_role
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL, http, wait_for
from tests.ports import free_port

ROOT = CHART.parents[1]
"""What the images have at /app."""
END_SECONDS = 150
AUDITED = 3
"""A family imported, a model attached, a token made."""


class Machine:
    """Runs containers of one release as processes: other addresses and folders, but nothing else is different.

    The database is the owner's, who migrates; the services come as another role.
    """

    def __init__(self, folder: Path, owner_url: str, redis_url: str) -> None:
        self.rendered: Rendered = render({**values_of("minimal"), "test": {"tokenSecret": "token"}})
        self.database_url = as_role(owner_url, f"r_{uuid4().hex}")
        self.folder = folder
        self.port = free_port()
        self.volume = folder / "volume"
        self.volume.mkdir()
        self._differs = {
            "SEGINT_DATABASE_URL": self.database_url,
            "SEGINT_MIGRATION_DATABASE_URL": owner_url,
            "SEGINT_REDIS_URL": redis_url,
            "SEGINT_VOLUME_DIR": str(self.volume),
            "SEGINT_HEARTBEAT_FILE": str(folder / "heartbeat"),
            "SEGINT_WORKER_METRICS_PORT": str(free_port()),
            "SEGINT_MIN_FREE_BYTES": "0",  # the disk that tests run on may be nearly full
        }

    def container(self, kind: str, name: str, *, first: bool = False) -> Document:
        """A container of the pod that this document describes; the `first` one is an init container."""
        (document,) = (one for one in self.rendered.of_kind(kind) if one["metadata"]["name"].startswith(f"rel-{name}"))
        spec = document["spec"] if kind == "Pod" else document["spec"]["template"]["spec"]
        return dict(spec["initContainers" if first else "containers"][0])

    def environment(self, container: Document) -> dict[str, str]:
        given = environment_of("minimal", container)
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **{name: self._differs.get(name, value) for name, value in given.items() if name.startswith("SEGINT_")},
        }

    def command(self, command: list[str]) -> list[str]:
        """The command as it is started here."""
        here = {
            "--port=8080": f"--port={self.port}",
            "--server=http://rel-api:8080": f"--server=http://127.0.0.1:{self.port}",
            "--token-file=/segint-token/token": f"--token-file={self.folder / 'token'}",
            "/segint-test/segment_phantom.py": str(CHART / "files" / "segment_phantom.py"),
        }
        program, *arguments = (here.get(one, one) for one in command)
        return [sys.executable, *(["-m", program] if program != "python" else []), *arguments]

    def run(self, container: Document, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a container's command, or a probe's, to its end."""
        return subprocess.run(
            self.command(command or container["command"]),
            cwd=ROOT,
            env=self.environment(container),
            capture_output=True,
            encoding="utf-8",
            timeout=END_SECONDS,
            check=False,
        )

    @contextmanager
    def running(self, container: Document) -> Iterator[subprocess.Popen[bytes]]:
        """A container's process, that ends with SIGTERM as pods do, and has to end by itself."""
        with (self.folder / f"{container['name']}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(container["command"]),
                cwd=ROOT,
                env=self.environment(container),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
            process.terminate()
            ended = process.wait(END_SECONDS)
            # uvicorn closes everything, then ends by the signal that it was sent.
            assert ended in {0, -signal.SIGTERM}, f"{container['name']} ended with {ended}"
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def machine(
    empty_database: Callable[[], str], redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    """A release on a database without a schema, and an empty volume."""
    return Machine(tmp_path_factory.mktemp("machine"), empty_database(), redis_server.url)


def test_a_release_migrates_starts_segments_and_stops(machine: Machine) -> None:
    # Given the Job of the migrations, for which the other pods wait
    job = machine.container("Job", "migrate")
    migrated = machine.run(job)
    assert migrated.returncode == 0, migrated.stderr
    for deployment in ("api", "worker-cpu"):
        waited = machine.run(machine.container("Deployment", deployment, first=True))
        assert waited.returncode == 0, waited.stderr
    api, worker = machine.container("Deployment", "api"), machine.container("Deployment", "worker-cpu")
    alive = worker["startupProbe"]["exec"]["command"]
    assert machine.run(worker, alive).returncode == 1, "the probe passes where there is no worker"
    with machine.running(api), machine.running(worker):
        # When the probes find both ready
        wait_for(lambda: probed(machine, api, "startupProbe"), "the API's start-up probe")
        wait_for(lambda: probed(machine, api, "readinessProbe"), "the API's readiness probe")
        assert probed(machine, api, "livenessProbe")
        wait_for(lambda: machine.run(worker, alive).returncode == 0, "the worker's start-up probe")
        assert machine.run(worker, worker["livenessProbe"]["exec"]["command"]).returncode == 0
        # And there is a model, and a token in the Secret that the test names
        prepare(machine)
        tested = machine.run(machine.container("Pod", "test"))
        # Then the release segments, and its processes end when they are told to
        assert tested.returncode == 0, tested.stderr
        assert f"«{SAMPLE_MODEL}» segmented a phantom" in tested.stdout
        # And what was done is in an audit that the services' role can only add to
        database = Database(machine.database_url)
        try:
            for statement in REFUSED:
                with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
                    database.run(execute, statement)
        finally:
            database.close()
        verified = machine.run(api, ["python", "-m", "services.client.cli", "audit", "verify", "--json"])
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["entries"] >= AUDITED


def execute(session: Session, statement: str) -> None:
    session.execute(text(statement))


def probed(machine: Machine, container: Document, probe: str) -> bool:
    path = container[probe]["httpGet"]["path"]
    try:
        return http.get(f"http://127.0.0.1:{machine.port}{path}", timeout=10).is_success
    except httpx.TransportError:
        return False


def prepare(machine: Machine) -> None:
    environment = machine.environment(machine.container("Deployment", "api"))
    with ModelLibrary(database_url=environment["SEGINT_DATABASE_URL"], volume_dir=machine.volume) as library:
        library.import_family(SAMPLE_FAMILY.read_bytes())
        library.attach(SAMPLE_MODEL, runtime="phantom")
    database = Database(environment["SEGINT_DATABASE_URL"])
    try:
        _, secret = database.run(
            lambda session: tokens.create_token(session, name="helm-test", scopes=("segment",), actor="command")
        )
    finally:
        database.close()
    (machine.folder / "token").write_text(secret, encoding="ascii")
