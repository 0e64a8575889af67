"""How much memory a model takes, and that one which takes too much is stopped before it takes the machine."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.core.errors import MemoryLimitExceeded
from services.core.model_spec import ModelSpec
from services.worker.hosts import ModelHosts
from services.worker.memory import anonymous_bytes
from tests.worker.conditions import is_running, wait_until
from tests.worker.models import GOOD_VOXELS, SCRATCH_LIMIT_BYTES, Behaviour, run

MIB = 1024**2
LIMIT_BYTES = 1024 * MIB
"""PyTorch itself takes some 200 MiB."""

TAKES_100_MIB = """
import os, sys
if "child" in sys.argv and os.fork() == 0:
    sys.argv.remove("child")
    other = bytearray(b"x") * (100 * 1024**2)
taken = bytearray(b"x") * (100 * 1024**2)
os.write(1, b"ready\\n")  # in one piece, where print may need two
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def limited_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHosts]:
    root = tmp_path_factory.mktemp("scratch")
    with ModelHosts(2, 120, SCRATCH_LIMIT_BYTES, root, memory_limit_bytes=LIMIT_BYTES) as pool:
        yield pool


@pytest.mark.parametrize(("arguments", "expected_mib"), [([], 100), (["child"], 300)])
def test_what_a_process_and_its_children_take_is_counted(arguments: list[str], expected_mib: int) -> None:
    command = [sys.executable, "-c", TAKES_100_MIB, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(1 + len(arguments)):
            assert process.stdout.readline() == b"ready\n"
        assert expected_mib * MIB < anonymous_bytes(process.pid) < (expected_mib + 60) * MIB
        process.kill()


def test_a_process_that_is_gone_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    assert anonymous_bytes(process.pid) == 0


@pytest.mark.parametrize("behaviour", [Behaviour.EATS_MEMORY, Behaviour.EATS_MEMORY_IN_A_CHILD])
def test_a_model_that_takes_too_much_is_stopped(
    limited_pool: ModelHosts, faulty: ModelSpec, behaviour: Behaviour
) -> None:
    host = limited_pool.acquire(faulty)
    with pytest.raises(MemoryLimitExceeded, match=rf"{LIMIT_BYTES} bytes .* SEGINT_MODEL_MEMORY_BYTES"):
        run(host, behaviour)
    assert not host.alive
    wait_until(lambda: not is_running(host.pid))
    # The next job gets a new host.
    assert run(limited_pool.acquire(faulty)) == GOOD_VOXELS
