"""PostgreSQL's own programs: pg_dump and pg_restore, of the wheel in local mode, else of this machine."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from services.client.backups.faults import BackupFailed
from services.client.local.faults import ServerNotStarted
from services.client.local.postgres_wheel import binary


def dump(database_url: str, target: Path, *, local: bool) -> None:
    """Write the database's content to `target`, as it is at one moment. It may be in use.

    Raises:
        BackupFailed: pg_dump is missing, older than the server, or refused.
    """
    _run("pg_dump", database_url, ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"], local=local)


def restore(database_url: str, source: Path, *, local: bool) -> None:
    """Fill an empty database from `source`, whole or not at all.

    Raises:
        BackupFailed: pg_restore is missing, or refused.
    """
    options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", str(source)]
    _run("pg_restore", database_url, options, local=local)


def _run(name: str, database_url: str, options: list[str], *, local: bool) -> None:
    """With the first of the programs that can. One that is too old refuses, and changes nothing."""
    url, environment = _without_password(database_url)
    refusal = ""
    for program in _programs(name, local=local):
        done = subprocess.run(
            [str(program), f"--dbname={url}", *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode == 0:
            return
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        refusal = f"{program} did not succeed: {said[0].removeprefix(f'{name}: ').removesuffix('.')}."
    raise BackupFailed(
        refusal
        or f"{name} is not on PATH; install PostgreSQL's client programs of the server's version or a newer one, as "
        "Debian's postgresql-client."
    )


def _programs(name: str, *, local: bool) -> list[Path]:
    """Of this machine first where the server is not the wheel's: whoever installed them knows the server."""
    found = None if local else shutil.which(name)
    programs = [] if found is None else [Path(found)]
    with suppress(ServerNotStarted):  # the wheel is there in local mode only
        programs.append(binary(name))
    return programs


def _without_password(database_url: str) -> tuple[str, dict[str, str]]:
    """The URL as libpq takes it, and the environment with its password: arguments are seen by every user."""
    parts = urlsplit(database_url)
    environment = dict(os.environ)
    if parts.password is not None:
        environment["PGPASSWORD"] = unquote(parts.password)
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{host}" if user else host
    return urlunsplit(parts._replace(scheme="postgresql", netloc=netloc)), environment
