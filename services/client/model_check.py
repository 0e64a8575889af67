"""Ask the worker's code on this machine what it can run, and whether a model works. Runs it in a process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from services.core.errors import InvalidModel, RuntimeUnavailable
from services.core.model_spec import ModelSpec

PROGRAM = (sys.executable, "-m", "services.worker.dry_run")
MARGIN_SECONDS = 60.0
"""What the process may take beyond the limits of loading and running, which it keeps itself."""


def runtimes() -> dict[str, str | None]:
    """Name → what is missing, as a sentence; None where nothing is.

    Raises:
        RuntimeUnavailable: the worker is not installed here.
    """
    found = _asked("list", None, MARGIN_SECONDS)["runtimes"]
    return {entry["name"]: entry["missing"] for entry in found}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a dry run measured, on a tiny volume."""

    load_seconds: float
    run_seconds: float
    memory_bytes: int
    """Of the model's process, after the run."""
    device_bytes: int
    """The most of the GPU that PyTorch has reserved for it; 0 where it takes none, or another library does."""
    notes: tuple[str, ...]


class DryRun:
    """Loads a model and runs it on a tiny volume, each within a limit; `report` says how that went."""

    def __init__(self, time_limit_seconds: float) -> None:
        self._time_limit_seconds = time_limit_seconds
        self.report: CheckReport | None = None

    def __call__(self, spec: ModelSpec) -> None:
        """Raises InvalidModel when the model does not work, RuntimeUnavailable when it cannot be tried here."""
        limit = self._time_limit_seconds
        request = json.dumps({"spec": spec.to_json(), "time_limit_seconds": limit})
        answer = _asked("check", request, 2 * limit + MARGIN_SECONDS)
        if "error" in answer:
            kind = RuntimeUnavailable if answer["error"] == "RuntimeUnavailable" else InvalidModel
            raise kind(answer["details"])
        self.report = CheckReport(
            load_seconds=answer["load_seconds"],
            run_seconds=answer["run_seconds"],
            memory_bytes=answer["memory_bytes"],
            device_bytes=answer["device_bytes"],
            notes=tuple(answer["notes"]),
        )


def _asked(question: str, request: str | None, limit_seconds: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [*PROGRAM, question], input=request or "", capture_output=True, text=True, check=True, timeout=limit_seconds
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise InvalidModel(f"The dry run was not over within {limit_seconds:g} s; attach with --no-check.") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["it printed nothing"]
        raise RuntimeUnavailable(
            f"Models cannot be tried on this machine ({last[0]}); install the worker here with "
            "`pip install 'segint[worker]'` and torch, or attach with --no-check."
        ) from error
    except (IndexError, ValueError) as error:
        raise RuntimeUnavailable("The worker's dry run answered nonsense; attach with --no-check.") from error
    return answer
