"""The API's image without an engine: its install steps run for real, and the API runs from what they made.

The base image is this machine's Python, the container's root a folder that only its owner may write.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from tests.deployment import http, wait_for
from tests.images.context import is_ignored
from tests.images.dockerfiles import ROOT, Stage, dockerfile
from tests.images.relay import as_port
from tests.ports import free_port

USER_ID = 10001
INSTALL_LIMIT_SECONDS = 240
INDEX_LIMIT_SECONDS = 10


def index_can_be_reached() -> bool:
    """Whether pip finds a small package of the lock; where it does not, nothing of this can be tried."""
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=0", "--timeout=5", "six"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*probe, "--dest", folder], capture_output=True, check=False, timeout=INDEX_LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A container's root, open to every user for reading: pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="segint-image-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        subprocess.run(["chmod", "-R", "u+w", folder], check=False)
        shutil.rmtree(folder)


def build(stage: Stage, root: Path) -> None:
    """Do what the stage's COPY and RUN instructions say below `root`, with paths that begin there."""
    source = root / "src"
    source.mkdir()
    bin_dir = base_python(root)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = inherited | {"PATH": f"{bin_dir}:/usr/bin:/bin", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= {"PIP_ROOT_USER_ACTION": "ignore", "LD_LIBRARY_PATH": str(root / "base" / "lib")}
    for instruction in stage.instructions:
        if instruction.name == "COPY":
            *names, target = instruction.words
            for name in names:
                copy(ROOT / name, source / target if (ROOT / name).is_dir() else source / target / name)
        elif instruction.name == "RUN":
            command = instruction.value.replace("/opt/segint", str(root / "opt" / "segint"))
            done = subprocess.run(
                ["/bin/sh", "-ec", command],
                cwd=source,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=INSTALL_LIMIT_SECONDS,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def base_python(root: Path) -> Path:
    """The folder of `python`: this machine's where every user reaches that, else a copy below `root`."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = Path(sys.base_prefix)
    executable = prefix / "bin" / name
    bin_dir = root / "base" / "bin"
    bin_dir.mkdir(parents=True)
    if all(folder.stat().st_mode & 0o001 for folder in (prefix, *prefix.parents)):
        (bin_dir / "python").symlink_to(executable)
        return bin_dir
    without = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "tkinter", "config-*")
    shutil.copytree(prefix / "lib" / name, root / "base" / "lib" / name, ignore=without)
    for library in sorted((prefix / "lib").glob("libpython*.so*")):
        shutil.copy(library, root / "base" / "lib")
    shutil.copy(executable, bin_dir / "python")
    return bin_dir


def copy(source: Path, target: Path) -> None:
    """What a build sees of it."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return
    for path in sorted(source.rglob("*")):
        if path.is_file() and not is_ignored(path):
            copy(path, target / path.relative_to(source))


def as_user(command: list[str], environment: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
    """Start it as the image's user where this is root."""
    is_root = os.geteuid() == 0
    return subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        user=USER_ID if is_root else None,
        group=USER_ID if is_root else None,
        extra_groups=() if is_root else None,
    )


def said_by(command: list[str], environment: Mapping[str, str], cwd: Path) -> str:
    with as_user(command, environment, cwd) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


@contextmanager
def running(command: list[str], environment: Mapping[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    process = as_user(command, environment, cwd)
    try:
        yield process
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
        # uvicorn ends itself by the same signal once it has closed everything, where it is not the first process.
        assert process.returncode in {0, -signal.SIGTERM}, said
        assert "Application shutdown complete" in said


def files_below(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_image_serves_as_an_unprivileged_user_from_a_root_that_is_read_only(
    root: Path, postgres: LocalPostgres, redis_server: LocalRedis, empty_database: object
) -> None:
    if not index_can_be_reached():
        pytest.skip("the package index cannot be reached, so the image's install steps cannot be run")
    # Given what the Dockerfile's steps install, which nobody may write to
    image = dockerfile("Dockerfile.api")
    build(image.stages[0], root)
    shutil.rmtree(root / "src")
    subprocess.run(["chmod", "-R", "a-w", root / "opt"], check=True)
    app, writable = root / "app", root / "tmp"
    app.mkdir(mode=0o755)
    writable.mkdir(mode=0o777)
    writable.chmod(0o1777)
    volume = writable / "volume"
    bin_dir = root / "opt" / "segint" / "bin"
    # and a database and Redis
    assert callable(empty_database)
    name = urlsplit(empty_database()).path.lstrip("/")
    with as_port(postgres.socket_path) as database_port, as_port(redis_server.socket_path) as redis_port:
        environment = {
            key: value.replace("/opt/segint", str(root / "opt" / "segint"))
            for key, value in image.image.environment().items()
        }
        environment |= {
            "PATH": f"{bin_dir}:/usr/bin:/bin",
            "TMPDIR": str(writable),
            "LD_LIBRARY_PATH": str(root / "base" / "lib"),  # where the base is a copy, its library is one too
            "SEGINT_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{database_port}/{name}",
            "SEGINT_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "SEGINT_REDIS_NAMESPACE": name,
            "SEGINT_VOLUME_DIR": str(volume),
            "SEGINT_SESSION_SECRET": "0123456789abcdef" * 4,
            "SEGINT_MIN_FREE_BYTES": "0",
        }
        before = files_below(root / "opt")
        # Then it is this version, and neither torch nor a worker's libraries are there
        assert said_by([str(bin_dir / "segint"), "--version"], environment, app) == f"segint {project_version()}\n"
        unwanted = ("torch", "monai", "pytest", "SimpleITK", "pip")
        assert said_by([str(bin_dir / "python"), "-c", WHICH_ARE_THERE, *unwanted], environment, app) == "[]\n"
        # When its schema is made, and the API is started by the image's command
        said_by([str(bin_dir / "python"), "-m", "migrations", "upgrade"], environment, app)
        volume.mkdir()
        volume.chmod(0o777)
        port = free_port()
        command = image.image.all("CMD")[0].exec_form()
        assert command is not None
        command = [str(bin_dir / command[0]), *("127.0.0.1" if word == "0.0.0.0" else word for word in command[1:])]
        command[command.index("8080")] = str(port)
        with running(command, environment, app) as process:

            def readiness() -> httpx.Response | None:
                if process.poll() is not None:
                    raise AssertionError(process.communicate()[0])
                try:
                    return http.get(f"http://127.0.0.1:{port}/readyz")
                except httpx.TransportError:
                    return None

            # Then it is ready, and not degraded
            answer = wait_for(readiness, "an answer")
            assert answer is not None
            assert (answer.status_code, answer.json()["status"]) == (200, "ready")
            # and is administered from inside
            made = said_by(
                ["/bin/sh", "-c", "echo a-long-enough-password | segint user create ada --role admin --password-stdin"],
                environment,
                app,
            )
            assert "ada" in made
            login = http.get(f"http://127.0.0.1:{port}/admin/login")
            assert login.status_code == 200
        # and nothing of the code was changed or added
        assert files_below(root / "opt") == before
        if os.geteuid() == 0:
            assert {path.stat().st_uid for path in volume.rglob("*")} == {USER_ID}


WHICH_ARE_THERE = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"


def project_version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]
