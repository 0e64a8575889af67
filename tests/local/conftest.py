"""The `segint` command as a process of its own, and data directories that are cleaned up whatever happens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

COMMAND_LIMIT_SECONDS = 150.0


@dataclass(frozen=True)
class Said:
    """What one run of the command came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def run_segint(
    *arguments: object, environment: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str | None = None
) -> Said:
    """Run `segint` with no settings but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEGINT_")}
    code = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "services.client.cli", *map(str, arguments)],
        env={**clean, "PYTHONPATH": code, **(environment or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=COMMAND_LIMIT_SECONDS,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def processes_of(data_dir: Path) -> list[str]:
    """Every live process that names the directory on its command line or in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = [*process.cmdline(), process.environ().get("SEGINT_DATA_DIR", "")]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(data_dir) in part for part in text):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def new_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Makes the path of a data directory; what runs there at the end of the module is taken down."""
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(tmp_path_factory.mktemp("local") / name)
        return made[-1]

    yield make
    for path in made:
        if path.exists():
            run_segint("down", "--data-dir", path)
