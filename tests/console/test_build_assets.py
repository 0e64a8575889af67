"""An installation without a way to npm's registry is one without the viewer, and says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.api.console import build_assets
from services.api.console.viewer.viewer import ASSETS
from tests.ports import free_port


@pytest.mark.parametrize(("options", "status"), [(["--optional"], 0), ([], 1)], ids=["optional", "asked for"])
def test_a_registry_out_of_reach_is_said(tmp_path: Path, options: list[str], status: int) -> None:
    # Given the viewer's sources, and a registry that does not answer
    frontend = tmp_path / "frontend"
    source = build_assets.VIEWER / "frontend"
    shutil.copytree(source, frontend, ignore=shutil.ignore_patterns("node_modules"))
    environment = os.environ | {
        "npm_config_registry": f"http://127.0.0.1:{free_port()}/",
        "npm_config_cache": str(tmp_path / "cache"),
    }
    # When it is built
    done = subprocess.run(
        [sys.executable, build_assets.__file__, "--frontend", str(frontend), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # Then what is missing is said, with what to do
    assert done.returncode == status, done.stderr
    assert "viewer is MISSING" in done.stderr
    assert "make console-assets" in done.stderr
    assert not (tmp_path / "static").exists()


@pytest.mark.usefixtures("built_assets")
def test_the_licence_of_every_bundled_package_is_told() -> None:
    texts = (ASSETS / "licences.txt").read_text(encoding="utf-8")
    for name in (
        "@niivue/niivue 0.69.0 (BSD-2-Clause)",
        "fflate 0.8.2 (MIT)",
        "nifti-reader-js",
        "gl-matrix",
        "Roboto",
    ):
        assert name in texts
    assert "Copyright (c) 2021, Niivue" in texts
