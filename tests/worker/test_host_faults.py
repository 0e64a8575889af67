"""What a model can do to its host, what the worker then says, and that the next job runs."""

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.core.errors import Cancelled, HostCrashed, ModelFailed, SegIntError, TimeLimitExceeded
from services.core.model_spec import ModelSpec
from services.worker.hosts import ModelHost, ModelHosts
from tests.worker.conditions import is_running, wait_until
from tests.worker.models import GOOD_VOXELS, SCRATCH_LIMIT_BYTES, Behaviour, run


@pytest.fixture
def host(pool: ModelHosts, faulty: ModelSpec) -> Iterator[ModelHost]:
    """A host of the faulty model. After each test, whatever it did, the next job has to run."""
    yield pool.acquire(faulty)
    assert run(pool.acquire(faulty)) == GOOD_VOXELS


def scratch_folders(scratch_root: Path) -> list[Path]:
    return list(scratch_root.glob("worker-*/host-*"))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour.RETURNS_NAN, r"^The model returned NaN in 240 voxels;"),
        (
            Behaviour.RETURNS_CUT_OFF,
            r"^The model returned an array of shape \(2, 8, 10\); expected \(1, outputs, 3, 8,",
        ),
        (Behaviour.RETURNS_TEXT, r"^The model returned a str;"),
    ],
)
def test_a_bad_answer_fails_the_job_and_keeps_the_host(host: ModelHost, behaviour: Behaviour, message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        run(host, behaviour)
    assert host.alive


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour.RAISES, r"^The model raised ValueError: no contrast in this volume \(net\.py:11\)\.$"),
        (Behaviour.RAISES_IN_NUMPY, r"^The model raised ValueError: all input arrays .* \(net\.py:14\)\.$"),
        (Behaviour.EXITS_BY_SYSTEM_EXIT, r"^The model raised SystemExit: 4 \(net\.py:17\)\.$"),
    ],
)
def test_what_a_model_raises_is_told_with_its_place(host: ModelHost, behaviour: Behaviour, message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        run(host, behaviour)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour.EXITS, r"exited with code 3 while it worked; its last output was: the licence server is away"),
        (Behaviour.SEGFAULTS, r"was killed by SIGSEGV while it worked"),
        (Behaviour.IS_KILLED, r"was killed by SIGKILL, most likely because memory ran out, while it worked"),
        (Behaviour.SENDS_NONSENSE, r"stopped answering while it worked"),
    ],
)
def test_a_crash_is_told_by_its_cause_and_ends_the_host(
    host: ModelHost, scratch_root: Path, behaviour: Behaviour, message: str
) -> None:
    with pytest.raises(HostCrashed, match=message):
        run(host, behaviour)
    assert not host.alive
    assert not is_running(host.pid)
    assert scratch_folders(scratch_root) == []


@pytest.mark.parametrize("behaviour", [Behaviour.HANGS, Behaviour.PRINTS_FOR_EVER, Behaviour.CLOSES_EVERYTHING])
def test_a_model_that_does_not_end_is_stopped_at_its_limit(
    host: ModelHost, scratch_root: Path, behaviour: Behaviour
) -> None:
    started_at = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match=r"'faulty' did not finish within 0\.5 s"):
        run(host, behaviour, time_limit_seconds=0.5)
    assert time.monotonic() - started_at < 20  # a busy machine may be late; a model that is not stopped never ends
    assert not is_running(host.pid)
    assert scratch_folders(scratch_root) == []


def test_output_neither_blocks_nor_fills_memory(host: ModelHost) -> None:
    assert run(host, Behaviour.PRINTS_200_MB) == GOOD_VOXELS
    wait_until(lambda: "printed it all" in host.output())
    assert len(host.output()) <= 16 * 1024


def test_a_file_over_the_scratch_limit_fails_the_job(host: ModelHost) -> None:
    with pytest.raises(ModelFailed, match=rf"File too large.*may not exceed .* {SCRATCH_LIMIT_BYTES} bytes \(net.py"):
        run(host, Behaviour.WRITES_A_BIG_FILE)


def test_many_files_over_the_scratch_limit_end_the_host(host: ModelHost, scratch_root: Path) -> None:
    with pytest.raises(ModelFailed, match=rf"wrote more than the {SCRATCH_LIMIT_BYTES} bytes that its scratch"):
        run(host, Behaviour.WRITES_MANY_FILES)
    assert not is_running(host.pid)
    assert scratch_folders(scratch_root) == []


def test_a_host_that_leaves_much_behind_is_not_used_again(host: ModelHost, scratch_root: Path) -> None:
    assert run(host, Behaviour.LEAVES_HALF_THE_SCRATCH) == GOOD_VOXELS
    assert not host.alive
    assert scratch_folders(scratch_root) == []


def test_a_folder_that_the_model_locked_is_removed_too(host: ModelHost, scratch_root: Path) -> None:
    assert run(host, Behaviour.WRITES_IN_A_LOCKED_FOLDER) == GOOD_VOXELS
    host.kill()
    assert scratch_folders(scratch_root) == []


def grandchild_of(host: ModelHost) -> int:
    (pid,) = wait_until(lambda: re.findall(r"grandchild (\d+)\n", host.output()))
    return int(pid)


def test_a_kill_ends_a_running_job_and_all_it_started(host: ModelHost, scratch_root: Path) -> None:
    with ThreadPoolExecutor(1) as job:
        # Given a job whose model started a program
        running = job.submit(run, host, Behaviour.STARTS_A_PROGRAM)
        grandchild = grandchild_of(host)
        assert is_running(grandchild)
        # When another thread kills the host
        host.kill()
        # Then the job's thread gets Cancelled, and nothing runs or is left
        with pytest.raises(Cancelled):
            running.result(10)
    wait_until(lambda: not is_running(grandchild), 5)
    assert not is_running(host.pid)
    assert scratch_folders(scratch_root) == []


def test_a_crash_is_noticed_though_a_fork_holds_the_line_open(host: ModelHost) -> None:
    # Given a model that forks and exits: the fork has the socket and the pipe
    with pytest.raises(HostCrashed, match="exited with code 3"):
        run(host, Behaviour.FORKS)
    # Then the fork went with it
    grandchild = grandchild_of(host)
    wait_until(lambda: not is_running(grandchild), 5)


def test_a_model_cannot_shrink_the_shared_memory(host: ModelHost) -> None:
    with pytest.raises(ModelFailed, match="Operation not permitted"):
        run(host, Behaviour.SHRINKS_THE_MEMORY)


def told_by(host: ModelHost, behaviour: Behaviour) -> str:
    with pytest.raises(SegIntError) as failure:
        run(host, behaviour)
    told = re.search(r"LookupError: (.*) \(net\.py", failure.value.details)
    assert told is not None
    return told[1]


def test_a_model_has_the_line_and_its_output_open_and_nothing_else(host: ModelHost) -> None:
    # 0-2, the socket, the folder being listed: the workspace's descriptor too
    descriptors = json.loads(told_by(host, Behaviour.TELLS_ITS_FILES).replace("'", '"'))
    assert len(descriptors) <= 8


def test_a_model_sees_no_credentials(
    pool: ModelHosts, faulty: ModelSpec, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker with credentials in its environment
    for name in ("SEGINT_DATABASE_URL", "SEGINT_SESSION_SECRET", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "REDIS_URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    pool.acquire(faulty).kill()
    # When a model tells its environment
    environment = json.loads(told_by(pool.acquire(faulty), Behaviour.TELLS_ITS_ENVIRONMENT))
    # Then it has what it needs to run, a folder of its own, and nothing else
    assert "secret" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "none"
    assert environment["THP_MEM_ALLOC_ENABLE"] == "1"
    home = Path(environment["HOME"])
    assert home.is_relative_to(scratch_root)
    assert environment["TMPDIR"] == environment["cwd"] == str(home)
    known = {"PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "TMPDIR", "THP_MEM_ALLOC_ENABLE", "cwd"}
    others = {name for name in environment if name not in known and not name.startswith(("LC_", "NVIDIA_", "OMP_"))}
    torch_sets = {"TORCHINDUCTOR_CACHE_DIR", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "CUDA_MODULE_LOADING"}
    assert {name for name in others - torch_sets if not name.startswith("COVERAGE_")} == set()
    assert "SEGINT_DATABASE_URL" in os.environ
