"""Dry runs of models that workers are asked for: what is tried, and what came of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.core.catalogue import Attachment


class CheckState(StrEnum):
    """Where a dry run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One dry run."""

    id: int
    model_id: str
    fingerprint: str
    """Of the attachment that it is of."""
    state: CheckState
    attempt: int
    worker: str | None
    error_text: str
    """Why it failed, in one sentence."""
    report: Mapping[str, Any]
    """What it measured: load_seconds, run_seconds, memory_bytes, device_bytes, notes."""


def fingerprint_of(attachment: Attachment) -> str:
    """What changes when anything of the attachment does."""
    content = {
        "runtime": attachment.runtime,
        "artifact": None if attachment.artifact is None else attachment.artifact.sha256,
        "module": None if attachment.module is None else attachment.module.sha256,
        "class_name": attachment.class_name,
        "allow_pickle": attachment.allow_pickle,
        "options": attachment.options,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
