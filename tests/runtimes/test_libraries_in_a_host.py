"""The libraries in a host's own surroundings: a scrubbed environment, a scratch folder, limits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.core.errors import InvalidModel
from services.core.model_spec import ModelSpec
from services.worker.dry_run import check
from tests.runtimes import artifacts_onnx, artifacts_tensorflow

LIMIT_SECONDS = 250.0
"""Importing TensorFlow has taken a minute on two busy cores."""

KINDS: dict[str, Callable[[Path, int], ModelSpec]] = {
    "onnx with external data": artifacts_onnx.external,
    "tensorflow SavedModel": artifacts_tensorflow.saved_model,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_runs_in_a_host(kind: str, tmp_path: Path) -> None:
    # Given a model whose file has the server's name for it
    spec = KINDS[kind](tmp_path, 2)
    assert spec.artifact is not None
    artifact = spec.artifact.rename(tmp_path / "3f2a.artifact")
    # When a host loads and runs it, then it does, and says nothing that a person would have to know
    report = check(ModelSpec.from_json({**spec.to_json(), "artifact": str(artifact)}), LIMIT_SECONDS)
    assert report["notes"] == []


def test_a_fault_is_told_through_the_host(tmp_path: Path) -> None:
    spec = artifacts_onnx.onnx_spec(artifacts_onnx.saved(tmp_path, artifacts_onnx.pointing_at("/etc/hostname")))
    with pytest.raises(InvalidModel, match=r"keeps weights in '/etc/hostname' beside it; put both into a zip"):
        check(spec, LIMIT_SECONDS)
