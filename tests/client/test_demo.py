"""The demonstration's own care: its service always stops, and no real deployment is ever touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.client import demo
from services.client.demo import DemoFailed, Stages


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The `segint` commands that would have been run."""
    ran: list[str] = []

    def note(*arguments: str, data_dir: Path) -> str:
        ran.append(arguments[0])
        return '{"url": "http://127.0.0.1:1"}'

    monkeypatch.setattr(demo, "_segint", note)
    return ran


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_the_service_is_stopped_whatever_happens(
    commands: list[str], tmp_path: Path, fault: type[BaseException]
) -> None:
    with pytest.raises(fault), demo._service(tmp_path, Stages()) as url:
        assert url == "http://127.0.0.1:1"
        raise fault
    assert commands == ["up", "down"]


def test_a_service_that_does_not_start_is_cleared_away(
    commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_url_in", lambda answer: (_ for _ in ()).throw(DemoFailed("no")))
    with pytest.raises(DemoFailed), demo._service(tmp_path, Stages()):
        pytest.fail("it did not start")
    assert commands == ["up", "down"]


def test_settings_of_a_real_deployment_are_kept_from_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINT_DATABASE_URL", "postgresql://production")
    monkeypatch.setenv("OTHER", "kept")
    said = demo._run(
        [sys.executable, "-c", "import os; print('SEGINT_DATABASE_URL' in os.environ, os.environ['OTHER'])"]
    )
    assert said.split() == ["False", "kept"]


def test_a_failed_command_is_told_by_its_last_line() -> None:
    command = [sys.executable, "-c", "import sys; print('first', file=sys.stderr); sys.exit('the reason')"]
    with pytest.raises(DemoFailed, match="exit code 1: the reason"):
        demo._run(command)


def test_without_the_examples_the_demo_says_where_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("services.__file__", str(tmp_path / "services" / "__init__.py"))
    with pytest.raises(DemoFailed, match="from a clone"):
        demo._example_folder()


def test_the_command_line_needs_none_of_the_heavy_libraries_to_start() -> None:
    heavy = ("httpx", "numpy", "SimpleITK", "matplotlib", "torch", "sqlalchemy", "redis", "dramatiq")
    code = f"import sys, services.client.segment, services.client.demo; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
