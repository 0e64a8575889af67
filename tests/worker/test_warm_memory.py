"""The pool of warm hosts under a budget of memory: who stays, who goes, and what is expected of whom."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.model_spec import ModelSpec
from services.worker.expected_memory import ExpectedMemory
from services.worker.hosts import ModelHosts
from services.worker.memory import MemoryUse
from tests.worker.models import SCRATCH_LIMIT_BYTES, phantom_spec, run

ROUNDS = 20
MIB = 1024**2

MakePool = Callable[..., ModelHosts]


@pytest.fixture
def new_pool(tmp_path: Path) -> MakePool:
    def make(host_bytes: int = 0, pinned: tuple[str, ...] = ()) -> ModelHosts:
        return ModelHosts(
            0, 120, SCRATCH_LIMIT_BYTES, tmp_path / "scratch", budget=MemoryUse(host_bytes), pinned=pinned
        )

    return make


@pytest.fixture(scope="module")
def host_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What a host of the phantom takes here."""
    with ModelHosts(0, 120, SCRATCH_LIMIT_BYTES, tmp_path_factory.mktemp("scratch")) as pool:
        run(pool.acquire(phantom_spec()))
        [use] = pool.warm().values()
    assert use.host_bytes > MIB
    assert use.device_bytes == 0
    return use.host_bytes


def use(pool: ModelHosts, model_id: str) -> None:
    """One job, as a worker does it."""
    assert run(pool.acquire(phantom_spec(model_id))) > 0
    pool.trim()


@pytest.mark.parametrize(("hosts_that_fit", "loads"), [(2.5, 2), (1.5, ROUNDS)])
def test_two_models_in_turn_are_loaded_twice_where_both_fit_and_every_time_where_not(
    new_pool: MakePool, host_bytes: int, hosts_that_fit: float, loads: int
) -> None:
    with new_pool(int(hosts_that_fit * host_bytes)) as pool:
        for number in range(ROUNDS):
            use(pool, str(number % 2))
        assert (pool.loads, pool.hits) == (loads, ROUNDS - loads)
        # The first time, that the other does not fit beside it was known only once it was loaded.
        assert pool.evictions == (0 if loads == 2 else ROUNDS - 1)


def test_a_model_larger_than_the_budget_is_run_alone_and_stays_until_another_comes(new_pool: MakePool) -> None:
    with new_pool(host_bytes=1) as pool:
        use(pool, "1")
        use(pool, "1")
        assert (pool.loads, list(pool.warm())) == (1, ["1"])
        use(pool, "2")
        assert (pool.loads, list(pool.warm())) == (2, ["2"])


def test_a_pinned_model_makes_no_room(new_pool: MakePool, host_bytes: int) -> None:
    with new_pool(int(2.5 * host_bytes), pinned=("pinned",)) as pool:
        for model_id in ("pinned", "1", "2", "3"):
            use(pool, model_id)
        assert list(pool.warm()) == ["pinned", "3"]
    # And its new files replace it all the same
    with new_pool(1, pinned=("pinned",)) as pool:
        pool.acquire(phantom_spec("pinned", version=1))
        pool.acquire(phantom_spec("pinned", version=2))
        assert pool.evictions == 1


def test_preloaded_models_fill_the_budget_in_their_order(new_pool: MakePool, host_bytes: int) -> None:
    with new_pool(int(2.5 * host_bytes)) as pool:
        # The third is known not to fit only once it is loaded, and goes again itself.
        assert [pool.preload(phantom_spec(model_id)) for model_id in "123"] == [True, True, False]
        assert list(pool.warm()) == ["1", "2"]
        # From then on that is expected of it.
        loads = pool.loads
        assert not pool.preload(phantom_spec("3"))
        assert pool.loads == loads
    with new_pool(1) as pool:
        assert [pool.preload(phantom_spec(model_id)) for model_id in "12"] == [True, False]


def test_a_model_that_has_not_run_yet_is_expected_to_take_what_its_files_have(tmp_path: Path) -> None:
    file, folder = tmp_path / "weights", tmp_path / "folder"
    (folder / "fold").mkdir(parents=True)
    for path, size in ((file, 5000), (folder / "a", 300), (folder / "fold" / "b", 70)):
        path.write_bytes(bytes(size))
    expected = ExpectedMemory()
    for artifact, size in ((file, 5000), (folder, 370), (tmp_path / "gone", 0)):
        assert expected.of(phantom_spec_of(artifact)) == MemoryUse(size, size)


def phantom_spec_of(artifact: Path) -> ModelSpec:
    return replace(phantom_spec(), artifact=artifact)


def test_room_is_made_before_a_model_is_loaded(new_pool: MakePool, host_bytes: int, tmp_path: Path) -> None:
    # Given a model whose file alone does not fit beside what is loaded
    artifact = tmp_path / "weights"
    artifact.write_bytes(bytes(host_bytes))
    with new_pool(int(1.5 * host_bytes)) as pool:
        use(pool, "1")
        # When it is to be loaded, Then the other one is gone before
        seen: list[list[str]] = []
        pool.acquire(phantom_spec_of(artifact), lambda _: seen.append(list(pool.warm())))
        assert seen == [["phantom"]]
