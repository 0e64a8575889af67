"""Rules for images that a platform team trusts, as hadolint and PodSecurity have them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.settings import Settings
from tests.images.context import is_ignored
from tests.images.dockerfiles import NAMES, ROOT, Dockerfile, dockerfile

USER = "10001:10001"
LABELS = ("title", "description", "licenses", "version", "revision", "source")
WORKER_ONLY = {
    "torch",
    "monai",
    "scipy",
    "onnx",
    "onnxruntime",
    "tensorflow-cpu",
    "keras",
    "scikit-learn",
    "xgboost-cpu",
}
SECRET = re.compile(r"password|secret|token|credential|_key\b|://[^/\s]+:[^/\s]+@", re.IGNORECASE)


@pytest.fixture(params=NAMES)
def parsed(request: pytest.FixtureRequest) -> Dockerfile:
    return dockerfile(request.param)


def test_the_base_is_an_argument_with_a_version(parsed: Dockerfile) -> None:
    assert parsed.arguments == {"BASE_IMAGE": "python:3.11-slim"}
    assert [stage.base for stage in parsed.stages] == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


def test_the_last_user_is_a_number_that_is_not_root_and_has_a_name(parsed: Dockerfile) -> None:
    users = parsed.image.all("USER")
    assert [user.value for user in users] == [USER]
    making = next(run.value for run in parsed.image.all("RUN") if "useradd" in run.value)
    assert "--uid 10001 --gid 10001 --create-home --home-dir /home/segint" in making
    environment = parsed.image.environment()
    assert (environment["HOME"], environment["USER"]) == ("/home/segint", "segint")
    # and nothing is installed or changed as that user, or after it
    after = parsed.image.instructions[parsed.image.instructions.index(users[0]) + 1 :]
    assert {instruction.name for instruction in after} <= {"EXPOSE", "CMD"}


def test_commands_run_without_a_shell_between(parsed: Dockerfile) -> None:
    # Then signals reach the process, and what a pod names in its place is not appended to an entry point
    assert parsed.image.all("ENTRYPOINT") == []
    (command,) = parsed.image.all("CMD")
    assert command.exec_form()
    assert [
        instruction.name for instruction in parsed.instructions() if instruction.name in {"SHELL", "HEALTHCHECK"}
    ] == []


def test_nothing_is_fetched_but_by_pip_and_nothing_is_latest(parsed: Dockerfile) -> None:
    for instruction in parsed.instructions():
        assert instruction.name != "ADD"
        assert ":latest" not in instruction.value
        if instruction.name == "RUN":
            assert not re.search(r"\b(curl|wget|git clone|apt-get|sudo)\b", instruction.value)


def test_images_have_labels_whose_values_are_given(parsed: Dockerfile) -> None:
    text = " ".join(label.value for label in parsed.image.all("LABEL"))
    assert all(f"org.opencontainers.image.{name}=" in text for name in LABELS)
    arguments = {argument.value.partition("=")[0] for argument in parsed.image.all("ARG")}
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= arguments
    assert "Research use only" in text


def test_no_secret_and_no_setting_is_in_an_image(parsed: Dockerfile) -> None:
    for instruction in parsed.instructions():
        if instruction.name in {"ENV", "ARG", "LABEL"}:
            assert not SECRET.search(instruction.value), instruction
    settings = {f"SEGINT_{name.upper()}" for name in Settings.model_fields}
    assert not settings & parsed.image.environment().keys()


def test_what_is_copied_is_there_and_is_seen(parsed: Dockerfile) -> None:
    sources = [
        ROOT / word
        for stage in parsed.stages
        for copy in stage.all("COPY")
        if "--from=build" not in copy.words
        for word in copy.words[:-1]
    ]
    assert len(sources) >= 5
    for source in sources:
        assert source.exists(), source
        assert not is_ignored(source), source


def files_seen() -> Iterator[Path]:
    for path in ROOT.rglob("*"):
        if ".git" not in path.parts and ".venv" not in path.parts and path.is_file() and not is_ignored(path):
            yield path.relative_to(ROOT)


def test_a_build_sees_the_code_and_little_else() -> None:
    seen = set(files_seen())
    assert {Path("services/api/app.py"), Path("migrations/env.py"), Path("requirements/locked.txt")} <= seen
    assert {path.parts[0] for path in seen} == {
        *("LICENSE", "README.md", "pyproject.toml", "migrations", "requirements", "services")
    }
    assert not [path for path in seen if "frontend" in path.parts or path.suffix == ".pyc"]
    # and the viewer's script, which git does not have, is seen once it was built
    assert not is_ignored(ROOT / "services" / "api" / "console" / "viewer" / "static" / "viewer.js")


def extras_of(command: str) -> set[str]:
    found = re.search(r'"\.\[([^\]]+)\]"', command)
    assert found is not None, command
    return set(found[1].split(","))


def requirements_of(extras: set[str]) -> set[str]:
    """Names that these extras ask for, with what their own extras do."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names: set[str] = set()
    for extra in sorted(extras):
        for requirement in optional[extra]:
            nested = re.fullmatch(r"segint\[(.+)\]", requirement)
            names |= requirements_of(set(nested[1].split(","))) if nested else {re.split(r"[\[>=]", requirement)[0]}
    return names


def test_the_api_has_neither_torch_nor_what_workers_and_tests_need() -> None:
    install = next(run.value for run in dockerfile("Dockerfile.api").stages[0].all("RUN") if ".[" in run.value)
    assert "--constraint requirements/locked.txt" in install
    names = requirements_of(extras_of(install))
    assert {"starlette", "uvicorn", "typer", "alembic"} <= names
    assert not names & WORKER_ONLY
    assert not names & {"pytest", "mypy", "hypothesis", "playwright", "simpleitk", "matplotlib"}
    assert "torch" not in install


def test_a_gpu_is_given_by_the_node_and_not_taken_by_the_image() -> None:
    environment = dockerfile("Dockerfile.worker").image.environment()
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    for name in NAMES:
        assert "NVIDIA_VISIBLE_DEVICES" not in (ROOT / name).read_text(encoding="utf-8")


def test_caches_are_where_a_read_only_root_can_be_written() -> None:
    environment = dockerfile("Dockerfile.worker").image.environment()
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "KERAS_HOME", "XDG_CACHE_HOME"):
        assert environment[name].startswith("/tmp/")


def test_runtimes_by_default_are_all_that_the_package_has() -> None:
    worker = dockerfile("Dockerfile.worker")
    for stage in worker.stages:
        runtimes = next(arg.value for arg in stage.all("ARG") if arg.value.startswith("RUNTIMES="))
        assert runtimes == "RUNTIMES=monai-bundle,onnx,tensorflow,sklearn,xgboost"
    for path in (ROOT / "requirements").glob("cuda-*.txt"):
        assert path.stem.removeprefix("cuda-") in {"onnx", "tensorflow", "xgboost"}
