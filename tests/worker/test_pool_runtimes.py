"""A worker claims only models of runtimes whose library it has."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.core.settings import Settings
from services.worker.pool_runtimes import check_named_runtimes, within_what_is_installed
from services.worker.runtimes import MODULES


def settings(*runtimes: str) -> Settings:
    return Settings(
        database_url="postgresql://nowhere/x",
        redis_url="redis://nowhere/0",
        volume_dir=Path("/nonexistent"),
        pool_runtimes=runtimes,
    )


def hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    for library in libraries:
        monkeypatch.setitem(sys.modules, library, None)


def test_a_pool_that_names_no_runtime_leaves_those_that_are_not_installed_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given everything, Then it takes every model
    assert within_what_is_installed(settings()).pool.takes_every_model
    # Given an image without one library, Then it takes all but that one's, and says so
    hide(monkeypatch, "xgboost")
    with caplog.at_level(logging.WARNING):
        found = within_what_is_installed(settings()).pool
    assert set(found.runtimes) == {str(name) for name in MODULES} - {"xgboost"}
    [record] = caplog.records
    assert (record.message, record.__dict__["runtime"]) == ("runtime left to other pools", "xgboost")
    assert "pip install 'segint[xgboost]'" in record.__dict__["reason"]
    # and what a pool names is neither more nor less
    assert within_what_is_installed(settings("pytorch")).pool.runtimes == ("pytorch",)


def test_a_runtime_that_a_pool_names_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xgboost", "tensorflow")
    check_named_runtimes(settings())
    check_named_runtimes(settings("pytorch", "tensorflow"))  # Keras on PyTorch is TensorFlow's runtime too
    with pytest.raises(SystemExit, match=r"pytorch,xgboost, but .* all of them: XGBoost is not installed; run pip"):
        check_named_runtimes(settings("pytorch", "xgboost"))
    with pytest.raises(SystemExit, match="There is no runtime 'tensor-flow'; known are "):
        check_named_runtimes(settings("tensor-flow"))


def test_a_worker_without_a_runtime_that_its_pool_names_does_not_start(tmp_path: Path) -> None:
    # Given an environment without XGBoost
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['xgboost'] = None\n", encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "SEGINT_POOL_RUNTIMES": "pytorch,xgboost",
        "SEGINT_DATABASE_URL": "postgresql://nowhere/x",
        "SEGINT_REDIS_URL": "redis://nowhere/0",
        "SEGINT_VOLUME_DIR": "/nonexistent",
    }
    # When a worker is started
    ended = subprocess.run(
        [sys.executable, "-m", "services.worker"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    # Then it says why not and what to do, in one line
    assert ended.returncode == 1
    assert ended.stderr.startswith("SEGINT_POOL_RUNTIMES is pytorch,xgboost, but this worker cannot run all of them: ")
    assert ended.stderr.endswith("or leave them out of SEGINT_POOL_RUNTIMES.\n")
    assert ended.stderr.count("\n") == 1
