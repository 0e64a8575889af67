"""Settings come from the environment, cannot change afterwards, and say which one is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.core.jobs import KeepInputs
from services.core.settings import AuthPolicy, ConstraintPolicy, Settings

REQUIRED = {
    "SEGINT_DATABASE_URL": "postgresql://segint@db/segint",
    "SEGINT_REDIS_URL": "redis://redis:6379/0",
    "SEGINT_VOLUME_DIR": "/volume",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is required."""
    for name in [name for name in os.environ if name.upper().startswith("SEGINT_")]:
        monkeypatch.delenv(name)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_what_is_required_is_enough() -> None:
    settings = Settings()
    assert settings.database_url == "postgresql://segint@db/segint"
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.volume_dir == Path("/volume")
    # The defaults are the contract's.
    assert settings.constraint_policy is ConstraintPolicy.RECORD
    assert settings.keep_inputs is KeepInputs.FAILED
    assert settings.protobuf_content_type == "application/x-protobuf"
    assert settings.attempt_limit == 3
    assert settings.auth is AuthPolicy.REQUIRED
    assert settings.trusted_networks == settings.trusted_proxies == ()
    assert settings.heartbeat_seconds * 3 <= settings.lease_seconds


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(ValidationError, match=name.removeprefix("SEGINT_").lower()):
        Settings()


def test_the_environment_overrides_with_its_prefix_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given settings with the prefix, without it, and one that nobody knows
    monkeypatch.setenv("SEGINT_ATTEMPT_LIMIT", "7")
    monkeypatch.setenv("segint_keep_inputs", "failed")
    monkeypatch.setenv("SEGINT_ONE_SHOT_RESULTS", "yes")
    monkeypatch.setenv("SEGINT_CONSTRAINT_POLICY", "reject")
    monkeypatch.setenv("LEASE_SECONDS", "1")
    monkeypatch.setenv("SEGINT_NONSENSE", "1")
    # Then the first kind counts
    settings = Settings()
    assert (settings.attempt_limit, settings.keep_inputs) == (7, KeepInputs.FAILED)
    assert settings.one_shot_results is True
    assert settings.constraint_policy is ConstraintPolicy.REJECT
    assert settings.lease_seconds == 30


@pytest.mark.parametrize(
    ("value", "networks"),
    [("", ()), (" , ", ()), ("10.0.0.0/8", ("10.0.0.0/8",)), ("192.0.2.1, ::1,unix", ("192.0.2.1", "::1", "unix"))],
)
@pytest.mark.parametrize("field", ["trusted_networks", "trusted_proxies"])
def test_networks_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str, networks: tuple[str, ...]
) -> None:
    monkeypatch.setenv(f"SEGINT_{field.upper()}", value)
    assert getattr(Settings(), field) == networks


def test_models_are_separated_by_commas_and_keep_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINT_PRELOAD_MODELS", "Centered Orange Square, spine-1,")
    monkeypatch.setenv("SEGINT_PINNED_MODELS", "spine-1")
    settings = Settings()
    assert settings.preload_models == ("Centered Orange Square", "spine-1")
    assert settings.pinned_models == ("spine-1",)


def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().attempt_limit = 5  # type: ignore[misc] # what must not work


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_body_bytes", "1GB"),
        ("max_body_bytes", "0"),
        ("max_body_bytes", ""),
        ("attempt_limit", "-1"),
        ("auth", "none"),
        ("pool_name", "GPU pool"),
        ("pool_name", ""),
        ("pool_name", "a" * 41),
        ("pool_device", "tpu"),
        ("trusted_networks", "10.0.0.1/8"),
        ("trusted_networks", "10.0.0.0/8 192.0.2.0/24"),
        ("trusted_networks", "workstation"),
        ("trusted_proxies", "*"),
        ("attempt_limit", "2.5"),
        ("lease_seconds", "0"),
        ("lease_seconds", "nan"),
        ("retry_delay_seconds", "-0.1"),
        ("keep_inputs", "sometimes"),
        ("constraint_policy", "Record it"),
        ("one_shot_results", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SEGINT_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (fault,) = caught.value.errors()
    assert fault["loc"] == (name,)
    assert fault["msg"]
    assert name in str(caught.value)
    assert value in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("module", ["services.worker", "uvicorn"])
def test_a_service_with_bad_settings_ends_with_one_line(module: str) -> None:
    factory = ["--factory", "services.api.app:create_app_from_environment"] if module == "uvicorn" else []
    ended = subprocess.run(
        [sys.executable, "-m", module, *factory],
        env={"PATH": os.environ["PATH"], "SEGINT_REDIS_URL": "redis://x", "SEGINT_LEASE_SECONDS": "soon"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    [line] = ended.stderr.strip().splitlines()
    assert "SEGINT_DATABASE_URL: Field required" in line
    assert "SEGINT_LEASE_SECONDS: Input should be a valid number" in line
