"""`scripts/build-images` takes the engine that works; what stands in for one writes down how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.images.dockerfiles import ROOT

SCRIPT = ROOT / "scripts" / "build-images"
NEEDED = ("bash", "env", "sed", "git", "dirname", "cat")
RECORDING = '#!/bin/bash\n[ "$1" = build ] && echo "$0 $*" >> "{record}"\nexit {code}\n'


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """With nothing on PATH but what the script needs and what lies in the folder."""
    for name in NEEDED:
        program = shutil.which(name)
        assert program is not None
        if not (folder / name).exists():
            (folder / name).symlink_to(program)
    return subprocess.run(
        [SCRIPT],
        env={"PATH": str(folder)} | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def engine(folder: Path, name: str, record: Path, code: int = 0) -> None:
    path = folder / name
    path.write_text(RECORDING.format(record=record, code=code), encoding="utf-8")
    path.chmod(0o755)


def test_without_an_engine_it_says_so_and_builds_nothing(tmp_path: Path) -> None:
    # Given a docker whose daemon does not run, and nothing else
    record = tmp_path / "record"
    engine(tmp_path, "docker", record, code=1)
    # When images are to be built
    done = run(tmp_path)
    # Then one sentence says why there are none
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("none of docker, buildah, podman works here, so no image was built")
    assert not record.exists()


def test_the_first_engine_that_works_builds_every_image_tagged_by_version(tmp_path: Path) -> None:
    # Given a docker that does not work and a buildah that does
    record = tmp_path / "record"
    engine(tmp_path, "docker", record, code=1)
    engine(tmp_path, "buildah", record)
    # When images are built for a registry, from a base of one's own
    done = run(tmp_path, IMAGE_PREFIX="registry.example/group/", BASE_IMAGE="mirror.example/python:3.11-slim")
    # Then their names are what is printed
    assert done.returncode == 0, done.stderr
    version = next(
        line.split('"')[1] for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version")
    )
    names = [f"segint-api:{version}", f"segint-worker:{version}-cpu", f"segint-worker:{version}-cuda"]
    assert done.stdout.split() == [f"registry.example/group/{name}" for name in names]
    # and each was built as it should be
    calls = record.read_text().splitlines()
    assert [call.split()[0] for call in calls] == [str(tmp_path / "buildah")] * 3
    assert all("--build-arg BASE_IMAGE=mirror.example/python:3.11-slim" in call for call in calls)
    assert all(f"--build-arg VERSION={version}" in call for call in calls)
    assert ["VARIANT=cpu" in calls[1], "VARIANT=cuda" in calls[2]] == [True, True]


def test_an_image_that_fails_ends_it(tmp_path: Path) -> None:
    record = tmp_path / "record"
    (tmp_path / "podman").write_text('#!/bin/bash\n[ "$1" != build ]\n', encoding="utf-8")
    (tmp_path / "podman").chmod(0o755)
    done = run(tmp_path, ENGINE="podman")
    assert (done.returncode == 0, done.stdout) == (False, "")
    assert not record.exists()


def test_the_script_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
