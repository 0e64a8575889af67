"""`segint up`, `status` and `down` on a whole local deployment."""

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from services.client.local.data_dir import DataDir
from services.client.local.faults import NotRunning
from services.client.local.postgres import LocalPostgres
from services.client.local.settings import local_settings
from tests.database_roles import REFUSED
from tests.deployment import wait_for
from tests.local.conftest import processes_of, run_segint
from tests.ports import free_port

NAMES = {"api", "worker", "postgres", "redis"}
AWKWARD = "with spaces " + "and a path too long for a socket " * 4


@pytest.fixture(scope="module")
def up(new_data_dir: Callable[[str], Path]) -> Iterator[Path]:
    """The data directory of a deployment that runs."""
    data_dir = new_data_dir(AWKWARD)
    said = run_segint("up", "--detach", "--port", 0, "--data-dir", data_dir)
    assert said.code == 0, said.err
    assert said.out.startswith("http://127.0.0.1:")
    assert "For research, not for clinical use." in said.err
    yield data_dir
    # Module's end: whatever the tests did to it, it goes down and leaves nothing.
    assert run_segint("down", "--data-dir", data_dir).code == 0
    assert processes_of(data_dir) == []
    assert not LocalPostgres(data_dir / "postgres").socket_path.parent.exists()


def status(data_dir: Path) -> Any:
    return run_segint("status", "--json", "--data-dir", data_dir).json()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_everything_runs_and_status_says_where(up: Path) -> None:
    said = status(up)
    assert is_ready(said["url"])
    assert set(said["processes"]) == NAMES
    for name, process in said["processes"].items():
        assert (process["state"], process["restarts"]) == ("running", 0), name
        assert psutil.pid_exists(process["pid"])
    text = run_segint("status", "--data-dir", up)
    assert text.code == 0
    assert [line.split()[0] for line in text.out.splitlines()[2:]] == ["postgres", "redis", "api", "worker"]


def test_the_sample_model_is_offered(up: Path) -> None:
    models = run_segint("models", "list", "--json", "--server", status(up)["url"]).json()["models"]
    assert [model["model_id"] for model in models] == ["Centered Orange Square"]


def test_payloads_and_secrets_are_open_to_their_owner_only(up: Path) -> None:
    folders = ("volume", "logs", "redis", "scratch")
    modes = {name: stat.S_IMODE((up / name).stat().st_mode) for name in (*folders, "state.json")}
    assert modes == {**dict.fromkeys(folders, 0o700), "state.json": 0o600}


def test_the_services_come_as_a_role_that_can_only_add_to_the_audit(up: Path) -> None:
    for name, process in status(up)["processes"].items():
        environment = psutil.Process(process["pid"]).environ()
        assert "SEGINT_MIGRATION_DATABASE_URL" not in environment
        if name in ("api", "worker"):
            with psycopg.connect(environment["SEGINT_DATABASE_URL"], autocommit=True) as connection:
                for statement in REFUSED:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement.encode())


def test_up_says_where_the_console_is_and_how_the_first_account_is_made(up: Path) -> None:
    # Given what `segint up` says
    said = run_segint("up", "--data-dir", up)
    url = status(up)["url"]
    assert f"console: {url}/admin/" in said.err
    assert "segint user create NAME --role admin --data-dir" in " ".join(said.err.split())
    # When that page is opened, it asks who is there
    with urllib.request.urlopen(f"{url}/admin/", timeout=30) as answer:
        assert answer.url.startswith(f"{url}/admin/login")
        assert b"SegInt console" in answer.read()
    # And nothing that others may read holds the secret of its sessions
    secret = (up / "session-secret").read_text(encoding="ascii")
    assert secret not in (up / "state.json").read_text(encoding="utf-8")


def test_the_worker_keeps_its_temporary_files_in_the_data_directory(up: Path) -> None:
    wait_for(lambda: any((up / "scratch").rglob("worker-*")), "the worker's scratch folder")


def test_a_second_up_says_where_it_runs_and_starts_nothing(up: Path) -> None:
    before = status(up)
    said = run_segint("up", "--data-dir", up)
    assert (said.code, said.out.strip()) == (0, before["url"])
    assert "already runs" in said.err
    again = run_segint("up", "--detach", "--json", "--data-dir", up).json()
    assert (again["url"], again["started"]) == (before["url"], False)
    assert {name: p["pid"] for name, p in status(up)["processes"].items()} == {
        name: p["pid"] for name, p in before["processes"].items()
    }


def test_another_port_than_the_one_it_runs_on_is_refused(up: Path) -> None:
    said = run_segint("up", "--port", 1, "--data-dir", up)
    assert said.code == 1
    assert "segint down" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", ["worker", "api", "redis", "postgres"])
def test_a_killed_process_comes_back(up: Path, name: str) -> None:
    data_dir = DataDir(up)
    before = status(up)["processes"][name]["pid"]

    def replaced() -> bool:
        state = data_dir.running_state()
        identity = state.processes[name].identity if state is not None else None
        return identity is not None and identity.pid != before and identity.process() is not None

    os.kill(before, signal.SIGKILL)
    wait_for(replaced, f"another {name}")
    wait_for(lambda: is_ready(status(up)["url"]), "the service to be ready again")
    after = status(up)["processes"][name]
    assert (after["state"], after["restarts"] >= 1) == ("running", True)


def test_commands_find_the_settings_of_what_runs(up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("SEGINT_")]:
        monkeypatch.delenv(variable)
    settings = local_settings(up)
    assert settings.volume_dir == up / "volume"
    with pytest.raises(NotRunning, match="segint up"):
        local_settings(up / "elsewhere")
    monkeypatch.setenv("SEGINT_DATABASE_URL", "postgresql://somewhere/else")
    monkeypatch.setenv("SEGINT_VOLUME_DIR", "/somewhere/else")
    assert local_settings(up).volume_dir == up / "volume"
    assert local_settings(None).volume_dir == Path("/somewhere/else")


def test_a_killed_supervisor_leaves_nothing_behind_and_up_and_down_both_cope(
    new_data_dir: Callable[[str], Path],
) -> None:
    # Given a deployment that has been started twice, each time on what a killed supervisor left
    data_dir = new_data_dir("killed")
    for _ in range(2):
        assert run_segint("up", "--detach", "--port", free_port(), "--data-dir", data_dir).code == 0
        os.kill(status(data_dir)["supervisor"]["pid"], signal.SIGKILL)

    # When nobody does anything, then the kernel and the servers end it all
    wait_for(lambda: not processes_of(data_dir), "the end of every process")
    said = run_segint("status", "--data-dir", data_dir)
    assert (said.code, said.err.count("\n")) == (1, 1)

    # And down has nothing left to do but to say so
    said = run_segint("down", "--data-dir", data_dir)
    assert (said.code, "Nothing runs" in said.err) == (0, True)


def test_down_after_the_supervisor_was_killed_ends_what_is_still_there(new_data_dir: Callable[[str], Path]) -> None:
    data_dir = new_data_dir("frozen")
    assert run_segint("up", "--detach", "--port", free_port(), "--data-dir", data_dir).code == 0
    before = status(data_dir)
    # A stopped process does not act on the signal that the kernel sends it when its parent dies.
    os.kill(before["processes"]["api"]["pid"], signal.SIGSTOP)
    os.kill(before["supervisor"]["pid"], signal.SIGKILL)
    wait_for(lambda: DataDir(data_dir).running_state() is None, "the supervisor's end")

    said = run_segint("down", "--data-dir", data_dir)

    assert (said.code, "Stopped" in said.err) == (0, True)
    wait_for(lambda: not processes_of(data_dir), "the end of every process")


def addresses_of_this_machine() -> list[str]:
    """Those of IPv4 by which others reach it; where there is no network, none."""
    every = (address for found in psutil.net_if_addrs().values() for address in found)
    return [found.address for found in every if found.family is socket.AF_INET and found.address[:4] != "127."]


def test_opened_to_others_it_asks_them_for_a_token_and_this_machine_for_none(
    new_data_dir: Callable[[str], Path],
) -> None:
    # Given a deployment that listens on every address
    data_dir = new_data_dir("opened")
    said = run_segint("up", "--detach", "--host", "0.0.0.0", "--port", free_port(), "--data-dir", data_dir)
    assert said.code == 0, said.err
    url = said.out.strip()
    made = run_segint("token", "create", "other", "--scope", "read", "--data-dir", data_dir)
    # Then a program on it needs no token, unless a proxy that nobody named stands between
    assert asked(url) == 200
    assert asked(url, X_Forwarded_For="127.0.0.1") == 401
    # and whoever comes by another address does
    for address in addresses_of_this_machine():
        there = url.replace("127.0.0.1", address)
        assert asked(there) == 401
        assert asked(there, X_Forwarded_For="127.0.0.1") == 401
        assert asked(there, Authorization=f"Bearer {made.out.strip()}") == 200
    assert run_segint("down", "--data-dir", data_dir).code == 0


def asked(url: str, **headers: str) -> int:
    """The status of an answer for which one must be let in."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/api/ping", headers=named), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_taken_port_is_named_before_anything_starts(new_data_dir: Callable[[str], Path]) -> None:
    data_dir = new_data_dir("taken")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = run_segint("up", "--detach", "--port", port, "--data-dir", data_dir)
    assert said.code == 1
    assert str(port) in said.err
    assert "--port" in said.err
    assert not (data_dir / "postgres").exists()
    assert not processes_of(data_dir)


def test_a_start_that_fails_explains_itself_and_leaves_nothing(new_data_dir: Callable[[str], Path]) -> None:
    data_dir = new_data_dir("unreachable")
    environment = {"SEGINT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    said = run_segint("up", "--detach", "--port", 0, "--data-dir", data_dir, environment=environment)
    assert said.code == 1
    assert "prepare failed" in said.err
    assert "Database unavailable" in said.err
    wait_for(lambda: not processes_of(data_dir), "the end of every process")


def test_a_setting_that_cannot_be_is_one_clear_line(new_data_dir: Callable[[str], Path]) -> None:
    environment = {"SEGINT_ATTEMPT_LIMIT": "many"}
    said = run_segint("up", "--port", 0, "--data-dir", new_data_dir("wrong"), environment=environment)
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("Invalid environment: SEGINT_ATTEMPT_LIMIT")


def test_in_the_foreground_ctrl_c_stops_everything_and_servers_of_others_are_used(
    new_data_dir: Callable[[str], Path], new_settings: Callable[..., Any]
) -> None:
    # Given a PostgreSQL and a Redis of somebody else
    data_dir = new_data_dir("foreground")
    settings = new_settings()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEGINT_")}
    environment = {
        **clean,
        "SEGINT_DATABASE_URL": settings.database_url,
        "SEGINT_REDIS_URL": settings.redis_url,
        "SEGINT_REDIS_NAMESPACE": settings.redis_namespace,
    }
    command = [sys.executable, "-m", "services.client.cli", "up", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert is_ready(url)
        said = status(data_dir)
        assert (said["processes"]["postgres"]["pid"], said["processes"]["postgres"]["state"]) == (None, "external")
        assert said["processes"]["redis"]["pid"] is None
        # When
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=60)
    # Then
    assert process.returncode == 0
    assert b"Traceback" not in talk
    assert not processes_of(data_dir)
    assert not (data_dir / "postgres").exists()


def test_down_and_status_where_nothing_was_ever_started(tmp_path: Path) -> None:
    said = run_segint("down", "--data-dir", tmp_path / "none")
    assert (said.code, "Nothing runs" in said.err) == (0, True)
    said = run_segint("status", "--json", "--data-dir", tmp_path / "none")
    assert (said.code, said.json()) == (1, {"url": None, "processes": {}})
    assert not (tmp_path / "none").exists()
