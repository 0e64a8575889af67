"""The chart speaks of settings in the services' own names, and gives them values that the services take."""

import ast
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from services.core.pools import PoolDevice
from services.core.settings import Settings
from tests.charts.rendering import CHART, LEAST, SHAPES, Document, containers, pods, render, shape

SECRETS = {
    "SEGINT_DATABASE_URL": "postgresql://segint:secret@db:5432/segint",
    "SEGINT_MIGRATION_DATABASE_URL": "postgresql://owner:secret@db:5432/segint",
    "SEGINT_REDIS_URL": "redis://:secret@redis:6379/0",
    "SEGINT_SESSION_SECRET": "0123456789abcdef" * 2,
}
"""What an existing Secret would have."""
NAMES = {f"SEGINT_{name.upper()}" for name in Settings.model_fields}
DERIVED = {
    "database_url",
    "migration_database_url",
    "redis_url",
    "session_secret",
    "volume_dir",
    "redis_namespace",
    "worker_metrics_port",
    "heartbeat_file",
    "drain_seconds",
    "pool_name",
    "pool_models",
    "pool_except_models",
    "pool_runtimes",
    "pool_device",
}
"""What the chart fills in itself, so that nobody can set it to something else."""


def environment_of(rendered_shape: str, container: Document) -> dict[str, str]:
    """What a container's process finds, with a value for what a Secret would give."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= shape(rendered_shape).one("ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container.get("env", []):
        found[one["name"]] = one["value"] if "value" in one else SECRETS.get(one["name"], "secret")
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_every_variable_is_a_setting_of_the_services(name: str) -> None:
    for title, pod in pods(shape(name)):
        for one in containers(pod):
            ours = {key for key in environment_of(name, one) if key.startswith("SEGINT_")}
            assert ours <= NAMES, title


@pytest.mark.parametrize("name", SHAPES)
def test_the_services_take_every_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are made of exactly what a container's process would find."""
    for _, pod in pods(shape(name)):
        for one in containers(pod):
            if not one.get("envFrom"):
                continue
            settings = settings_of(environment_of(name, one), monkeypatch)
            assert settings.volume_dir == Path("/var/lib/segint")
            assert settings.redis_namespace == "segint:research:rel"


def test_the_values_arrive_as_they_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that Helm would write as 1e+09, lists, apostrophes, and a pool's own over the common ones."""
    (large,) = shape("pools").one("Deployment", "rel-worker-large")["spec"]["template"]["spec"]["containers"]
    settings = settings_of(environment_of("pools", large), monkeypatch)
    assert settings.pool.models == ("whole-body-7", "o'clock")
    assert settings.pool.device is PoolDevice.CUDA
    assert settings.pool_name == "large"
    assert settings.model_time_limit_seconds == 3600
    assert settings.pinned_models == ("whole-body-7",)
    assert settings.max_body_bytes == 1024**3
    assert settings.trusted_networks == ("192.0.2.0/24", "2001:db8::/32")
    assert "<b>For research, not for clinical use.</b>" in settings.vendor_description_html
    assert settings.worker_metrics_port == large["ports"][0]["containerPort"]


def test_every_setting_is_a_value_or_filled_in_and_the_defaults_agree() -> None:
    # Given the chart's own values
    ours = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]
    # Then each setting is either there, with the services' default, or the chart's own business
    assert {snake(key) for key in ours} | DERIVED >= set(Settings.model_fields)
    assert {snake(key) for key in ours}.isdisjoint(DERIVED)
    for key, value in ours.items():
        default: Any = Settings.model_fields[snake(key)].default
        assert value == (list(default) if isinstance(default, tuple) else default), key


@pytest.mark.parametrize(
    "settings", [{"publicUrl": "https://a.example.org/"}, {}], ids=["given", "made of the host's name"]
)
def test_the_public_url_is_the_ingress_with_tls(settings: dict[str, str]) -> None:
    ingress = {"enabled": True, "host": "b.example.org", "tls": {"existingSecret": "certificate"}}
    data = render({**LEAST, "ingress": ingress, "settings": settings}).one("ConfigMap", "rel-api")["data"]
    assert data["SEGINT_PUBLIC_URL"] == settings.get("publicUrl", "https://b.example.org/")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"heartbeatSeconds": 11}, "heartbeatSeconds is 11"),
        ({"janitorIntervalSeconds": 6}, "janitorIntervalSeconds is 6"),
        ({"orphanSeconds": 900}, "orphanSeconds is 900"),
    ],
)
def test_what_the_services_would_refuse_together_the_chart_refuses(
    settings: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=what):
        render({**LEAST, "settings": settings})
    # And so do the services
    environment = SECRETS | {"SEGINT_VOLUME_DIR": "/v"}
    environment |= {f"SEGINT_{snake(key).upper()}": str(value) for key, value in settings.items()}
    with pytest.raises(ValueError, match="SEGINT_"):
        settings_of(environment, monkeypatch)


def test_the_folder_of_the_services_commands_is_right() -> None:
    """The modules that containers start are there under those names."""
    root = CHART.parents[1]
    commands = [
        command
        for name in SHAPES
        for _, pod in pods(shape(name))
        for one in containers(pod)
        for command in (one.get("command", []), one.get("livenessProbe", {}).get("exec", {}).get("command", []))
    ]
    modules = {command[2] for command in commands if command[:2] == ["python", "-m"]}
    assert modules == {"migrations", "services.worker", "services.worker.alive"}
    for module in modules:
        path = root / module.replace(".", "/")
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()
    tree = ast.parse((root / "services" / "api" / "app.py").read_text(encoding="utf-8"))
    assert "create_app_from_environment" in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    with monkeypatch.context() as patch:
        for name in NAMES:
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings()


def snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
