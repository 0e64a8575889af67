"""Settings of a local deployment: for its own processes, and for commands that work on it while it runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from services.client.local.data_dir import chosen_data_dir
from services.client.local.faults import NotRunning
from services.core.settings import Settings, read_settings

FIELDS = {
    "SEGINT_DATABASE_URL": "database_url",
    "SEGINT_REDIS_URL": "redis_url",
    "SEGINT_VOLUME_DIR": "volume_dir",
    "SEGINT_PUBLIC_URL": "public_url",
}
NO_REDIS = "redis://127.0.0.1:6379/0"
"""Stands in where the environment names none: commands that work on the catalogue never ring."""


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Settings with these variables over those of the process's own environment.

    Raises:
        InvalidSettings: a variable has a value that cannot be used.
    """
    return read_settings(**{field: environment[name] for name, field in FIELDS.items() if environment.get(name)})


def local_settings(data_dir: Path | None) -> Settings:
    """Settings for a command that works on the catalogue of a deployment.

    A data directory that is named explicitly comes first; then SEGINT_DATABASE_URL with SEGINT_VOLUME_DIR, which an
    administrator of another deployment sets; then the default data directory.

    Raises:
        NotRunning: none of them leads to a database.
        InvalidSettings: a SEGINT_ variable has a value that cannot be used.
    """
    has_own = bool(os.environ.get("SEGINT_DATABASE_URL") and os.environ.get("SEGINT_VOLUME_DIR"))
    if data_dir is None and has_own:
        return settings_from({"SEGINT_REDIS_URL": NO_REDIS, **os.environ})
    chosen = chosen_data_dir(data_dir)
    state = chosen.running_state()
    if state is not None:
        return settings_from(state.environment)
    if has_own:
        return settings_from({"SEGINT_REDIS_URL": NO_REDIS, **os.environ})
    raise NotRunning(
        f"No local deployment runs in {chosen.root}; start one with `segint up`, name its --data-dir, or set "
        "SEGINT_DATABASE_URL and SEGINT_VOLUME_DIR."
    )
