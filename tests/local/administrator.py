"""Somebody who runs `segint models` on a catalogue, and what they attach."""

import contextlib
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from services.client.cli import app
from services.core.settings import Settings
from tests.local.conftest import Said

MODEL = "Centered Orange Square"


class Administrator:
    """Runs `segint models` with the settings of one deployment, here rather than in a process: it is often needed."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self._models = settings.volume_dir / "models"
        self._environment = {
            "SEGINT_DATABASE_URL": settings.database_url,
            "SEGINT_VOLUME_DIR": str(settings.volume_dir),
        }

    def __call__(self, *arguments: object) -> Said:
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(app, ["models", *map(str, arguments)], env=self._environment)
        return Said(result.exit_code, result.stdout, result.stderr)

    def files(self) -> list[str]:
        """Names of the model files on the volume."""
        return sorted(path.name for path in self._models.iterdir())


def listed(models: Administrator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = models("list", "--all", "--json").json()["models"]
    return found


def network(folder: Path, answer: str) -> tuple[Path, Path]:
    """A model file and its module, which answers a volume with that expression."""
    import torch

    module, weights = folder / "net.py", folder / "net.pt"
    module.write_text(
        f"import torch\nclass Net(torch.nn.Module):\n    def forward(self, volume):\n        return {answer}\n",
        encoding="utf-8",
    )
    torch.save({}, weights)
    return weights, module
