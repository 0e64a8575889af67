"""Everything that can be configured, read once from the environment (prefix SEGINT_) by a composition root.

Sizes are bytes, durations carry their unit in the name. The README's table is generated from this class.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.functional_validators import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.core.errors import InvalidSettings
from services.core.jobs import KeepInputs
from services.core.networks import networks
from services.core.pools import Pool, PoolDevice

MIB = 1024**2
GIB = 1024**3

LEAST_SECRET_CHARACTERS = 32

POOL_NAME_CHARACTERS = 40
POOL_NAME = re.compile(rf"(?=.{{1,{POOL_NAME_CHARACTERS}}}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?")
"""As names of Kubernetes, so that a chart can make objects of it."""


class ConstraintPolicy(StrEnum):
    """What to do with a volume that does not meet the constraints its model family publishes."""

    IGNORE = "ignore"
    RECORD = "record"
    REJECT = "reject"


class AuthPolicy(StrEnum):
    """Who may use the API without a token."""

    REQUIRED = "required"
    """Those in the trusted networks."""
    OPEN = "open"
    """Everybody."""


class Settings(BaseSettings):
    """One deployment's settings. Frozen: change the environment and restart."""

    model_config = SettingsConfigDict(env_prefix="SEGINT_", frozen=True, extra="ignore")

    # Where things are
    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/database.")
    migration_database_url: str = Field(
        "",
        description="The same database as the role that owns its tables, for `python -m migrations upgrade` and "
        "`segint restore` only; empty: SEGINT_DATABASE_URL, whose role could then change the audit.",
    )
    redis_url: str = Field(description="Redis of its own (noeviction), as redis://host:port/0 or unix:///path.")
    volume_dir: Path = Field(description="The mounted volume that the API and the workers share.")
    redis_namespace: str = Field("segint", min_length=1, description="Prefix of every Redis key, and so of the queue.")
    public_url: str = Field("", description="URL that VendorStatus names; empty: taken from the request.")

    # The wire
    protobuf_content_type: str = Field(
        "application/x-protobuf",
        description="Label of protobuf answers. SegInt-R's was `text/html; charset=utf-8`.",
    )
    constraint_policy: ConstraintPolicy = Field(
        ConstraintPolicy.RECORD,
        description="Volumes outside the constraints a family publishes: ignore, record on the job, or reject.",
    )
    one_shot_results: bool = Field(
        False, description="Delete a result once it has been sent whole, as SegInt-R did, instead of at its expiry."
    )
    language_code: str = Field("en-US", description="RFC 5646 tag in Credits and VendorStatus.")
    country_code: str = Field("US", description="ClientCountryCode in VendorStatus.")
    service_location: str = Field("US", description="The one entry of AvailableSegmentationServiceLocations.")
    vendor_name: str = Field("Research Server", description="VendorName in VendorStatus.")
    vendor_description_html: str = Field(
        "SegInt, an on-premise auto-segmentation server. <b>For research, not for clinical use.</b>",
        description="VendorDescriptionHtml in VendorStatus.",
    )
    total_credits: float = Field(100_000, description="Credits that clients are told they have.")
    credits_message: str = Field(
        "Credits do not apply on a local research server.", description="Shown with the credits."
    )

    # Who may use the API
    auth: AuthPolicy = Field(
        AuthPolicy.REQUIRED,
        description="required: a token (`segint token create`), or an address in SEGINT_TRUSTED_NETWORKS; open: "
        "anybody, for demonstrations only. /ping, /healthz, /readyz and /metrics are open always.",
    )
    trusted_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated networks (192.0.2.0/24, 2001:db8::/32, unix for Unix sockets) whose machines need "
        "no token, as Velocity's workstations: not known to send one. `segint up` trusts its own machine.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated networks of proxies, or unix. Only their X-Forwarded-For is believed.",
    )

    # Limits
    max_body_bytes: int = Field(1 * GIB, gt=0, description="Largest request body of a segmentation.")
    max_report_bytes: int = Field(1 * MIB, gt=0, description="Largest body of feedback or telemetry.")
    max_volume_voxels: int = Field(
        2**31, gt=0, description="Largest declared Width·Height·Depth of one volume; two bytes each once inflated."
    )
    max_concurrent_uploads: int = Field(8, gt=0, description="Uploads at one time, per API process.")

    max_queued_jobs: int = Field(
        500, gt=0, description="Jobs that may wait at one time; further uploads are asked to come back later."
    )
    min_free_bytes: int = Field(
        1 * GIB, ge=0, description="Room that uploads leave on the volume, so that results can still be written."
    )
    upload_idle_seconds: float = Field(
        60, gt=0, description="How long an upload may send nothing before it is given up."
    )
    upload_limit_seconds: float = Field(
        900, gt=0, description="How long one upload may take in all, however steadily it trickles."
    )

    # The job's life
    lease_seconds: float = Field(
        30, ge=3, allow_inf_nan=False, description="How long a claim holds without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        3, gt=0, allow_inf_nan=False, description="Time between heartbeats of a running job."
    )
    attempt_limit: int = Field(3, gt=0, description="Attempts before a job fails; counted when claimed.")
    retry_delay_seconds: float = Field(
        2,
        ge=0,
        allow_inf_nan=False,
        description="Wait before another attempt, doubled each time; of a silent worker, since its last heartbeat.",
    )
    model_time_limit_seconds: int = Field(
        900, gt=0, description="Longest run of one model on one job, where the version sets no other."
    )
    result_retention_hours: float = Field(
        24, gt=0, allow_inf_nan=False, description="How long a finished job and its result are kept."
    )
    keep_inputs: KeepInputs = Field(
        KeepInputs.FAILED, description="Which finished jobs keep their input until they expire: never, failed, always."
    )
    janitor_interval_seconds: float = Field(
        1, gt=0, allow_inf_nan=False, description="Time between two rounds of the janitor."
    )
    orphan_seconds: float = Field(
        3600,
        gt=0,
        allow_inf_nan=False,
        description="How long a file that no job names, or a job whose file is missing, may stay so before the file is "
        "deleted or the job failed.",
    )

    heartbeat_file: str = Field(
        "",
        description="File that a worker writes every few seconds while its loops turn, first once it is ready: what "
        "`python -m services.worker.alive` looks at, the probe of a container. Empty: none.",
    )

    # Pools of workers
    pool_name: str = Field(
        "default",
        description="The pool that a worker belongs to, in its metrics: small letters, digits and dashes.",
    )
    pool_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated identifiers of the only models that this worker runs; empty: any."
    )
    pool_except_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated identifiers of models that this worker leaves to other pools."
    )
    pool_runtimes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated names of the only runtimes whose models this worker runs, each of them installed; "
        "empty: all that are installed. A job of a model that no pool runs waits until one does.",
    )
    pool_device: PoolDevice = Field(
        PoolDevice.AUTO,
        description="auto: a GPU where there is one; cpu: GPUs are not seen, and models that ask for one are left to "
        "other pools; cuda: a worker without a GPU does not start.",
    )

    # Model hosts
    jobs_at_once: int = Field(
        3,
        gt=0,
        description="Jobs that one worker has in hand: one has the device while others are decoded and encoded. Each "
        "holds its inflated volumes and masks in memory, so this bounds them too.",
    )
    device_wait_seconds: float = Field(
        10,
        gt=0,
        allow_inf_nan=False,
        description="How long a worker keeps a job that waits for its device before it gives it back, because another "
        "worker may be idle by now.",
    )
    warm_models: int = Field(8, ge=0, description="Most models that one worker keeps loaded; 0: any number.")
    warm_memory_bytes: int = Field(
        8 * GIB,
        ge=0,
        description="Most memory of their own that the models which one worker keeps loaded may take together, as "
        "measured; 0: any. A model that is larger is run all the same, alone.",
    )
    warm_device_memory_bytes: int = Field(
        8 * GIB,
        ge=0,
        description="The same for GPU memory, as PyTorch has reserved it at most; CUDA itself takes some hundred MB "
        "more for each model.",
    )
    pinned_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated identifiers of models that stay loaded once they are, whatever others need."
    )
    preload_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated identifiers of models that a worker loads when it starts, before its first job, "
        "in this order and as far as they fit.",
    )
    model_load_limit_seconds: int = Field(300, gt=0, description="Longest time a model may take to load.")
    model_scratch_bytes: int = Field(1 * GIB, gt=0, description="Most that a model may write to its scratch folder.")
    model_memory_bytes: int = Field(
        0, ge=0, description="Most memory of its own that a model may take on the host before it is stopped; 0: any."
    )
    drain_seconds: int = Field(
        30, gt=0, description="How long a worker that was told to stop lets the job on the device finish."
    )
    worker_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port on which a worker shows its Prometheus metrics, on every address and to whoever asks; "
        "0: none. Two workers on one machine need two.",
    )

    # The console
    session_secret: SecretStr | None = Field(
        None,
        description="Signs the sessions of the console at /admin: at least 32 random characters, the same for all API "
        "processes, such as the output of `openssl rand -hex 32`. Without it there is no console; `segint up` makes "
        "its own and keeps it in the data folder.",
    )
    session_idle_minutes: float = Field(
        30, gt=0, allow_inf_nan=False, description="How long a session of the console lasts without being used."
    )
    session_hours: float = Field(
        12, gt=0, allow_inf_nan=False, description="How long a session of the console lasts in all."
    )
    max_model_file_bytes: int = Field(8 * GIB, gt=0, description="Largest model file or module that the console takes.")

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR."
    )

    @field_validator("session_secret")
    @classmethod
    def _secret_cannot_be_guessed(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None or not secret.get_secret_value():
            return None
        if len(secret.get_secret_value()) < LEAST_SECRET_CHARACTERS:
            raise ValueError(f"a secret of at least {LEAST_SECRET_CHARACTERS} characters is needed")
        return secret

    @field_validator(
        "pinned_models",
        "preload_models",
        "pool_models",
        "pool_except_models",
        "pool_runtimes",
        "trusted_networks",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("pool_name")
    @classmethod
    def _is_a_label(cls, name: str) -> str:
        if not POOL_NAME.fullmatch(name):
            raise ValueError(
                f"a name of at most {POOL_NAME_CHARACTERS} small letters, digits and inner dashes is needed"
            )
        return name

    @field_validator("trusted_networks", "trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks(value)
        return value

    @property
    def pool(self) -> Pool:
        """Which models this worker claims."""
        return Pool(self.pool_name, self.pool_models, self.pool_except_models, self.pool_runtimes, self.pool_device)

    @model_validator(mode="after")
    def _heartbeats_fit_the_lease(self) -> Self:
        if self.heartbeat_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"SEGINT_HEARTBEAT_SECONDS is {self.heartbeat_seconds:g}, but a lease of {self.lease_seconds:g} s "
                "needs at least three heartbeats; lower it, or raise SEGINT_LEASE_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _rounds_fit_the_lease(self) -> Self:
        # A pause of a third of a lease counts as an outage, after which no lease is taken back for a while.
        if self.janitor_interval_seconds * 6 > self.lease_seconds:
            raise ValueError(
                f"SEGINT_JANITOR_INTERVAL_SECONDS is {self.janitor_interval_seconds:g}, but a lease of "
                f"{self.lease_seconds:g} s needs at least six rounds; lower it, or raise SEGINT_LEASE_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _uploads_are_no_orphans(self) -> Self:
        if self.orphan_seconds <= self.upload_limit_seconds:
            raise ValueError(
                f"SEGINT_ORPHAN_SECONDS is {self.orphan_seconds:g}, but an upload may take "
                f"SEGINT_UPLOAD_LIMIT_SECONDS, {self.upload_limit_seconds:g} s, and has no job until it is whole; "
                "raise the first or lower the second"
            )
        return self


def read_settings(**given: str) -> Settings:
    """Settings from the environment, with the `given` fields over it.

    Raises:
        InvalidSettings: a variable is missing, or has a value that cannot be used; every such variable is named.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type] # pydantic turns texts into what the fields are
    except ValidationError as error:
        faults = "; ".join(
            f"SEGINT_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            if fault["loc"]
            else fault["msg"]
            for fault in error.errors()
        )
        raise InvalidSettings(f"{faults}. Correct it in the environment and start again.") from error


def settings_or_exit() -> Settings:
    """What a service starts with: settings, or one line on stderr and exit code 1."""
    try:
        return read_settings()
    except InvalidSettings as error:
        raise SystemExit(f"{error.summary}: {error.details}") from error
