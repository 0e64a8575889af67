"""How far a segmentation is and how long it may still take, from whatever the server can tell."""

from dataclasses import dataclass
from uuid import UUID

from services.client.api_client import SegIntClient
from services.client.faults import Refused, UnexpectedAnswer, may_pass
from services.core.jobs import JobErrorCode
from services.core.wire.segmentations import Progress

LEAST_SECONDS = 5
"""Nobody reads an estimate that is shorter."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """As `Progress`, and what lies ahead where the server tells it."""

    percent: int
    error_text: str = ""
    error_code: JobErrorCode = JobErrorCode.NONE
    queue_position: int | None = None
    """1 is next; None unless it waits."""
    remaining_seconds: float | None = None

    def in_words(self) -> str:
        """Such as «place 3, about 2 min» or «45 %»."""
        where = f"{self.percent} %" if self.queue_position is None else place(self.queue_position)
        return where if self.remaining_seconds is None else f"{where}, {about(self.remaining_seconds)}"


class Outlooks:
    """Looks at one segmentation. Servers other than SegInt, and older ones, tell only their progress."""

    def __init__(self, client: SegIntClient, model_id: str, segmentation_id: UUID) -> None:
        self._client = client
        self._model_id = model_id
        self._id = segmentation_id
        self._has_pages = True

    def look(self) -> Outlook:
        """How it stands now; raises the client's errors."""
        if self._has_pages:
            try:
                page = self._client.job(self._id)
            except (Refused, UnexpectedAnswer) as error:
                if may_pass(error):
                    raise
                self._has_pages = False
            else:
                if not page.finished:
                    return Outlook(
                        page.percent, queue_position=page.queue_position, remaining_seconds=page.remaining_seconds
                    )
        return _outlook(self._client.progress(self._model_id, self._id))


def _outlook(progress: Progress) -> Outlook:
    return Outlook(progress.percent, progress.error_text, progress.error_code)


def place(queue_position: int) -> str:
    """A place in the queue, from 1."""
    return "next" if queue_position == 1 else f"place {queue_position}"


def about(seconds: float) -> str:
    """A duration as an estimate deserves: two digits at most."""
    if seconds < 60:
        return f"about {max(LEAST_SECONDS, round(seconds / 5) * 5)} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
