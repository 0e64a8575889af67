"""The pool of warm hosts: what is kept, what is ended, what is left behind."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.errors import Cancelled, ModelFailed, RuntimeUnavailable, TimeLimitExceeded
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from services.worker.hosts import ModelHost, ModelHosts, Workspace
from tests.worker.conditions import is_running, left_in_shared_memory, named_shared_memory, wait_until
from tests.worker.models import GOOD_VOXELS, SCRATCH_LIMIT_BYTES, SHAPE, faulty_spec, phantom_spec, run


def small_pool(folder: Path, capacity: int = 2, load_limit_seconds: float = 120) -> ModelHosts:
    return ModelHosts(capacity, load_limit_seconds, SCRATCH_LIMIT_BYTES, folder / "scratch")


def test_a_model_stays_warm_between_jobs(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool:
        # Given a model that has run
        first = pool.acquire(phantom_spec())
        assert run(first) > 0
        # When the next job wants it
        second = pool.acquire(phantom_spec())
        # Then the same process runs it
        assert run(second) > 0
        assert (second.pid, pool.loads, pool.hits, pool.evictions) == (first.pid, 1, 1, 0)
        assert 0 < pool.last_load_seconds < 30


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    with small_pool(tmp_path, capacity=2) as pool:
        # Given two models, the first used last
        first, second = pool.acquire(phantom_spec("1")), pool.acquire(phantom_spec("2"))
        pool.acquire(phantom_spec("1"))
        # When a third is wanted
        third = pool.acquire(phantom_spec("3"))
        # Then the second went, whole
        assert [host.alive for host in (first, second, third)] == [True, False, True]
        assert not is_running(second.pid)
        assert (pool.loads, pool.hits, pool.evictions) == (3, 1, 1)
        assert pool.acquire(phantom_spec("1")).pid == first.pid


def test_changed_files_replace_the_model(tmp_path: Path) -> None:
    with small_pool(tmp_path, capacity=3) as pool:
        old, other = pool.acquire(phantom_spec("1", version=1)), pool.acquire(phantom_spec("2"))
        new = pool.acquire(phantom_spec("1", version=2))
        assert [host.alive for host in (old, other, new)] == [False, True, True]
        assert pool.evictions == 1


def test_a_host_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool:
        host = pool.acquire(phantom_spec())
        os.kill(host.pid, signal.SIGKILL)
        wait_until(lambda: not host.alive)
        assert run(pool.acquire(phantom_spec())) > 0
        assert (pool.loads, pool.evictions) == (2, 0)


def test_an_idle_host_that_is_killed_is_gone_and_says_so(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool:
        host = pool.acquire(phantom_spec())
        host.kill()
        assert not is_running(host.pid)
        with pytest.raises(Cancelled):
            run(host)
        assert run(pool.acquire(phantom_spec())) > 0


def test_each_structure_comes_back_on_its_channels_grid(tmp_path: Path) -> None:
    # Given a model with a structure on each of two channels
    structures = (StructureSpec("a", channel_index=1), StructureSpec("b", channel_index=0))
    spec = ModelSpec("model", "phantom", structures=structures)
    shapes = [(4, 70, 80), (9, 64, 61)]
    progress: list[float] = []
    with small_pool(tmp_path) as pool, Workspace(shapes, [1, 0]) as workspace:
        # When it runs
        volumes = [Volume(voxels) for voxels in workspace.inputs]
        pool.acquire(spec).segment(workspace, volumes, time_limit_seconds=30, on_progress=progress.append)
        # Then each mask is filled, and progress was told
        assert [int(workspace.masks.get(index).sum()) for index in range(2)] == [4 * 60 * 60, 2 * 60 * 60]
        assert progress and all(0 <= fraction <= 1 for fraction in progress)


def test_a_workspace_has_to_fit_the_spec(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool:
        host = pool.acquire(phantom_spec())
        with Workspace([SHAPE], []) as workspace, pytest.raises(ValueError, match="0 masks for 1"):
            host.segment(workspace, [], time_limit_seconds=5, on_progress=lambda _: None)
        assert host.alive


def test_a_structure_on_a_channel_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = ModelSpec("model", "phantom", structures=(StructureSpec("Eye", channel_index=2),))
    with small_pool(tmp_path) as pool, pytest.raises(ModelFailed, match="'Eye' lies on input channel 3, but there are"):
        run(pool.acquire(spec))


def test_an_unknown_runtime_starts_nothing(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool, pytest.raises(RuntimeUnavailable, match="phantom, pytorch"):
        pool.acquire(ModelSpec("model", "nnunet"))
    assert pool.loads == 0


@pytest.mark.parametrize("which", ["artifact", "module"])
def test_a_file_that_is_not_the_attached_one_is_refused(tmp_path: Path, which: str) -> None:
    # Given a file on the volume that was replaced after it was attached
    path = tmp_path / "file"
    path.write_bytes(b"attached")
    digest = hashlib.sha256(b"attached").hexdigest()
    spec = replace(phantom_spec(), artifact=path, artifact_sha256=digest)
    if which == "module":
        spec = replace(phantom_spec(), module=path, module_sha256=digest)
    with small_pool(tmp_path) as pool:
        assert run(pool.acquire(spec)) > 0
        path.write_bytes(b"replaced")
        # When it is to be loaded
        with pytest.raises(ModelFailed, match="on the volume is not the one that was attached") as failure:
            pool.acquire(replace(spec, model_id="again"))
        assert which.replace("artifact", "model") in failure.value.details


def test_a_failed_load_ends_the_host_and_is_not_kept(tmp_path: Path) -> None:
    spec = faulty_spec(tmp_path / "model")
    assert spec.module is not None
    spec.module.write_text("raise RuntimeError('no licence')\n", encoding="utf-8")
    started: list[ModelHost] = []
    with small_pool(tmp_path) as pool:
        with pytest.raises(ModelFailed, match=r"net\.py raised RuntimeError: no licence in line 1"):
            pool.acquire(spec, started.append)
        assert not is_running(started[0].pid)
        assert (pool.loads, pool.hits) == (0, 0)
        # And once the file is corrected, the model loads
        assert run(pool.acquire(faulty_spec(tmp_path / "model"))) == GOOD_VOXELS


def test_a_hook_that_raises_leaves_no_half_loaded_host(tmp_path: Path) -> None:
    def refuse(host: ModelHost) -> None:
        raise KeyboardInterrupt

    with small_pool(tmp_path) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(phantom_spec(), refuse)
        assert run(pool.acquire(phantom_spec())) > 0
        assert (pool.loads, pool.hits) == (1, 0)


def test_a_load_can_be_killed_and_has_a_limit(tmp_path: Path) -> None:
    # Given a model that never finishes loading
    spec = faulty_spec(tmp_path / "model", prologue="\nprint('importing')\nhangs(None)\n")
    started: list[ModelHost] = []
    with small_pool(tmp_path) as pool, ThreadPoolExecutor(1) as job:
        # When it is killed from another thread while it loads
        loading = job.submit(pool.acquire, spec, started.append)
        wait_until(lambda: started and "importing" in started[0].output())
        started[0].kill()
        # Then the job's thread learns that
        with pytest.raises(Cancelled):
            loading.result(30)
        assert not is_running(started[0].pid)
    # And without a kill the limit ends it
    with small_pool(tmp_path, load_limit_seconds=0.5) as pool:
        with pytest.raises(TimeLimitExceeded, match=r"did not finish within 0\.5 s"):
            pool.acquire(spec, started.append)
        assert not is_running(started[1].pid)
        assert list((tmp_path / "scratch").glob("worker-*/host-*")) == []


def test_closing_the_pool_ends_a_load(tmp_path: Path) -> None:
    spec = faulty_spec(tmp_path / "model", prologue="\nhangs(None)\n")
    started: list[ModelHost] = []
    pool = small_pool(tmp_path)
    with ThreadPoolExecutor(1) as job:
        loading = job.submit(pool.acquire, spec, started.append)
        wait_until(lambda: started)
        pool.close()
        with pytest.raises(Cancelled):
            loading.result(30)
    with pytest.raises(Cancelled, match="stopping"):
        pool.acquire(phantom_spec())
    wait_until(lambda: not list((tmp_path / "scratch").glob("worker-*")))


def test_hosts_come_and_go_without_a_trace(tmp_path: Path) -> None:
    def traces() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    # Given what is open before
    before, segments = traces(), named_shared_memory()
    # When hosts are started, used, evicted, killed and closed
    with small_pool(tmp_path, capacity=1) as pool:
        for number in range(6):
            host = pool.acquire(phantom_spec(str(number)))
            run(host)
            if number % 2:
                host.kill()
    # Then no descriptor, no thread, no shared memory and no file of them is left
    assert traces() == before
    assert left_in_shared_memory(segments) == set()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".lock"]


ORPHANING_WORKER = """
import sys, time
from pathlib import Path
from services.worker.hosts import ModelHosts
from tests.worker.models import phantom_spec
hosts = ModelHosts(2, 60, 10**7, Path(sys.argv[1]))
print(hosts.acquire(phantom_spec("1")).pid, hosts.acquire(phantom_spec("2")).pid, flush=True)
time.sleep(600)
"""


def test_a_killed_worker_takes_its_hosts_along_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    # Given a worker with two hosts, and a scratch folder of another worker that lives
    root = tmp_path / "scratch"
    program = [sys.executable, "-c", ORPHANING_WORKER, str(root)]
    with (
        small_pool(tmp_path) as living,
        subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], encoding="utf-8") as worker,
    ):
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) == 2 and all(is_running(pid) for pid in pids)
        # When the worker is killed
        worker.kill()
        worker.wait()
        # Then so are its hosts, and the next worker on this disk removes what it left
        wait_until(lambda: not any(is_running(pid) for pid in pids))
        assert len(list(root.glob("worker-*"))) == 2
        small_pool(tmp_path).close()
        assert len(list(root.glob("worker-*"))) == 1
        assert run(living.acquire(phantom_spec())) > 0


def test_a_host_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    # Given a host that was acquired by a thread which has ended since
    with small_pool(tmp_path) as pool:
        with ThreadPoolExecutor(1) as job:
            host = job.submit(pool.acquire, phantom_spec()).result()
        # Then it still runs
        assert run(host) > 0


def test_a_phantom_host_has_no_torch(tmp_path: Path) -> None:
    with small_pool(tmp_path) as pool:
        host = pool.acquire(phantom_spec())
        assert "torch" not in Path(f"/proc/{host.pid}/maps").read_text(encoding="utf-8")
