"""A whole deployment of real processes for the tests, and ways to speak to it as a client does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import numpy as np

from services.core.db.session import Database
from services.core.model_library import ModelLibrary
from services.core.settings import Settings
from services.core.volumes import Volume
from services.core.wire.model_input import encode_model_input
from services.core.wire.model_output import ModelOutput, decode_model_output
from services.core.wire.segmentations import Progress, decode_progress, decode_task

T = TypeVar("T")

PROTOBUF = "application/x-protobuf"
SAMPLE_FAMILY = Path(__file__).parents[1] / "services" / "client" / "samples" / "Centered_Square.pb"
SAMPLE_MODEL = "Centered Orange Square"
LIMIT_SECONDS = 30.0


def wait_for(condition: Callable[[], T], what: str, limit_seconds: float = LIMIT_SECONDS) -> T:
    """Poll until `condition` gives something true, and give it back."""
    deadline = time.monotonic() + limit_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_seconds:g} s in vain for {what}")
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def small_volume(shape: tuple[int, int, int] = (8, 80, 100), channel_id: str = "1") -> Volume:
    """Noise that differs from voxel to voxel."""
    voxels = np.random.default_rng(7).integers(-1000, 2000, shape).astype(np.int16)
    return Volume(voxels, channel_id=channel_id)


def request_body(*volumes: Volume) -> bytes:
    return encode_model_input(volumes or (small_volume(),), client_version="tests 1.0")


@dataclass
class Deployment:
    """API and worker of one database, Redis namespace and volume. `environment` adds or overrides SEGINT_ settings."""

    settings: Settings
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    log_dir: Path = field(default=Path())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def volume_dir(self) -> Path:
        return self.settings.volume_dir

    def start_api(self, *, until_ready: bool = True) -> Self:
        command = ["uvicorn", "--factory", "services.api.app:create_app_from_environment"]
        self._start("api", [*command, "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log"])
        if until_ready:
            wait_for(self.ready, f"the API; its log is {self.log_dir / 'api.log'}")
        return self

    def start_worker(self, name: str = "worker", module: str = "services.worker") -> Self:
        self._start(name, [module])
        return self

    def _start(self, name: str, arguments: list[str]) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEGINT_")}
        environment |= {
            "SEGINT_DATABASE_URL": self.settings.database_url,
            "SEGINT_REDIS_URL": self.settings.redis_url,
            "SEGINT_REDIS_NAMESPACE": self.settings.redis_namespace,
            "SEGINT_VOLUME_DIR": str(self.settings.volume_dir),
            "SEGINT_JANITOR_INTERVAL_SECONDS": "0.2",
            "SEGINT_MIN_FREE_BYTES": "0",  # the disk that tests run on may be nearly full
            **self.environment,
        }
        with (self.log_dir / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=log
            )

    def ready(self) -> bool:
        return self.answers() and httpx.get(f"{self.url}/readyz").status_code == 200

    def answers(self) -> bool:
        if self.processes["api"].poll() is not None:
            raise AssertionError((self.log_dir / "api.log").read_text()[-3000:])
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, *names: str, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.send_signal(stop_signal)
            process.wait(LIMIT_SECONDS)

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

    # As a client

    def post(self, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF} | {k.replace("_", "-"): v for k, v in headers.items()}
        return httpx.post(f"{self.url}{path}", content=body, headers=headers, timeout=30)

    def get(self, path: str, accept: str = PROTOBUF, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={"Accept": accept}, timeout=30, **options)

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
