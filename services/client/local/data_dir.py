"""The data directory of a local deployment: its layout, the state it publishes, and the lock that guards it."""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.client.local.faults import DataDirUnusable
from services.client.local.identity import MARK, Identity

DEFAULT_FOLDER = Path("~/.local/share/segint")
SECRET_BYTES = 32


class Phase(StrEnum):
    """Where a deployment stands as a whole."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class ProcessState(StrEnum):
    """Where one process stands. EXTERNAL: it is somebody else's and only used."""

    RUNNING = "running"
    RESTARTING = "restarting"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process of the deployment, as the supervisor last saw it."""

    state: ProcessState
    identity: Identity | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What the supervisor publishes about a deployment."""

    phase: Phase
    host: str
    port: int
    url: str
    supervisor: Identity
    environment: Mapping[str, str] = field(default_factory=dict)
    """The SEGINT_ variables that say where its database, Redis and volume are."""
    processes: Mapping[str, ProcessRecord] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "DeploymentState":
        """Raises: ValueError, KeyError, TypeError: no state that this version wrote."""
        value = json.loads(text)
        return cls(
            phase=Phase(value["phase"]),
            host=str(value["host"]),
            port=int(value["port"]),
            url=str(value["url"]),
            supervisor=Identity(**value["supervisor"]),
            environment=dict(value["environment"]),
            processes={name: _process_record(record) for name, record in value["processes"].items()},
        )


def _process_record(value: Mapping[str, Any]) -> ProcessRecord:
    identity = value["identity"]
    return ProcessRecord(
        state=ProcessState(value["state"]),
        identity=None if identity is None else Identity(**identity),
        restarts=int(value["restarts"]),
    )


class DataDir:
    """The folders and files of one local deployment."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.logs = self.root / "logs"
        self.postgres = self.root / "postgres"
        self.redis = self.root / "redis"
        self.volume = self.root / "volume"
        self.scratch = self.root / "scratch"
        """What models write while they run."""
        self._session_secret = self.root / "session-secret"
        self._lock = self.root / "lock"
        self._state = self.root / "state.json"

    def create(self) -> None:
        """Make the folders that hold payloads and logs, open to their owner only.

        Raises:
            DataDirUnusable: a folder cannot be made here.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.volume, self.scratch):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise DataDirUnusable(
                f"{self.root} cannot be used ({error.strerror}); choose another with --data-dir."
            ) from error

    @property
    def is_default(self) -> bool:
        """Whether commands find it without being told."""
        return self.root == chosen_data_dir(None).root

    def session_secret(self) -> str:
        """What signs the console's sessions here: made once, and readable by the owner only.

        Raises:
            DataDirUnusable: it can neither be read nor written.
        """
        try:
            with suppress(FileExistsError):
                descriptor = os.open(self._session_secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                    stream.write(secrets.token_hex(SECRET_BYTES))
            return self._session_secret.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirUnusable(
                f"{self._session_secret} cannot be used ({error}); remove it, and whoever is logged in logs in again."
            ) from error

    def log(self, name: str) -> Path:
        """Where the process of that name writes."""
        return self.logs / f"{name}.log"

    def try_lock(self) -> int | None:
        """Take the lock that the supervisor holds while it lives.

        Returns:
            A file descriptor; closing the last copy of it releases the lock. None while somebody holds it.

        Raises:
            DataDirUnusable: the lock file cannot be opened.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirUnusable(f"{self._lock} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_locked_by(self, descriptor: int) -> bool:
        """Whether the descriptor still locks the file found here: not when the directory was removed or replaced."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock.stat())
        except OSError:
            return False

    def exists(self) -> bool:
        """Whether a deployment was ever started here.

        Raises:
            DataDirUnusable: this user may not look.
        """
        try:
            return self._lock.exists()
        except PermissionError as error:
            raise DataDirUnusable(f"{self.root} belongs to another user; choose another with --data-dir.") from error

    def write_state(self, state: DeploymentState) -> None:
        """Publish the state at once and whole; readable by the owner only, because a URL may hold a password."""
        temporary = self._state.with_suffix(".new")
        temporary.touch(mode=0o600)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(state.to_json())
        temporary.replace(self._state)

    def recorded_state(self) -> DeploymentState | None:
        """The state last published, also after a crash of its supervisor; None after a clean stop."""
        try:
            return DeploymentState.from_json(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def running_state(self) -> DeploymentState | None:
        """The state of a deployment whose supervisor lives; None otherwise."""
        state = self.recorded_state()
        return state if state is not None and state.supervisor.process() is not None else None

    def forget_state(self) -> None:
        """Remove the published state: nothing runs any more."""
        self._state.unlink(missing_ok=True)


def chosen_data_dir(data_dir: Path | None) -> DataDir:
    """The data directory named, else that of SEGINT_DATA_DIR, else the default one of this user."""
    if data_dir is None:
        named = os.environ.get(MARK)
        data_dir = Path(named) if named else DEFAULT_FOLDER
    return DataDir(data_dir)
