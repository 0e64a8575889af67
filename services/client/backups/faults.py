"""What can go wrong with a backup."""

from services.core.errors import SegIntError


class BackupUnusable(SegIntError):
    """A file that is no backup, is not whole, or was made by a newer version."""

    summary = "Backup cannot be used"


class NotEmpty(SegIntError):
    """A restore to where something is already."""

    summary = "Nothing was restored"


class BackupFailed(SegIntError):
    """PostgreSQL's own programs are missing or refused, or there is no room."""

    summary = "Backup failed"
