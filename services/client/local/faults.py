"""What can go wrong with a local deployment, each with what to do about it."""

from services.core.errors import SegIntError


class NotRunning(SegIntError):
    """A command needs a running local deployment and there is none."""

    summary = "Not running"


class AlreadyRunning(SegIntError):
    """A local deployment runs in this data directory, but not as asked for."""

    summary = "Already running"


class AddressUnavailable(SegIntError):
    """The host and port to serve on cannot be bound."""

    summary = "Address not available"


class DataDirUnusable(SegIntError):
    """The data directory, or a folder it needs, cannot be used."""

    summary = "Data directory not usable"


class ServerNotStarted(SegIntError):
    """A process of the deployment did not start, or did not become ready."""

    summary = "Could not start"
