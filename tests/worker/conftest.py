"""A pool of hosts, and a model that misbehaves on demand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.model_spec import ModelSpec
from services.worker.hosts import ModelHosts
from tests.worker.models import SCRATCH_LIMIT_BYTES, faulty_spec

LOAD_LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def scratch_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def pool(scratch_root: Path) -> Iterator[ModelHosts]:
    """Shared by a module's tests, because a PyTorch host takes seconds to start: each test leaves it usable."""
    with ModelHosts(2, LOAD_LIMIT_SECONDS, SCRATCH_LIMIT_BYTES, scratch_root) as hosts:
        yield hosts
    assert [path.name for path in scratch_root.iterdir()] == [".lock"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return faulty_spec(tmp_path_factory.mktemp("faulty"))
