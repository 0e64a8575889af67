"""Deployments that may be broken, with servers of their own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.breakable import BreakableDeployment, breakable_deployment
from tests.faults.servers import BreakablePostgres

MakeBreakable = Callable[..., BreakableDeployment]


@pytest.fixture(scope="session")
def postgres_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    BreakablePostgres.make_template(folder)
    return folder


@pytest.fixture(scope="module")
def new_breakable(postgres_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeBreakable]:
    """Makes a deployment that ends with the module; keywords become SEGINT_ settings of its processes."""
    with ExitStack() as stack:
        yield _maker(stack, postgres_template, tmp_path_factory)


@pytest.fixture
def own_breakable(postgres_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeBreakable]:
    """The same for one test."""
    with ExitStack() as stack:
        yield _maker(stack, postgres_template, tmp_path_factory)


def _maker(stack: ExitStack, template: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeBreakable:
    def make(volume_dir: Path | None = None, **environment: object) -> BreakableDeployment:
        folder = tmp_path_factory.mktemp("breakable")
        return stack.enter_context(breakable_deployment(folder, template, volume_dir, **environment))

    return make
