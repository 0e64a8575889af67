"""Files of the volume by their names: which of them this server made, and what each belongs to.

A name that no part of this server gives, such as a network filesystem's own, is nobody's stray.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from services.core.blobs import INPUTS, MODELS, PROBE_PREFIX, RESULTS
from services.core.errors import StorageAway
from services.core.pending_file import PARTIAL_SUFFIX

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PARTIAL = re.escape(PARTIAL_SUFFIX)
_INPUT = re.compile(rf"{_UUID}\.pb(?:{_PARTIAL})?|{re.escape(PROBE_PREFIX)}[0-9a-f]{{32}}")
_RESULT = re.compile(rf"({_UUID})\.({_UUID})\.pb(?:{_PARTIAL})?")
_MODEL = re.compile(rf"[0-9a-f]{{32}}(?:{_PARTIAL})?")


@dataclass(frozen=True, slots=True)
class FilesOnVolume:
    """Names of the files that this server made, by folder, at about one moment."""

    inputs: frozenset[str]
    results: frozenset[str]
    models: frozenset[str]


def files_on_volume(root: Path) -> FilesOnVolume:
    """What lies on the volume below `root`.

    Raises:
        StorageAway: a folder is not there or cannot be read.
    """

    def names(folder: str, pattern: re.Pattern[str]) -> frozenset[str]:
        try:
            return frozenset(path.name for path in (root / folder).iterdir() if pattern.fullmatch(path.name))
        except OSError as error:
            raise StorageAway(f"{root / folder} cannot be listed ({error.strerror}); look at the mount.") from error

    return FilesOnVolume(names(INPUTS, _INPUT), names(RESULTS, _RESULT), names(MODELS, _MODEL))


def attempt_of(result_name: str) -> tuple[UUID, UUID]:
    """Job and claim token that a result's name carries.

    Raises:
        ValueError: it is no result's name.
    """
    match = _RESULT.fullmatch(result_name)
    if match is None:
        raise ValueError(f"«{result_name}» is not a result's name")
    return UUID(match[1]), UUID(match[2])
