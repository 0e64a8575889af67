"""The error tree. Every error has a short stable `summary`, and `details`: one sentence that says what was
wrong and what to do about it. It knows no HTTP; `services.api.error_responses` maps classes to statuses.
"""

from typing import ClassVar


class SegIntError(Exception):
    """Root of every error that SegInt raises on purpose."""

    summary: ClassVar[str] = "Internal error"

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


# --- Faults of a request -------------------------------------------------------------------------------------


class MalformedMessage(SegIntError):
    """Bytes that do not parse as the message they should be, or carry what cannot be stored."""

    summary = "Malformed message"


class InvalidModelInput(SegIntError):
    """A ModelInput that parses but cannot be segmented: channels, sizes, data types."""

    summary = "Invalid model input"


class InvalidParameter(SegIntError):
    """A header or query parameter with a value outside what is allowed."""

    summary = "Invalid parameter"


class UnsupportedContent(SegIntError):
    """A body in a type or an encoding that the route does not take."""

    summary = "Unsupported content type"


class BodyTooLarge(SegIntError):
    """A body over the configured limit."""

    summary = "Request body too large"


class UploadStalled(SegIntError):
    """A body of which nothing more arrived for too long."""

    summary = "Upload stalled"


class ModelUnavailable(SegIntError):
    """A model that is unknown, disabled, or has nothing to run."""

    summary = "Model not available"


class SegmentationUnknown(SegIntError):
    """A segmentation that does not exist, has expired, or belongs to another model."""

    summary = "Segmentation not found"


class ResultNotReady(SegIntError):
    """The result of a segmentation that has not finished."""

    summary = "Result not ready"


class SegmentationFinished(SegIntError):
    """A change to a segmentation that has ended already."""

    summary = "Segmentation already finished"


class SegmentationUnsuccessful(SegIntError):
    """The result of a segmentation that failed or was cancelled."""

    summary = "Segmentation has no result"


class NotAuthenticated(SegIntError):
    """No credentials, or wrong ones, where they are required."""

    summary = "Credentials required"


class NotPermitted(SegIntError):
    """Credentials that are right, and not enough for what was asked."""

    summary = "Not permitted"


# --- Faults of accounts and tokens ---------------------------------------------------------------------------


class InvalidAccount(SegIntError):
    """An account's name, roles or password that cannot be taken, or an account that is not there."""

    summary = "Invalid account"


class InvalidToken(SegIntError):
    """An API token's name, scopes or expiry that cannot be taken, or a token that is not there."""

    summary = "Invalid token"


class LoginRefused(SegIntError):
    """No such account, a wrong password, or a disabled account: which of them is not told."""

    summary = "Login refused"


class LoginThrottled(SegIntError):
    """Too many failures by this account or from this address; the password was not even looked at."""

    summary = "Too many login attempts"

    def __init__(self, details: str, retry_after_seconds: int) -> None:
        super().__init__(details)
        self.retry_after_seconds = retry_after_seconds


# --- Faults of the catalogue ---------------------------------------------------------------------------------


class CatalogueConflict(SegIntError):
    """A change that contradicts what the catalogue holds."""

    summary = "Conflict in the catalogue"


class InvalidModel(SegIntError):
    """A model file, module, class or option that cannot work; raised when it is attached or loaded."""

    summary = "Invalid model"


class RuntimeUnavailable(SegIntError):
    """A runtime that does not exist, or whose library is not installed here."""

    summary = "Runtime not available"


# --- Faults of the surroundings ------------------------------------------------------------------------------


class Unavailable(SegIntError):
    """Something SegInt needs is away; the same request may succeed later."""

    summary = "Service temporarily unavailable"
    retry_after_seconds: ClassVar[int] = 5


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached, or does not answer in time."""

    summary = "Database unavailable"


class TooManyUploads(Unavailable):
    """The limit of uploads at one time is reached."""

    summary = "Too many uploads at once"


class QueueFull(Unavailable):
    """The limit of jobs that wait is reached."""

    summary = "Queue full"
    retry_after_seconds = 30


class TooManyStreams(Unavailable):
    """The limit of open event streams is reached."""

    summary = "Too many event streams"


class TooManyLogins(Unavailable):
    """As many passwords are checked and wait to be as may."""

    summary = "Too many logins at once"


class StorageAway(Unavailable):
    """The mounted volume is not there, or cannot be read."""

    summary = "Storage unavailable"


class StorageFull(SegIntError):
    """The mounted volume has no room left."""

    summary = "Storage full"


class InvalidSettings(SegIntError):
    """A SEGINT_ variable that is missing or has a value that cannot be used."""

    summary = "Invalid environment"


# --- What ends one attempt or one job ------------------------------------------------------------------------


class JobError(SegIntError):
    """A fault that ends a job for good; trying again would end the same way."""

    summary = "Segmentation failed"


class NotGzip(JobError):
    """Voxel data that is not a gzip stream, or a damaged one."""

    summary = "Decompression error"


class VoxelCountMismatch(JobError):
    """Voxel data that inflates to another size than the declared one."""

    summary = "Decompression buffer size mismatch"


class InvalidRequestData(JobError):
    """Any other fault of the request that shows only when the job runs."""

    summary = "Invalid request data"


class ModelFailed(JobError):
    """The model raised, or returned what is not a mask."""

    summary = "Model failed"


class AttemptLost(SegIntError):
    """This attempt ended without a verdict on the job: crash, time limit, killed host. Another may succeed."""

    summary = "Attempt lost"


class HostCrashed(AttemptLost):
    """The model host process died while it worked."""

    summary = "Model host crashed"


class MemoryLimitExceeded(AttemptLost):
    """The model took more memory than it may and was killed."""

    summary = "Model exceeded its memory limit"


class TimeLimitExceeded(AttemptLost):
    """The model did not finish within its time limit and was killed."""

    summary = "Model exceeded its time limit"


class Cancelled(SegIntError):
    """The work was stopped on purpose: the job was cancelled, or its lease lost."""

    summary = "Cancelled"
