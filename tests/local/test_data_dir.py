"""The state a deployment publishes, its lock, its identity, its address."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.client.local.address import free_port, is_wildcard, url_of
from services.client.local.children import set_aside_if_large, tail
from services.client.local.data_dir import DataDir, DeploymentState, Phase, ProcessRecord, ProcessState, chosen_data_dir
from services.client.local.faults import AddressUnavailable, DataDirUnusable
from services.client.local.identity import Identity
from services.client.local.shutdown import end_leftovers
from tests.deployment import wait_for
from tests.local.conftest import run_segint


def state_of(supervisor: Identity, **processes: ProcessRecord) -> DeploymentState:
    return DeploymentState(
        phase=Phase.READY,
        host="127.0.0.1",
        port=1,
        url="http://127.0.0.1:1",
        supervisor=supervisor,
        environment={"SEGINT_VOLUME_DIR": "/v"},
        processes=processes,
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    found = DataDir(tmp_path / "data")
    found.create()
    return found


def test_the_state_comes_back_as_it_was_published(data_dir: DataDir) -> None:
    state = state_of(
        Identity.of(os.getpid()),
        api=ProcessRecord(ProcessState.RESTARTING, None, 2),
        worker=ProcessRecord(ProcessState.RUNNING, Identity(7, 1.5)),
    )
    data_dir.write_state(state)
    assert data_dir.recorded_state() == state
    assert data_dir.running_state() == state


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"phase": "unheard of"}', "\x00"])
def test_a_state_that_cannot_be_read_is_none(data_dir: DataDir, text: str) -> None:
    (data_dir.root / "state.json").write_text(text)
    assert data_dir.recorded_state() is None


def test_a_process_id_that_was_given_out_again_is_not_the_one_meant(data_dir: DataDir) -> None:
    now = Identity.of(os.getpid())
    recycled = Identity(now.pid, now.create_time - 60)
    assert now.process() is not None
    assert recycled.process() is None
    # Given a crashed deployment that recorded this very process's id: it would not survive being meant.
    data_dir.write_state(state_of(recycled, api=ProcessRecord(ProcessState.RUNNING, recycled)))
    assert data_dir.running_state() is None
    state = data_dir.recorded_state()
    assert state is not None
    assert end_leftovers(data_dir, state) == []


def test_what_a_dead_leader_left_in_its_session_is_ended(data_dir: DataDir) -> None:
    code = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
    )
    environment = {**os.environ, "SEGINT_DATA_DIR": str(data_dir.root)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, env=environment
    ) as leader:
        identity = Identity.of(leader.pid)
        assert leader.stdout is not None
        orphan = Identity.of(int(leader.stdout.readline()))
    assert orphan.process() is not None

    state = state_of(identity, worker=ProcessRecord(ProcessState.RUNNING, identity))

    assert end_leftovers(data_dir, state) == ["worker"]
    wait_for(lambda: orphan.process() is None, "the orphan's end")


def test_what_does_not_end_by_itself_is_killed(data_dir: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.local.shutdown.PATIENCE_SECONDS", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        identity = Identity.of(deaf.pid)
        state = state_of(identity, api=ProcessRecord(ProcessState.RUNNING, identity))
        assert end_leftovers(data_dir, state) == ["api"]
    assert deaf.returncode == -signal.SIGKILL


def test_the_lock_is_held_until_its_last_copy_is_closed(data_dir: DataDir) -> None:
    lock = data_dir.try_lock()
    assert lock is not None
    assert data_dir.try_lock() is None
    copy = os.dup(lock)
    os.close(lock)
    assert data_dir.try_lock() is None
    assert data_dir.is_locked_by(copy)
    (data_dir.root / "lock").unlink()
    assert not data_dir.is_locked_by(copy)
    os.close(copy)


def test_the_data_directory_is_the_one_named_else_the_environments_else_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SEGINT_DATA_DIR", raising=False)
    assert chosen_data_dir(None).root == tmp_path / ".local/share/segint"
    monkeypatch.setenv("SEGINT_DATA_DIR", "/environment")
    assert chosen_data_dir(None).root == Path("/environment")
    assert chosen_data_dir(Path("/named")).root == Path("/named")


def test_status_names_what_is_not_running_and_its_log(data_dir: DataDir) -> None:
    gone = ProcessRecord(ProcessState.RESTARTING, None, restarts=7)
    data_dir.write_state(state_of(Identity.of(os.getpid()), worker=gone))
    said = run_segint("status", "--data-dir", data_dir.root)
    assert said.code == 0
    (line,) = said.err.splitlines()
    assert "worker is not running" in line
    assert str(data_dir.log("worker")) in line


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirUnusable, match="--data-dir"):
        DataDir(tmp_path / "file" / "data").create()


def test_a_data_directory_of_somebody_else_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", closed)
    with pytest.raises(DataDirUnusable, match="another user"):
        DataDir(tmp_path).exists()


def test_the_session_secret_is_made_once_and_the_owners_alone(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    secret = first.session_secret()
    assert len(secret) == 64
    assert DataDir(tmp_path).session_secret() == secret
    assert (tmp_path / "session-secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "session-secret").write_bytes(b"\xff")
    with pytest.raises(DataDirUnusable, match="logs in again"):
        first.session_secret()


def test_addresses() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::", 80) == "http://[::1]:80"
    assert (is_wildcard("::"), is_wildcard("localhost")) == (True, False)
    assert free_port("127.0.0.1", 0) > 0
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressUnavailable, match="taken"):
        free_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(AddressUnavailable, match="--host"):
        free_port("no.such.host.invalid", 0)


def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.local.children.LARGEST_LOG_BYTES", 10)
    log = tmp_path / "api.log"
    log.write_text("one\n")
    set_aside_if_large(log)
    assert tail(log) == "one"
    log.write_text("one\ntwo\nthree\n")
    assert tail(log, since=4, lines=1) == "three"
    set_aside_if_large(log)
    assert (log.exists(), tail(tmp_path / "api.log.1", lines=2)) == (False, "two\nthree")


def test_signals_only_reach_the_process_meant() -> None:
    now = Identity.of(os.getpid())
    Identity(now.pid, now.create_time - 60).send(signal.SIGKILL)  # survived, or there would be no next line
    assert now.process() is not None
