"""What a local deployment consists of: which processes, in which order, with which environment."""

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import services
from services.client.local.address import is_wildcard, url_of
from services.client.local.data_dir import DataDir, ProcessRecord, ProcessState
from services.client.local.identity import MARK
from services.client.local.postgres import APPLICATION_ROLE, DATABASE, LocalPostgres
from services.client.local.redis import LocalRedis
from services.client.local.settings import FIELDS, settings_from
from services.client.local.supervisor import Service

SESSION_SECRET = "SEGINT_SESSION_SECRET"  # noqa: S105 # a variable's name
OWNER_URL = "SEGINT_MIGRATION_DATABASE_URL"
API_DRAIN_SECONDS = 30
"""How long open requests may take to end once the API was told to stop."""
STOP_MARGIN_SECONDS = 10
"""Added to each drain before a process is killed."""
OWN_MACHINE = {"SEGINT_TRUSTED_NETWORKS": "127.0.0.0/8,::1"}
"""Who is on this machine needs no token, unless its environment says otherwise."""
PROBE_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment that is ready to be started."""

    url: str
    environment: Mapping[str, str]
    """The SEGINT_ variables that say where its database, Redis and volume are."""
    stages: Sequence[Sequence[Service]]
    external: Mapping[str, ProcessRecord]
    """Servers of somebody else that it uses."""
    own_servers: Sequence[LocalPostgres | LocalRedis] = field(default=())

    def release(self) -> None:
        """Remove what lies outside the data directory; every process has stopped."""
        for server in self.own_servers:
            server.release()

    def opened_folders(self) -> list[Path]:
        """Folders that were opened for passing through, because PostgreSQL does not run as root."""
        return [folder for server in self.own_servers for folder in getattr(server, "opened_folders", ())]


def plan(data_dir: DataDir, host: str, port: int) -> Deployment:
    """The deployment of that data directory, after preparing what its servers need.

    A server that the process's environment names (SEGINT_DATABASE_URL, SEGINT_REDIS_URL) is used instead of one of
    its own.

    Raises:
        SegIntError: the environment, the data directory or a wheel cannot be used; nothing was started.
    """
    url = url_of(host, port)
    places = {name: os.environ[name] for name in FIELDS if os.environ.get(name)}
    places.setdefault("SEGINT_VOLUME_DIR", str(data_dir.volume))
    if not is_wildcard(host):  # else the API names itself as each request addressed it
        places.setdefault("SEGINT_PUBLIC_URL", url)
    servers: list[Service] = []
    own: list[LocalPostgres | LocalRedis] = []
    external: dict[str, ProcessRecord] = {}
    prepare_arguments: list[str] = []
    owner_url = os.environ.get(OWNER_URL, "")
    if "SEGINT_DATABASE_URL" in places:
        external["postgres"] = ProcessRecord(ProcessState.EXTERNAL)
    else:
        postgres = LocalPostgres(data_dir.postgres)
        places["SEGINT_DATABASE_URL"] = postgres.url(DATABASE, APPLICATION_ROLE)
        owner_url = postgres.url(DATABASE)
        prepare_arguments.append(str(data_dir.postgres))
        own.append(postgres)
        servers.append(_postgres(data_dir, postgres))
    if "SEGINT_REDIS_URL" in places:
        external["redis"] = ProcessRecord(ProcessState.EXTERNAL)
    else:
        redis = LocalRedis(data_dir.redis)
        places["SEGINT_REDIS_URL"] = redis.url
        own.append(redis)
        servers.append(_redis(data_dir, redis))
    drain_seconds = settings_from(places).drain_seconds
    for server in own:
        server.prepare()
    environment = {**OWN_MACHINE, **python_environment(), **places, MARK: str(data_dir.root)}
    environment.pop(OWNER_URL, None)  # API and worker have no use for it
    # For the API alone, and in no file that others read.
    console = {} if environment.get(SESSION_SECRET) else {SESSION_SECRET: data_dir.session_secret()}
    return Deployment(
        url=url,
        environment=places,
        stages=[
            servers,
            [_prepare(data_dir, prepare_arguments, {**environment, OWNER_URL: owner_url})],
            [_api(data_dir, host, port, {**environment, **console}), _worker(data_dir, drain_seconds, environment)],
        ],
        external=external,
        own_servers=own,
    )


def python_environment() -> dict[str, str]:
    """An environment in which a Python process, started in any folder, imports this very copy of the code."""
    code = str(Path(services.__file__).parents[1])
    search = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}


def _postgres(data_dir: DataDir, postgres: LocalPostgres) -> Service:
    return Service(
        name="postgres",
        argv=postgres.command(),
        log=data_dir.log("postgres"),
        missing=lambda pid: "" if postgres.accepts_connections(pid) else "it does not accept connections",
        options=postgres.popen_options(),
        before_start=postgres.prepare,
        stop_signal=LocalPostgres.STOP_SIGNAL,
        stop_limit_seconds=LocalPostgres.STOP_LIMIT_SECONDS,
    )


def _redis(data_dir: DataDir, redis: LocalRedis) -> Service:
    return Service(
        name="redis",
        argv=redis.command(),
        log=data_dir.log("redis"),
        missing=lambda _: "" if redis.accepts_connections() else "it does not answer PING",
        options=redis.popen_options(),
        before_start=redis.prepare,
        stop_signal=LocalRedis.STOP_SIGNAL,
        stop_limit_seconds=LocalRedis.STOP_LIMIT_SECONDS,
    )


def _prepare(data_dir: DataDir, arguments: Sequence[str], environment: Mapping[str, str]) -> Service:
    return Service(
        name="prepare",
        argv=[sys.executable, "-m", "services.client.local.prepare", *arguments],
        log=data_dir.log("prepare"),
        missing=lambda _: "it has not finished",
        options={"env": environment, "cwd": data_dir.logs},
        runs_once=True,
    )


def _api(data_dir: DataDir, host: str, port: int, environment: Mapping[str, str]) -> Service:
    return Service(
        name="api",
        argv=[
            *(sys.executable, "-m", "uvicorn"),
            *("--factory", "services.api.app:create_app_from_environment"),
            *("--host", host, "--port", str(port), "--no-access-log", "--no-proxy-headers"),
            *("--timeout-graceful-shutdown", str(API_DRAIN_SECONDS)),
        ],
        log=data_dir.log("api"),
        missing=lambda _: what_readyz_lacks(url_of(host, port)),
        # Started in a folder of ours: Python would import from the one that `segint up` was called in.
        options={"env": environment, "cwd": data_dir.logs},
        stop_limit_seconds=API_DRAIN_SECONDS + STOP_MARGIN_SECONDS,
    )


def _worker(data_dir: DataDir, drain_seconds: int, environment: Mapping[str, str]) -> Service:
    return Service(
        name="worker",
        argv=[sys.executable, "-m", "services.worker"],
        log=data_dir.log("worker"),
        missing=lambda _: "",
        # The temporary folder of all users may hold another worker's lock, which only its owner can open.
        options={"env": {**environment, "TMPDIR": str(data_dir.scratch)}, "cwd": data_dir.logs},
        stop_limit_seconds=drain_seconds + STOP_MARGIN_SECONDS,
    )


def what_readyz_lacks(url: str) -> str:
    """What keeps the API from being ready, as far as it says; empty once it is."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PROBE_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", errors="replace").strip()
        return "" if answer.status == 200 else f"GET /readyz answered {answer.status} {body}"
    except (OSError, http.client.HTTPException) as error:
        return f"GET /readyz failed: {error}"
    finally:
        connection.close()
