"""Images in a bundle: saved under the names that a node looks for, and loaded under those.

What stands in for an engine writes down how it was called, and has the images that it is told of.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.images.test_bundle import packed

IMAGE = "segint-api:1.2.3"
FULL = f"docker.io/library/{IMAGE}"
FILE = "images/segint-api_1.2.3.tar"
ENGINE = """#!/bin/bash
[ -n "${{!#}}" ] || exit 1
case "$1 $2" in
    info* | version*) exit {broken} ;;
    "image inspect" | "inspect --type") [[ " {has} " = *" ${{!#}} "* ]]; exit ;;
esac
echo "{name} $*" >> "{record}"
case "$1 $2" in
    "save --output") echo archive > "$3" ;;
    push*) case "$3" in docker-archive:*) path=${{3#docker-archive:}}; echo archive > "${{path%%:*}}" ;; esac ;;
esac
[ "$1" != "{refuses}" ]
"""
"""docker, podman, buildah, k3s or ctr."""


class StandIns:
    """On PATH before anything else; none works until it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        folder.mkdir()
        for name in ("docker", "podman", "buildah"):
            self.put(name, works=False)

    @property
    def path(self) -> str:
        return f"{self.folder}:/usr/bin:/bin"

    def put(self, name: str, *has: str, works: bool = True, refuses: str = "nothing") -> None:
        text = ENGINE.format(name=name, has=" ".join(has), broken=int(not works), refuses=refuses, record=self.record)
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def calls(self) -> list[str]:
        """Since the last look."""
        lines = self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        return lines


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "engines")


def load(stand_ins: StandIns, bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(bundle / "load"), *map(str, arguments)]
    environment = os.environ | {"PATH": stand_ins.path}
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=60)


# --- Saved -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "registry.example/group/"])
@pytest.mark.parametrize("engine", ["docker", "buildah", "podman"])
def test_an_image_is_saved_under_the_name_that_a_node_looks_for(
    stand_ins: StandIns, tmp_path: Path, engine: str, prefix: str
) -> None:
    # Given an engine that built it, for a registry or for none
    built = f"{prefix}{IMAGE}"
    stand_ins.put(engine, built)
    # When a bundle is made in the same environment
    environment = {"IMAGE_PREFIX": prefix} if prefix else {}
    made, bundle = packed(tmp_path, IMAGE, PATH=stand_ins.path, **environment)
    # Then the image is in it
    assert made.stderr.count("not in the bundle") == 0
    assert (bundle / FILE).is_file()
    # and docker's archive says the short name, which is docker.io's, and the others' the full one
    *before, call = stand_ins.calls()
    if engine == "docker":
        assert before == ([f"docker tag {built} {IMAGE}"] if prefix else [])
        assert call.startswith("docker save --output ")
        assert call.endswith(f"/{FILE} {IMAGE}")
    else:
        assert before == []
        assert call.startswith(f"{engine} push {built} docker-archive:/")
        assert call.endswith(f"/{FILE}:{FULL}")


def test_an_engine_that_has_the_image_saves_it_where_another_has_not(stand_ins: StandIns, tmp_path: Path) -> None:
    stand_ins.put("docker")
    stand_ins.put("buildah", IMAGE)
    packed(tmp_path, IMAGE, PATH=stand_ins.path)
    assert [call.split()[0] for call in stand_ins.calls()] == ["buildah"]
    # and where it is named, only that one is asked
    again = tmp_path / "again"
    again.mkdir()
    made, _ = packed(again, IMAGE, PATH=stand_ins.path, ENGINE="docker")
    assert f"not in the bundle: image {IMAGE} (not in docker)" in made.stderr
    assert stand_ins.calls() == []


# --- Loaded ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(stand_ins: StandIns, tmp_path: Path) -> Path:
    stand_ins.put("podman", IMAGE)
    _, bundle = packed(tmp_path, IMAGE, PATH=stand_ins.path)
    stand_ins.put("podman", works=False)
    stand_ins.calls()
    return bundle


TARGET = "registry.example/segint/segint-api:1.2.3"


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_an_image_is_pushed_by_the_engine_that_works(stand_ins: StandIns, bundle: Path, engine: str) -> None:
    stand_ins.put(engine)
    done = load(stand_ins, bundle, "--images-to", "registry.example/segint/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"image: {TARGET}"
    loaded = f"pull --quiet docker-archive:{FILE}" if engine == "buildah" else f"load --quiet --input {FILE}"
    calls = [loaded, f"tag {FULL} {TARGET}", f"push {TARGET}"]
    assert stand_ins.calls() == [f"{engine} {call}" for call in calls]


@pytest.mark.parametrize(
    ("name", "command"), [("ctr", "ctr --namespace k8s.io images import"), ("k3s", "k3s ctr images import")]
)
def test_an_image_is_imported_on_a_node(stand_ins: StandIns, bundle: Path, name: str, command: str) -> None:
    stand_ins.put(name)
    done = load(stand_ins, bundle, "--images-to", "containerd")
    assert done.returncode == 0, done.stderr
    assert stand_ins.calls() == [f"{command} {FILE}"]


def test_what_was_loaded_before_it_failed_is_said(stand_ins: StandIns, bundle: Path, tmp_path: Path) -> None:
    # Given no engine that works, Then the wheels are there all the same, and it says so
    done = load(stand_ins, bundle, "--wheels-to", tmp_path / "index", "--images-to", "registry.example")
    assert done.returncode == 1
    reason = "none of docker, podman and buildah works here to push with"
    assert done.stderr == f"no more was loaded than the wheels: {reason}\n"
    assert list((tmp_path / "index").glob("*.whl"))
    # Given a registry that refuses, Then nothing is claimed to be there
    stand_ins.put("docker", refuses="push")
    done = load(stand_ins, bundle, "--images-to", "registry.example")
    assert (done.returncode, done.stdout.count("image:")) == (1, 0)
    assert done.stderr == "nothing was loaded: docker cannot push registry.example/segint-api:1.2.3\n"
