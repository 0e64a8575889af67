"""The bundle for sites without internet: what is in it, and that one which was changed is not loaded."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.images.dockerfiles import ROOT
from tests.monitoring.files import alerts

CHART = """
apiVersion: v2
name: segint
version: 1.2.3
annotations:
  artifacthub.io/images: |
    - name: api
      image: {image}
"""
Made = subprocess.CompletedProcess[str]
WHEEL = "small-1.0-py3-none-any.whl"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small one, unpacked: a chart of one file, and one wheel."""
    made, folder = packed(tmp_path, PATH=os.environ["PATH"])
    assert "not in the bundle: image segint-api-that-no-engine-has:1.2.3" in made.stderr
    return folder


def packed(tmp_path: Path, image: str = "segint-api-that-no-engine-has:1.2.3", **environment: str) -> tuple[Made, Path]:
    """What making a bundle of a chart with that image said, and where it is unpacked."""
    chart, wheels = tmp_path / "segint", tmp_path / "wheels"
    chart.mkdir()
    wheels.mkdir()
    (chart / "Chart.yaml").write_text(CHART.format(image=image), encoding="utf-8")
    with zipfile.ZipFile(wheels / WHEEL, "w") as wheel:
        wheel.writestr("small-1.0.dist-info/METADATA", "Name: small\nVersion: 1.0\nLicense-Expression: MIT\n\nText")
        wheel.writestr("small-1.0.dist-info/licenses/LICENSE", "Permission is hereby granted")
    out = tmp_path / "bundle.tar"
    command: list[str | Path] = [
        sys.executable,
        ROOT / "scripts" / "bundle.py",
        "--out",
        out,
        "--chart",
        chart,
        "--wheels",
        wheels,
    ]
    made = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert made.returncode == 0, made.stderr
    with tarfile.open(out) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    return made, folder


def load(bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [bundle / "load", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60, cwd="/")


def test_a_bundle_has_chart_images_wheels_licences_and_documentation(bundle: Path) -> None:
    assert (bundle / "images.txt").read_text() == "segint-api-that-no-engine-has:1.2.3\n"
    with tarfile.open(bundle / "chart" / "segint-1.2.3.tgz") as chart:
        assert "segint/Chart.yaml" in chart.getnames()
    licences = (bundle / "licences.txt").read_text()
    assert "small 1.0: MIT" in licences
    assert "Permission is hereby granted" in licences
    assert (bundle / "docs" / "install.md").is_file()
    # and for each alert the page that its runbook_url names
    for rule in alerts():
        assert (bundle / rule["annotations"]["runbook_url"]).is_file()


def test_what_is_whole_is_loaded(bundle: Path, tmp_path: Path) -> None:
    done = load(bundle, "--wheels-to", tmp_path / "index")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["locked.txt", WHEEL]


def changed(bundle: Path) -> None:
    with (bundle / "wheels" / WHEEL).open("ab") as wheel:
        wheel.write(b"more")


def added(bundle: Path) -> None:
    (bundle / "wheels" / "other-1.0-py3-none-any.whl").write_bytes(b"")


def removed(bundle: Path) -> None:
    (bundle / "images.txt").unlink()


def without_sums(bundle: Path) -> None:
    (bundle / "SHA256SUMS").write_text("")


@pytest.mark.parametrize("tamper", [changed, added, removed, without_sums])
def test_what_was_changed_is_not_loaded(bundle: Path, tmp_path: Path, tamper: object) -> None:
    assert callable(tamper)
    tamper(bundle)
    done = load(bundle, "--wheels-to", tmp_path / "index")
    assert done.returncode == 1
    assert "nothing was loaded: " in done.stderr
    assert not (tmp_path / "index").exists()


def test_a_bundle_without_images_says_so(bundle: Path) -> None:
    done = load(bundle, "--images-to", "registry.example/segint")
    assert (done.returncode, "no images are in this bundle" in done.stderr) == (1, True)


def test_without_a_chart_there_is_no_bundle(tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        ROOT / "scripts" / "bundle.py",
        "--out",
        tmp_path / "b.tar",
        "--chart",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"no bundle was made: {tmp_path} has no chart in it\n")
