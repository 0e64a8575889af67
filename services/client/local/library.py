"""The catalogue that a command works on."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.core.model_library import ModelLibrary


def opened_library(data_dir: Path | None) -> "ModelLibrary":
    """The model library of the deployment that `local_settings` finds, which says what is raised. A context manager."""
    from services.client.local.settings import local_settings
    from services.core.model_library import ModelLibrary

    settings = local_settings(data_dir)
    return ModelLibrary(database_url=settings.database_url, volume_dir=settings.volume_dir)
