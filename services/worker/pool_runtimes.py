"""See to it that a worker claims only what its environment has the libraries for."""

import logging

from services.core.settings import Settings
from services.worker.runtimes import MODULES, runtime

logger = logging.getLogger(__name__)


def check_named_runtimes(settings: Settings) -> None:
    """Of a pool that names its runtimes, each has to be there.

    Raises:
        SystemExit: one is not; its jobs would fail here, or wait, while somebody believes that this pool runs them.
    """
    unknown = [name for name in settings.pool_runtimes if name not in MODULES]
    reasons = [f"There is no runtime {name!r}; known are {', '.join(sorted(MODULES))}." for name in unknown]
    reasons += [missing for name in settings.pool_runtimes if name in MODULES and (missing := runtime(name).missing())]
    if reasons:
        raise SystemExit(
            f"SEGINT_POOL_RUNTIMES is {','.join(settings.pool_runtimes)}, but this worker cannot run all of them: "
            f"{' '.join(reasons)} Give it an image that was built with them, or leave them out of SEGINT_POOL_RUNTIMES."
        )


def within_what_is_installed(settings: Settings) -> Settings:
    """The same; but a pool that names no runtime has those whose library is installed, unless all are."""
    if settings.pool_runtimes:
        return settings
    missing = {name: reason for name in MODULES if (reason := runtime(name).missing())}
    if not missing:
        return settings
    for name, reason in missing.items():
        logger.warning("runtime left to other pools", extra={"runtime": str(name), "reason": reason})
    return settings.model_copy(update={"pool_runtimes": tuple(str(name) for name in MODULES if name not in missing)})
