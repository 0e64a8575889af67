"""The probe of a worker: it fails where the worker hangs, and not where something else is slow or away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.core.blobs import IDENTITY_FILE
from services.core.queue import Doorbell
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, wait_for

STILL_ALIVE_SECONDS = 60.0
SOON_SECONDS = 1.0
"""Of the probe, where the worker is to be seen to have stopped: five times what this worker takes to write."""
FAR_OFF = "redis://127.0.0.1:1/0"


def probe(heartbeat: Path | None, limit_seconds: float = STILL_ALIVE_SECONDS) -> tuple[int, str]:
    """Exit code and what the probe said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGINT_")}
    environment |= {} if heartbeat is None else {"SEGINT_HEARTBEAT_FILE": str(heartbeat)}
    command = [sys.executable, "-m", "services.worker.alive", "--limit-seconds", str(limit_seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=30)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def heartbeat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heartbeat") / "alive"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, heartbeat: Path) -> Deployment:
    """With a worker that is ready."""
    made = new_deployment(heartbeat_file=heartbeat).start_api().import_sample()
    made.start_worker(module="tests.impatient_worker")
    made.finished(made.submit())
    wait_for(lambda: probe(heartbeat)[0] == 0, "the first sign of life")
    return made


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def worker_process(deployment: Deployment) -> psutil.Process:
    """The one that works, a child of the one that was started."""
    children = psutil.Process(deployment.processes["worker"].pid).children()
    return next(child for child in children if child.name() == psutil.Process(child.ppid()).name())


def test_a_worker_that_lives_and_one_that_is_frozen(deployment: Deployment, heartbeat: Path) -> None:
    # Given a worker that has nothing to do, Then it is alive by a strict limit too
    wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 0, "a sign of life")
    # When it is frozen, Then the probe fails, and says how old the last sign is
    with frozen(worker_process(deployment)):
        wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 1, "the probe to fail")
        assert probe(heartbeat, SOON_SECONDS)[1].startswith("The worker's last sign of life is ")
    # and once it is not any more, it is alive again
    wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 0, "a sign of life after that")


def test_a_worker_whose_main_loop_hangs(deployment: Deployment, heartbeat: Path) -> None:
    # Given a volume that lets nobody read, as a network file system whose server is gone
    deployment.stop("api")
    identity = deployment.volume_dir / IDENTITY_FILE
    kept = identity.rename(identity.with_suffix(".kept"))
    os.mkfifo(identity)
    doorbell = Doorbell(deployment.settings.redis_url, deployment.settings.redis_namespace)
    try:
        # When the worker looks for a job, Then it hangs: its process lives, and the probe fails all the same
        doorbell.ring()
        wait_for(lambda: "hanging: work" in deployment.log_of("worker").read_text(), "the worker to tell")
        wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 1, "the probe to fail")
        assert deployment.processes["worker"].poll() is None
    finally:
        # When the volume answers, Then the worker is alive again
        identity.write_text(kept.read_text())
        kept.rename(identity)
        doorbell.close()
    wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 0, "a sign of life after that")


def test_a_worker_without_redis_is_alive(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a worker whose Redis never answers, Then it is alive: to start it again would bring no Redis
    heartbeat = tmp_path / "alive"
    made = own_deployment(heartbeat_file=heartbeat)
    made.start_worker(module="tests.impatient_worker", environment={"SEGINT_REDIS_URL": FAR_OFF})
    wait_for(lambda: "Restarting consumer" in made.log_of("worker").read_text(), "an attempt to listen")
    wait_for(lambda: probe(heartbeat, SOON_SECONDS)[0] == 0, "a sign of life")


def test_a_file_that_cannot_be_written_is_one_sentence(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    made = own_deployment(heartbeat_file=tmp_path / "missing" / "alive")
    made.start_worker()
    wait_for(lambda: made.processes["worker"].poll() is not None, "the worker to give up")
    assert "which cannot be written (No such file or directory)" in made.log_of("worker").read_text()
    made.processes.pop("worker")


def test_what_an_earlier_worker_left_is_no_sign_of_life(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a file as good as new, and a worker in its place that does not become ready
    heartbeat = tmp_path / "alive"
    heartbeat.write_text(f"{time.monotonic():.3f}\n", encoding="ascii")
    assert probe(heartbeat)[0] == 0
    made = own_deployment(heartbeat_file=heartbeat)
    made.start_worker(environment={"SEGINT_POOL_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""})
    wait_for(lambda: made.processes["worker"].poll() is not None, "the worker to give up")
    # Then the probe fails
    assert probe(heartbeat)[0] == 1
    made.processes.pop("worker")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not there: the worker is not ready yet"),
        ("yesterday\n", "cannot be read"),
        ("99999999999.0\n", "last sign of life is -"),
    ],
    ids=["missing", "another's", "before this machine started"],
)
def test_a_file_that_is_no_sign_of_life(tmp_path: Path, content: str | None, sentence: str) -> None:
    heartbeat = tmp_path / "alive"
    if content is not None:
        heartbeat.write_text(content, encoding="ascii")
    code, said = probe(heartbeat)
    assert code == 1
    assert sentence in said
    assert said.count("\n") == 1


def test_without_the_setting_the_probe_says_so() -> None:
    assert probe(None) == (1, "SEGINT_HEARTBEAT_FILE is not set; give it to the worker and to this probe.\n")


def test_the_probe_loads_no_library() -> None:
    # Given a probe that runs every few seconds beside a worker, Then it imports nothing that takes time
    heavy = "{'torch', 'numpy', 'pydantic', 'dramatiq'}"
    code = f"import sys; import services.worker.alive; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=30)
    assert done.stdout == "[]\n"
