"""What a user thinks of a result, and what the client measured of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StructureComment:
    """What the user thinks of one structure. `score` is None when none was given, which is not a score of 0."""

    structure_id: str = ""
    comments: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the user thinks of one segmentation. `segmentation_id` is the client's text, kept even if unknown."""

    client_version: str = ""
    segmentation_id: str = ""
    accepted: bool = False
    comments: str = ""
    score: float | None = None
    structure_comments: tuple[StructureComment, ...] = ()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the client measured of one segmentation. Times in milliseconds."""

    client_version: str = ""
    segmentation_id: str = ""
    model_id: str = ""
    upload_ms: int = 0
    wait_ms: int = 0
    download_ms: int = 0
    retries: int = 0
    client_error: int = 0
    client_error_information: str = ""
