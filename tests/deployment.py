"""A whole deployment of real processes for the tests, and ways to speak to it as a client does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import numpy as np
from sqlalchemy import select

from services.client.local import children
from services.core.db import tokens
from services.core.db.session import Database
from services.core.db.tables import SegmentationJobRow
from services.core.errors import DatabaseUnavailable
from services.core.model_library import ModelLibrary
from services.core.settings import Settings
from services.core.volumes import Volume
from services.core.wire.model_input import encode_model_input
from services.core.wire.model_output import ModelOutput, decode_model_output
from services.core.wire.segmentations import Progress, decode_progress, decode_task
from tests.ports import free_port

T = TypeVar("T")

http = httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))
"""Requests that share neither connections nor cookies, only what `httpx.get` and its like make anew for each: a TLS
context. That took 25 ms of processor time, more than everything else that a poll does."""
http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

PROTOBUF = "application/x-protobuf"
SAMPLE_FAMILY = Path(__file__).parents[1] / "services" / "client" / "samples" / "Centered_Square.pb"
SAMPLE_MODEL = "Centered Orange Square"
LIMIT_SECONDS = 60.0
"""For anything that is waited for; far more than it takes on a machine that has nothing else to do."""


def wait_for(condition: Callable[[], T], what: str, limit_seconds: float = LIMIT_SECONDS) -> T:
    """Poll until `condition` gives something true, and give it back.

    The longer it takes, the less often is asked: what is asked often slows down what is waited for.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > limit_seconds:
            raise AssertionError(f"waited {limit_seconds:g} s in vain for {what}")
        time.sleep(min(0.1, 0.02 + 0.05 * waited))
    return value


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ends in time; its group is killed if not."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not children.has_ended(process):
        if time.monotonic() > deadline:
            children.kill_group(process.pid)
            process.wait()
            return False
        time.sleep(0.02)
    return True


@lru_cache(maxsize=16)
def _polled_database(url: str) -> Database:
    """Kept because to make one costs several times what one look at a job does; its connections are not."""
    return Database(url)


def small_volume(shape: tuple[int, int, int] = (8, 80, 100), channel_id: str = "1") -> Volume:
    """Noise that differs from voxel to voxel."""
    voxels = np.random.default_rng(7).integers(-1000, 2000, shape).astype(np.int16)
    return Volume(voxels, channel_id=channel_id)


def request_body(*volumes: Volume) -> bytes:
    return encode_model_input(volumes or (small_volume(),), client_version="tests 1.0")


@dataclass(frozen=True)
class Command:
    """How a process was started, so that it can be started again."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass
class Deployment:
    """API and worker processes of one database, Redis namespace and volume.

    `environment` adds or overrides SEGINT_ settings of all of them; each `start_` takes more for its own process.
    What is asked for as a client goes to the API process on `port`, which is «api» unless `at` says otherwise.
    """

    settings: Settings
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    log_dir: Path = field(default=Path())
    ports: dict[str, int] = field(default_factory=dict)
    """Of the API processes, by name. A process that is started again keeps its port."""
    commands: dict[str, Command] = field(default_factory=dict)
    """Of every process that was ever started, by name."""
    token: str | None = None
    """What it presents as a client."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def volume_dir(self) -> Path:
        return self.settings.volume_dir

    def at(self, api: str) -> Self:
        """The same deployment, spoken to through the API process of that name."""
        return replace(self, port=self.ports[api])

    def start_api(
        self,
        name: str = "api",
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        application: str = "services.api.app:create_app_from_environment",
        until_ready: bool = True,
    ) -> Self:
        """Start an API process, or another `application`'s; `arguments` go to uvicorn."""
        port = self.ports.setdefault(name, self.port if name == "api" else free_port())
        options = ("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--no-proxy-headers", *arguments)
        self._start(name, Command(("uvicorn", "--factory", application, *options), environment or {}))
        if until_ready:
            wait_for(lambda: self.ready(name), f"the API; its log is {self.log_of(name)}")
        return self

    def start_worker(
        self,
        name: str = "worker",
        module: str = "services.worker",
        environment: Mapping[str, str] | None = None,
        *,
        until_ready: bool = False,
    ) -> Self:
        """Start a worker; `until_ready` waits until it listens for doorbells."""
        log = self.log_of(name)
        read_bytes = log.stat().st_size if log.exists() else 0
        self._start(name, Command((module,), environment or {}))

        def listens() -> bool:
            said = log.read_bytes()[read_bytes:]
            if self.processes[name].poll() is not None:
                raise AssertionError(said.decode()[-3000:])
            return b"ready for action" in said

        if until_ready:
            wait_for(listens, f"the worker {name}; its log is {log}")
        return self

    def start_again(self, name: str) -> None:
        """Start a process that has ended in the way it was started before."""
        self._start(name, self.commands[name])

    def _start(self, name: str, command: Command) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SEGINT_")}
        environment = inherited | self.surroundings_of(name) | self.environment | dict(command.environment)
        self.commands[name] = command
        with self.log_of(name).open("ab") as log:
            # A session of its own: when a worker's first process is killed, its group is how the others are found.
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command.arguments],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def surroundings_of(self, name: str) -> dict[str, str]:
        """What the process of that name is told about where things are."""
        return {
            "SEGINT_DATABASE_URL": self.settings.database_url,
            "SEGINT_REDIS_URL": self.settings.redis_url,
            "SEGINT_REDIS_NAMESPACE": self.settings.redis_namespace,
            "SEGINT_VOLUME_DIR": str(self.settings.volume_dir),
            "SEGINT_JANITOR_INTERVAL_SECONDS": "0.5",  # many API processes are alive at once
            "SEGINT_AUTH": "required",
            "SEGINT_TRUSTED_NETWORKS": "127.0.0.1",
            "SEGINT_MIN_FREE_BYTES": "0",  # the disk that tests run on may be nearly full
        }

    def log_of(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def ready(self, name: str = "api") -> bool:
        return self.answers(name) and self._answers(name, "/readyz")

    def answers(self, name: str = "api") -> bool:
        if self.processes[name].poll() is not None:
            raise AssertionError(self.log_of(name).read_text()[-3000:])
        return self._answers(name, "/healthz")

    def _answers(self, name: str, path: str) -> bool:
        try:
            return http.get(f"{self.at(name).url}{path}").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, *names: str, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Signal the named processes, or all, and wait for their end. What does not end in time is killed and told."""
        stopping = {name: self.processes.pop(name) for name in names or tuple(self.processes)}
        for process in stopping.values():
            process.send_signal(stop_signal)
        late = [name for name, process in stopping.items() if not _ends(process)]
        if late:
            raise AssertionError(f"{', '.join(late)} did not end within {LIMIT_SECONDS:g} s and had to be killed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # As an administrator

    def library(self) -> ModelLibrary:
        return ModelLibrary(database_url=self.settings.database_url, volume_dir=self.settings.volume_dir)

    def import_sample(self) -> Self:
        with self.library() as library:
            library.import_family(SAMPLE_FAMILY.read_bytes())
            library.attach(SAMPLE_MODEL, runtime="phantom")
        return self

    def database(self) -> Database:
        return Database(self.settings.database_url)

    def row(self, job_id: UUID) -> SegmentationJobRow:
        database = _polled_database(self.settings.database_url)
        query = select(SegmentationJobRow).where(SegmentationJobRow.id == job_id)

        def look() -> SegmentationJobRow | None:
            try:
                return database.run(lambda session: session.scalars(query).one())
            except DatabaseUnavailable:  # a busy machine may be late to let this one in as well
                return None
            finally:
                database.close()

        found = wait_for(look, "PostgreSQL to answer")
        assert found is not None
        return found

    def new_token(self, name: str, *scopes: str, **options: Any) -> str:
        """The secret of a new token."""
        database = self.database()
        try:
            _, secret = database.run(
                lambda session: tokens.create_token(session, name=name, scopes=scopes, actor="command", **options)
            )
            return secret
        finally:
            database.close()

    # As a client

    def with_token(self, secret: str | None) -> Self:
        """The same deployment, as seen by whoever presents that token."""
        return replace(self, token=secret)

    @property
    def credentials(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def post(self, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF} | {k.replace("_", "-"): v for k, v in headers.items()}
        headers = self.credentials | headers
        return http.post(f"{self.url}{path}", content=body, headers=headers, timeout=30)

    def get(self, path: str, accept: str = PROTOBUF, **options: Any) -> httpx.Response:
        return http.get(f"{self.url}{path}", headers={"Accept": accept} | self.credentials, timeout=30, **options)

    def submit(self, body: bytes | None = None, model: str = SAMPLE_MODEL) -> UUID:
        response = self.post(f"/api/v2/Model/{quote(model, safe='')}/segmentation", body or request_body())
        assert response.status_code == 200, response.content
        return decode_task(response.content).segmentation_id

    def progress(self, job_id: UUID, model: str = SAMPLE_MODEL) -> Progress:
        response = self.get(f"/api/v2/Model/{quote(model, safe='')}/segmentation/{job_id}")
        assert response.status_code == 200, response.content
        return decode_progress(response.content)

    def finished(self, job_id: UUID, model: str = SAMPLE_MODEL, limit_seconds: float = LIMIT_SECONDS) -> Progress:
        """Poll as Velocity does: until 100 or an error."""

        def verdict() -> Progress | None:
            progress = self.progress(job_id, model)
            return progress if progress.percent == 100 or progress.error_text else None

        found = wait_for(verdict, f"a verdict on {job_id}", limit_seconds)
        assert found is not None
        return found

    def result(self, job_id: UUID, model: str = SAMPLE_MODEL) -> ModelOutput:
        response = self.get(f"/api/v2/Model/{quote(model, safe='')}/segmentation/{job_id}/result")
        assert response.status_code == 200, response.content
        return decode_model_output(response.content)

    def files(self, *folders: str) -> list[str]:
        """Names of the files on the volume below these folders."""
        names = folders or ("segmentation", "results")
        return sorted(path.name for folder in names for path in (self.volume_dir / folder).iterdir())
