"""What of a job can still be looked at: its request's volumes and its result's masks, where they lie in their files.

Nothing is inflated here. Every look reads a file through to its digest first, so that no damaged byte is shown.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.core.blobs import Blobs, mapped
from services.core.errors import SegIntError, StorageAway
from services.core.jobs import UNFINISHED, Job, JobState
from services.core.wire.model_input import SubmittedVolume, decode_model_input
from services.core.wire.model_output import CompressedMask, locate_masks
from services.core.wire.voxel_spans import Span

T = TypeVar("T")


class NothingToShow(SegIntError):
    """A file of a job that is not there, or must not be shown."""

    summary = "Nothing to show"


@dataclass(frozen=True, slots=True)
class Scan:
    """The volumes of a request, in its order."""

    path: Path
    volumes: tuple[SubmittedVolume, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The masks of a result, in its order."""

    path: Path
    masks: tuple[CompressedMask, ...]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Bytes of a file."""

    path: Path
    span: Span


def open_scan(blobs: Blobs, job: Job) -> Scan:
    """The volumes that `job` was submitted with. Reads the whole file: not for an event loop.

    Raises:
        NothingToShow: they were deleted, lost or damaged.
        StorageAway: the volume cannot be read.
    """
    if job.input_file is None:
        if job.state is JobState.EXPIRED:
            raise NothingToShow("The scan is not kept any more: the job has expired.")
        raise NothingToShow(
            f"The scan was deleted when the job {job.state}; with SEGINT_KEEP_INPUTS=always scans of later jobs are "
            "kept until their job expires."
        )
    path = blobs.input_path(job.input_file)
    return Scan(path, _checked(path, job.input_sha256, "scan", lambda buffer: decode_model_input(buffer).channels))


def open_masks(blobs: Blobs, job: Job) -> Drawn:
    """The masks that `job` ended with. Reads the whole file: not for an event loop.

    Raises:
        NothingToShow: there are none yet or any more, or they were damaged.
        StorageAway: the volume cannot be read.
    """
    if job.state in UNFINISHED:
        raise NothingToShow(f"There are no masks yet: the job is {job.state}.")
    if job.state is JobState.EXPIRED:
        raise NothingToShow("The masks are not kept any more: the job has expired.")
    if job.state is not JobState.SUCCEEDED or job.result_file is None:
        raise NothingToShow(f"There are no masks: the job {job.state}.")
    path = blobs.result_path(job.result_file)
    return Drawn(path, _checked(path, job.result_sha256, "result", locate_masks))


def _checked(path: Path, sha256: str | None, what: str, read: Callable[[memoryview], T]) -> T:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 not in (None, digest):
            raise NothingToShow(f"The {what} was damaged on the server's volume, so it is not shown.")
        return read(mapped(path))
    except FileNotFoundError as error:
        raise NothingToShow(f"The {what} is not on the server's volume any more.") from error
    except OSError as error:
        raise StorageAway(
            f"The server's volume cannot be read ({error.strerror}); try again later, or ask its administrator."
        ) from error
    except NothingToShow:
        raise
    except SegIntError as error:
        raise NothingToShow(f"The {what} cannot be read: {error.details}") from error
