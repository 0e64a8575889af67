"""What can go wrong between a workstation and a server."""

from services.core.errors import SegIntError


class ServerUnreachable(SegIntError):
    """No answer from the server: wrong address, not running, network away, or too slow."""

    summary = "Server unreachable"


class Refused(SegIntError):
    """The server answered, and the answer is no."""

    summary = "Request refused"

    def __init__(self, details: str, *, status: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(details)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class UnexpectedAnswer(SegIntError):
    """An answer that SegInt does not give: something else listens at this address."""

    summary = "Unexpected answer"


class DamagedResult(SegIntError):
    """A result that arrived with other bytes than the server has."""

    summary = "Result damaged on its way"


class SegmentationFailed(SegIntError):
    """The server could not finish a segmentation that it had accepted."""

    summary = "Segmentation failed"


def may_pass(error: SegIntError) -> bool:
    """Whether the same request may succeed a little later: the server restarts, or a proxy before it finds it away."""
    return isinstance(error, ServerUnreachable) or (isinstance(error, Refused) and error.status in (502, 503, 504))
